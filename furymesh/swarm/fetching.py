"""The chunks of one download on their way in: decisions carried out, outcomes fed back.

`Fetching` is the fetcher of a share from the moment its geometry is known. It
turns what members do into events of the scheduler, the scheduler's actions
into messages, and what the storing threads report into progress.

Always true: a chunk has an arrival only while the scheduler says that its
member owes it; a chunk is counted as done only when it is stored.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import trio

from furymesh.core.errors import DiskFullError, FuryMeshError, PeerError
from furymesh.core.ids import NodeId, node_id_text
from furymesh.core.manifest import Manifest
from furymesh.core.scheduler import TICK, Action, Cancel, Request, Scheduler
from furymesh.core.senders import SenderCount
from furymesh.net.tasks import open_tasks
from furymesh.storage.part import PartStore
from furymesh.storage.resume import ResumeData
from furymesh.swarm.announcer import Announcer
from furymesh.swarm.arrivals import Arrivals, Outcome, Verdict
from furymesh.swarm.events import Event, Note
from furymesh.swarm.feeds import Feeds
from furymesh.swarm.member import Cancelled, Member, Sender
from furymesh.swarm.metadata import ManifestFetch, ManifestFetcher
from furymesh.swarm.mirrors import Lane
from furymesh.swarm.progress import IdleClock, Tally
from furymesh.swarm.room import DiskRoom
from furymesh.swarm.share import Share
from furymesh.wire import messages as m

PING_SECONDS = 2.0  # between round trips measured to a peer that owes us bytes
QUIET_SECONDS = 0.5  # of such a peer's silence, after which it is asked whether it lives
# For a Cancel to be confirmed. Whoever is still in the middle of a piece then will not
# end it, and keeps a place that a better peer could have.
CONFIRM_SECONDS = 20.0


class Fetching(ManifestFetcher):
    """Scheduler, arrivals and counters of one download."""

    def __init__(
        self,
        share: Share,
        metadata: ManifestFetch,
        clock: IdleClock,
        only_nodes: frozenset[NodeId],
        *,
        manifest: Manifest,
        part: PartStore,
        resume: ResumeData | None,
        have: int,
        reserve: int,
        tally: Tally,
        tell: Callable[[Event], None],
    ) -> None:
        """Take over the share's members; `have` is the mask of the chunks in `part`,
        `reserve` the bytes to leave free on its disk."""
        super().__init__(share, metadata, clock, only_nodes)
        self.chunks_done = have.bit_count()
        self.unsynced = 0  # bytes stored since the owner of the journal last set it to 0
        self._manifest = manifest
        self._geometry = manifest.header.geometry
        self._tally = tally
        self._tell = tell
        endpoint = self._swarm.endpoint
        slabs = endpoint.buffers.slabs
        self._arrivals = Arrivals(manifest, part, resume, slabs, self._chunks_settled)
        self.disk = DiskRoom(self, part, resume, reserve, self._geometry.chunk_size, clock, tell)
        self._scheduler = scheduler = Scheduler(
            self._geometry,
            self._swarm.rng,
            have=have,
            max_senders=self._arrivals.senders,
            me=endpoint.identity.node_id + endpoint.instance,
        )
        scheduler.verifiable = manifest.verifiable
        self.feeds = Feeds(self, scheduler, self._arrivals, clock, tally, self._apply, tell)
        self._senders = SenderCount(self._geometry.chunk_size)
        self._members: dict[int, Member] = {}
        self._held: set[int] = set()  # members that wait for a slab
        self._announcer = Announcer(share)
        self._settled = trio.Event()
        self._failure: FuryMeshError | None = None
        self._count_senders(self._swarm.now())
        for member in share.members.values():
            self._enter(member)

    @property
    def have(self) -> int:
        """The mask of the chunks that are stored."""
        return self._scheduler.ledger.have

    # --- running --------------------------------------------------------------------

    async def run(self) -> None:
        """Fetch, store and announce until cancelled."""
        async with open_tasks() as nursery:
            nursery.start_soon(self._arrivals.run)
            nursery.start_soon(self._ticking)
            nursery.start_soon(self._announcer.run)
            nursery.start_soon(self.disk.run)

    async def everything(self) -> None:
        """Return when every chunk is stored; raises what made that impossible."""
        while self.disk.paused or not self._scheduler.ledger.done:
            self._settled = trio.Event()
            if self._failure is not None:
                raise self._failure
            await self._settled.wait()
        self._arrivals.rest()

    def close(self) -> None:
        """Let go of the memory for chunks, once the share has another fetcher or is no more."""
        self._arrivals.close()

    def lost(self, bad: int) -> None:
        """Stored chunks (a mask) are not what was verified: fetch them again."""
        bad &= self.have
        self.share.withdraw(bad)
        self.chunks_done -= bad.bit_count()
        self._apply(self._scheduler.lost(self._swarm.now(), bad))

    @property
    def missing_bytes(self) -> int:
        """What is still to be stored."""
        return self._geometry.size - self._geometry.bytes_in(self.have)

    @property
    def storing(self) -> bool:
        """Whether chunks are on their way to the disk."""
        return self._arrivals.storing

    def hold(self) -> None:
        """The disk is full: ask for nothing until `proceed`."""
        self._apply(self._scheduler.pause())

    def proceed(self) -> None:
        """There is room again."""
        self._apply(self._scheduler.proceed(self._swarm.now()))
        self._settled.set()

    async def _ticking(self) -> None:
        """Let the scheduler look at the clock, and at who still sends something."""
        last_ping = self._swarm.now()
        while True:
            await trio.sleep(TICK)
            now, scheduler = self._swarm.now(), self._scheduler
            self._count_senders(now)
            ping = now - last_ping >= PING_SECONDS
            if ping:
                last_ping = now
            for number, member in self._members.items():
                if not scheduler.owed(number):
                    continue
                heard = member.link.heard_at
                scheduler.stirred(heard, number)
                if self._swarm.endpoint.download:
                    self._count_unfinished(now, member)
                if ping or member.cancelled or now - heard > QUIET_SECONDS:
                    self._swarm.ping(member.link)
            self._apply(scheduler.tick(now))
            for member in list(self._members.values()):
                cancelled = next(iter(member.cancelled.values()), None)
                if cancelled is not None and now - cancelled.since > CONFIRM_SECONDS:
                    member.link.close(PeerError("the peer did not end what it had begun to send"))

    def _count_senders(self, now: float) -> None:
        """Other downloads come and go, and limits change."""
        budgets = [*self._swarm.endpoint.download, self.share.download]
        limit = min((budget.rate for budget in budgets if budget.rate is not None), default=None)
        reached = any(budget.reached for budget in budgets)
        most = self._arrivals.senders
        self._scheduler.max_senders = self._senders.look(now, limit, reached, most)
        self._scheduler.limited = reached

    def _count_unfinished(self, now: float, member: Member) -> None:
        """Under a limit of ours a piece may take minutes: what came of it is progress too."""
        link = member.link
        came = link.traffic.received - member.counted
        member.counted += came
        if link.session.payload_left:
            self._clock.received(now, came)

    # --- what the share tells ---------------------------------------------------------

    def member_joined(self, member: Member) -> None:
        self._enter(member)
        super().member_joined(member)

    def _enter(self, member: Member) -> None:
        self._members[member.number] = member
        key = member.link.node_id + member.link.instance
        self._scheduler.peer_joined(self._swarm.now(), member.number, key)

    def member_left(self, member: Member) -> None:
        super().member_left(member)
        number = member.number
        del self._members[number]
        self.released(number)
        self._tally.wasted += self._arrivals.left(member)
        self._apply(self._scheduler.peer_left(self._swarm.now(), number))

    def member_has(self, member: Member, mask: int) -> None:
        self._apply(self._scheduler.peer_has(self._swarm.now(), member.number, mask))

    def member_lost(self, member: Member, mask: int) -> None:
        chunk = self._arrivals.arriving(member)
        if chunk is not None and mask >> chunk & 1:
            self._drop(member, chunk)
        self._apply(self._scheduler.peer_lost(self._swarm.now(), member.number, mask))

    def page(self, member: Member, message: m.ManifestPage) -> None:
        super().page(member, message)
        verifiable = self._manifest.verifiable
        if verifiable != self._scheduler.verifiable:
            self._apply(self._scheduler.verifiable_grew(self._swarm.now(), verifiable))

    def rejected(self, member: Member, message: m.Reject) -> None:
        refused = message.chunks
        if message.reason is m.Reason.DONE:  # our Cancel of these is confirmed
            refused = tuple(c for c in refused if member.cancelled.pop(c, None) is None)
        for chunk in refused:
            self._drop(member, chunk)
        self._apply(
            self._scheduler.rejected(
                self._swarm.now(),
                member.number,
                refused,
                held=message.reason is not m.Reason.NOT_HELD,
                suggest=message.suggest,
            )
        )

    def spoke(self, member: Member, round_trip: float | None) -> None:
        if member.cancelled:
            # A measured round trip lets the scheduler ask again for what it took back,
            # and that must wait until every Cancel is confirmed.
            round_trip = None
        self._apply(self._scheduler.heard(self._swarm.now(), member.number, round_trip))

    def sink(self, member: Member, data: m.Data) -> memoryview | None:
        if self._scheduler.owes(member.number, data.chunk):
            return self.place(member, data)
        self.released(member.number)
        return self._swarm.discard(member, data)

    def released(self, number: int) -> None:
        """A member or mirror waits for no slab any more."""
        if number in self._held:
            self._held.remove(number)
            self._scheduler.let_go(self._swarm.now(), number)

    def place(self, sender: Sender, data: m.Data) -> memoryview | None:
        """Where bytes go of a chunk that is owed; None while there is no room."""
        place = self._arrivals.sink(sender, data)
        if place is None:
            self._held.add(sender.number)
            self._scheduler.held_up(self._swarm.now(), sender.number)
        else:
            self.released(sender.number)
        return place

    async def room(self) -> None:
        await self._arrivals.room()

    def filled(self, sender: Sender, data: m.Data) -> None:
        if not self._arrivals.filled(sender, data):
            self._tally.wasted += data.length
            return
        now = self._swarm.now()
        self._clock.received(now, data.length)
        if data.offset + data.length == self._geometry.length(data.chunk):
            self._arrivals.complete(sender)
        self._apply(self._scheduler.data(now, sender.number, data.chunk, data.length))

    # --- carrying out -----------------------------------------------------------------

    def _apply(self, actions: Sequence[Action]) -> None:
        for action in actions:
            member = self._members.get(action.peer)
            if member is None:
                self.feeds.act(action)
                continue
            number = member.link.session.number(self.share.file_id)
            match action:
                case Request(_, chunks):
                    member.link.send(m.Request(number, chunks))
                case Cancel(_, chunks):
                    for chunk in chunks:
                        left = self._geometry.length(chunk) - self._drop(member, chunk)
                        member.cancelled[chunk] = Cancelled(self._swarm.now(), left)
                    member.link.send(m.Cancel(number, chunks))

    def _drop(self, member: Member, chunk: int) -> int:
        """A chunk is not wanted from a member any more; returns the bytes that had come."""
        received = self._arrivals.cancel(member, chunk)
        self._tally.wasted += received
        return received

    def _chunks_settled(self, outcomes: list[Outcome]) -> None:
        """Chunks were verified and stored, or not."""
        now, scheduler = self._swarm.now(), self._scheduler
        fresh: list[int] = []
        for outcome in outcomes:
            arrival = outcome.arrival
            length = self._geometry.length(arrival.chunk)
            if outcome.verdict is Verdict.GOOD:
                self._apply(scheduler.stored(now, arrival.chunk))
                fresh.append(arrival.chunk)
                self.chunks_done += 1
                self.unsynced += length
                self._tally.credit(arrival.sender, length)
                self._clock.useful()
                continue
            if outcome.verdict is Verdict.BAD:
                self._tally.wasted += length
                self._blame(arrival.sender)
            elif isinstance(outcome.error, DiskFullError):
                self.disk.ran_out(outcome.error)
            else:
                self._failure = outcome.error
            self._apply(scheduler.bad(now, arrival.chunk))
        if fresh:
            self.share.gained(fresh)
            self._announcer.gained(len(fresh))
        if scheduler.ledger.done or self._failure is not None:
            self._settled.set()

    def _blame(self, sender: Sender) -> None:
        """Somebody sent a bad chunk; more of them may have been on their way."""
        if isinstance(sender, Lane):
            sender.feed.drop("it sent a chunk that is not the share's")
        elif isinstance(sender, Member):
            node_id = sender.link.node_id
            if node_id not in self._swarm.admission.bans.nodes:
                self._swarm.quarantine(sender.link)
                name = node_id_text(node_id)[:12]
                self._tell(Note(f"peer {name}… sent a bad chunk: not asked again"))
