"""The use of a relay: being found through it, and reaching others through it.

A `RelayClient` keeps a rendezvous link to one relay, dialled from the port where this
process accepts links, so that a NAT keeps a mapping of that port open. Others that it
is introduced to come into the address book; such a candidate is reached by dialling
it directly, as it does at the same time, and through the relay beside that. A direct
link that comes later takes the relayed one's place: see `admission`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable
from contextlib import suppress
from functools import partial

import trio

from furymesh.core.errors import FuryMeshError, LinkClosedError, UnavailableError
from furymesh.core.ids import DiscoveryTag, FileId, NodeId, Process, discovery_tag
from furymesh.core.link import Address
from furymesh.discovery.book import Source
from furymesh.net.addresses import is_loopback, same_machine, unpacked_ip
from furymesh.net.handler import Shareless
from furymesh.net.relay import RELAY, RENDEZVOUS
from furymesh.net.secure_link import SecureLink
from furymesh.swarm.meetings import MAX_MEETINGS, Meeting, Meetings
from furymesh.swarm.swarm import Swarm
from furymesh.wire import codec
from furymesh.wire import messages as m

LOOK_SECONDS = 1.0  # between two looks whether the shares here are still those that it knows
REFRESH_SECONDS = 60.0  # before it is asked again who else is there
FIRST_BACKOFF = 1.0  # seconds before a relay that failed is dialled again, doubled each time
MAX_BACKOFF = 60.0
REACH_SECONDS = 15.0  # for the relay to fetch the other end; it gives up after 10
STEADY_SECONDS = 30.0  # a rendezvous link that lived as long was a good one
# A direct link saves the move from the relayed one if it comes within this.
HEAD_START = 0.5
MAX_SUMMONED = 32  # links through one relay that are being made or live, from strangers too
MAX_SUMMONED_PER_MACHINE = 4  # of these, asked for from one machine, as the relay says
# Meetings because others asked for them: there is room for those that this end wants.
MAX_SUMMONED_MEETINGS = MAX_MEETINGS // 2


class RelayClient(Shareless):
    """This process at one relay. `run` it; it is the handler of its rendezvous link."""

    def __init__(self, swarm: Swarm, address: Address) -> None:
        self.address = address
        self.link: SecureLink | None = None  # the rendezvous link while there is one
        self.trouble = ""  # why there is none, in a line
        self._swarm = swarm
        self._endpoint = swarm.endpoint
        self._tags: dict[DiscoveryTag, FileId] = {}
        self._summoned: Counter[Hashable] = Counter()  # live answers, by who asked
        self._meetings: Meetings
        self._tasks: trio.Nursery

    @property
    def public_address(self) -> tuple[str, int] | None:
        """Where this process seems to be from outside; None while that is not known."""
        hello = self.link.hello if self.link else None
        if hello is None or not hello.observed_ip:
            return None
        return unpacked_ip(hello.observed_ip), hello.observed_port

    def names(self, tag: DiscoveryTag) -> bool:
        """Whether the relay is asked who else takes part in a share."""
        return self.link is not None and tag in self._tags

    async def run(self) -> None:
        """Keep a link to the relay, until cancelled."""
        backoff, last_word = FIRST_BACKOFF, ""
        async with trio.open_nursery() as self._tasks:
            self._meetings = Meetings(self._swarm, self._tasks)
            while True:
                try:
                    link = await self._dial()
                except FuryMeshError as error:
                    self.trouble = word = f"relay {self.address}: {error}"
                    if word != last_word:
                        last_word = word
                        self._swarm.report(word)
                else:
                    begun = trio.current_time()
                    await self._keep(link)
                    if trio.current_time() - begun > STEADY_SECONDS:
                        backoff, last_word = FIRST_BACKOFF, ""
                    if link.farewell in (m.Reason.BUSY, m.Reason.FORBIDDEN):
                        backoff = MAX_BACKOFF
                        self.trouble = f"relay {self.address}: {link.closed_because}"
                        self._swarm.report(self.trouble)
                await trio.sleep(backoff * self._swarm.rng.uniform(0.6, 1.0))
                backoff = min(2 * backoff, MAX_BACKOFF)

    async def _dial(self) -> SecureLink:
        dial = partial(self._endpoint.dial, self.address, features=(RENDEZVOUS,))
        try:
            link = await dial(local_port=self._endpoint.listen_port)
        except UnavailableError:
            # The remains of the last link may still hold the port.
            link = await dial(local_port=0)
        if link.hello is None or link.socket is None or RELAY not in link.hello.features:
            link.close()
            raise UnavailableError("it is no relay: choose another, or set node.relay there")
        self._meetings.port = link.socket.getsockname()[1]
        self._meetings.relay = link.remote[0]
        return link

    async def _keep(self, link: SecureLink) -> None:
        self.link, self.trouble = link, ""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._keep_telling, link)
                await link.run(self)
                nursery.cancel_scope.cancel()
        finally:
            self.link = None

    async def _keep_telling(self, link: SecureLink) -> None:
        told: frozenset[DiscoveryTag] | None = None
        told_at = 0.0
        while True:
            shares = [share for share in self._swarm.shares.values() if not share.private]
            self._tags = {discovery_tag(share.file_id): share.file_id for share in shares}
            tags = frozenset(self._tags)
            if tags != told or trio.current_time() - told_at > REFRESH_SECONDS:
                told, told_at = tags, trio.current_time()
                link.send(m.Rendezvous(tuple(tags)[: codec.MAX_TAGS]))
            await trio.sleep(LOOK_SECONDS)

    # --- what the relay says ------------------------------------------------------------

    def message(self, link: SecureLink, message: m.Message) -> None:
        match message:
            case m.Ping():
                link.pong(message.nonce)
            case m.Introduction():
                self._introduced(link, message)
            case m.Summons():
                self._called(link, message)

    def _introduced(self, link: SecureLink, message: m.Introduction) -> None:
        file_id = self._tags.get(DiscoveryTag(message.tag))
        share = self._swarm.shares.get(file_id) if file_id is not None else None
        process = (NodeId(message.node_id), message.instance)
        host = unpacked_ip(message.ip)
        if share is None or share.fetcher is None or share.private:
            return
        if self._swarm.admission.bans.holds(process[0]):
            return
        if process == self._endpoint.process:
            return
        self._swarm.book.add(
            share.file_id,
            Address(host, message.port, process[0]),
            Source.RELAY,
            teller=link.party,
            process=process,
            via=partial(self.reach, process, (host, message.port)),
        )

    # --- links through the relay ----------------------------------------------------------

    async def reach(self, process: Process, place: tuple[str, int]) -> SecureLink:
        """A link to a process that the relay knows: direct if that comes soon, else relayed.

        `place` is where the relay sees it. Raises FuryMeshError.
        """
        meeting = self._meetings.arrange(process, place)
        meeting.awaited += 1
        relayed: list[SecureLink] = []
        failures: list[FuryMeshError] = []

        async def through() -> None:
            try:
                relayed.append(await self._through(process))
            except FuryMeshError as error:
                failures.append(error)
            else:
                with trio.move_on_after(HEAD_START):
                    await meeting.over.wait()
                nursery.cancel_scope.cancel()

        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(through)
                await meeting.over.wait()
                if meeting.link is not None:
                    nursery.cancel_scope.cancel()
        except BaseException:
            for link in (*relayed, *filter(None, (meeting.link,))):
                link.close()
            raise
        finally:
            meeting.awaited -= 1
        direct, meeting.link = meeting.link, None
        if direct is None:
            if relayed:
                return relayed[0]
            raise failures[0] if failures else UnavailableError("another share took the link")
        for link in relayed:
            link.close()
        return direct

    async def _through(self, process: Process) -> SecureLink:
        """A link through the relay."""
        outer = await self._splice(m.Reach(*process))
        assert outer.socket is not None
        return await self._endpoint.establish(
            outer.socket, outer.remote, initiator=True, expected=process[0], relayed=True
        )

    def _called(self, link: SecureLink, summons: m.Summons) -> None:
        """Somebody wants a link to this process."""
        process = (NodeId(summons.node_id), summons.instance)
        host = unpacked_ip(summons.ip) if summons.ip else ""
        # Who has no link to the relay, and so no address, is one of those who may be anybody.
        machine = process[0] if is_loopback(host) else same_machine(host)
        if (
            self._swarm.admission.bans.holds(process[0])
            or self._summoned.total() >= MAX_SUMMONED
            or self._summoned[machine] >= MAX_SUMMONED_PER_MACHINE
        ):
            return
        meeting = None
        if len(self._meetings) < MAX_SUMMONED_MEETINGS:
            meeting = self._meetings.arrange(process, (host, summons.port))
        self._summoned[machine] += 1
        self._tasks.start_soon(self._answer, summons.token, meeting, machine)

    async def _answer(self, token: bytes, meeting: Meeting | None, machine: Hashable) -> None:
        """Run a link through the relay that was asked for from this machine."""
        try:
            with suppress(FuryMeshError):
                outer = await self._splice(m.Answer(token))
                assert outer.socket is not None
                inner = await self._endpoint.establish(
                    outer.socket, outer.remote, initiator=False, relayed=True
                )
                await self._swarm.run_link(inner)
            if meeting is not None:
                await meeting.over.wait()
        finally:
            self._summoned[machine] -= 1
            if not self._summoned[machine]:
                del self._summoned[machine]

    async def _splice(self, word: m.Reach | m.Answer) -> SecureLink:
        """A connection to the relay whose bytes from now on are those of another end."""
        outer = await self._endpoint.dial(self.address, features=(RELAY,))
        try:
            with trio.fail_after(REACH_SECONDS):
                await outer.say(word)
                said = await outer.hear()
            if isinstance(said, m.Goodbye):
                raise UnavailableError(f"the relay says: {said.reason.words}")
            if not isinstance(said, m.Spliced):
                raise LinkClosedError("the relay said what it should not")
        except trio.TooSlowError:
            outer.close()
            raise UnavailableError("the relay does not answer") from None
        except BaseException:
            outer.close()
            raise
        return outer
