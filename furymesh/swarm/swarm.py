"""All links and shares of one node: who is connected, and who gets what next.

Always true:

* at most one link per remote process: of two, the one dialled by the smaller
  (node id, instance) stays, so both ends keep the same one;
* a share is live on a link exactly while the link is in ``share.members``, but
  for links that have said goodbye;
* one node, or one machine, cannot take the places of all others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import count
from random import Random

import trio

from furymesh.core.errors import (
    FuryMeshError,
    IllegalStateError,
    InternalError,
    LinkClosedError,
    ProtocolError,
)
from furymesh.core.ids import DiscoveryTag, FileId, NodeId, discovery_tag
from furymesh.core.uploads import Uploads
from furymesh.discovery.book import PeerBook
from furymesh.net.addresses import is_loopback, same_machine
from furymesh.net.connect import Endpoint
from furymesh.net.handler import LinkHandler, Piece
from furymesh.net.secure_link import SecureLink
from furymesh.swarm import exchange
from furymesh.swarm.news import News
from furymesh.swarm.sending import ChunkPiece, Sending
from furymesh.swarm.share import Member, Share
from furymesh.wire import messages as m

MAX_LINKS = 200  # more would only share the same uplink
MAX_PER_NODE = 4  # processes of one node at a time
MAX_PER_MACHINE = 32  # links accepted from one address, behind which many nodes may be
MAX_REFUSALS = 256  # joins for unknown shares on one link; then it is guessing, not asking
MAX_BANNED_HERE = 2  # nodes banned at one address before the address is
UNUSED_SECONDS = 15.0  # a link on which no share is live takes a place for nothing
WATCH_SECONDS = 1.0  # between two looks at a link
PROBE_SECONDS = 2.0  # for an old link to show that it lives when the same peer dials again
PING_SECONDS = 10.0  # without an answer, after which another measurement may begin


class _Deaf:
    """The handler of a refused link: nothing on it means anything."""

    def message(self, link: SecureLink, message: m.Message) -> None:
        """Ignored."""

    def sink(self, link: SecureLink, data: m.Data) -> memoryview | None:
        raise ProtocolError("chunk bytes that nobody asked for")

    async def room(self, link: SecureLink, data: m.Data) -> None:
        await trio.lowlevel.checkpoint()

    def filled(self, link: SecureLink, data: m.Data) -> None:
        """Never asked."""

    def departing(self, link: SecureLink) -> None:
        """Nothing to add."""

    def piece(self, link: SecureLink, room: int) -> Piece | None:
        return None

    def unreadable(self, link: SecureLink, piece: Piece, error: FuryMeshError) -> None:
        """Never asked."""


_DEAF: LinkHandler = _Deaf()


class Swarm:
    """The links of a node and the shares it takes part in."""

    def __init__(self, endpoint: Endpoint, rng: Random, *, max_links: int = MAX_LINKS) -> None:
        self.endpoint = endpoint
        self.rng = rng
        self.uploads = Uploads(rng)
        self.shares: dict[FileId, Share] = {}
        self.links: dict[tuple[NodeId, bytes], SecureLink] = {}
        self.book = PeerBook(rng)
        self.news = News()
        self.banned: set[NodeId] = set()  # sent a chunk with a wrong digest
        self.max_links = max_links
        self.dialling = 0  # links that may be added soon
        self._tags: dict[DiscoveryTag, FileId] = {}
        self._numbers: dict[SecureLink, int] = {}
        self._count = count(1)
        self._refused: dict[SecureLink, list[m.Join]] = {}
        self._sending = Sending(self.uploads, self.shares)
        self._banned_at: dict[str, set[NodeId]] = {}
        self._probed: set[tuple[NodeId, bytes]] = set()
        self._pinged: dict[SecureLink, tuple[int, float]] = {}

    @property
    def report(self) -> Callable[[str], None]:
        """Takes a line for the operator."""
        return self._sending.report

    @report.setter
    def report(self, report: Callable[[str], None]) -> None:
        self._sending.report = report

    def now(self) -> float:
        return trio.current_time()

    def number_of(self, link: SecureLink) -> int:
        return self._numbers[link]

    # --- shares -------------------------------------------------------------------

    def add(self, share: Share) -> None:
        """Take part in a share; who asked for it before, and could prove it, is told now.

        Raises IllegalStateError if this node takes part in it already.
        """
        if share.file_id in self.shares:
            raise IllegalStateError("a share was added twice")
        self.shares[share.file_id] = share
        self._tags[discovery_tag(share.file_id)] = share.file_id
        for link, refused in self._refused.items():
            if link.leaving:
                continue
            asked = any(link.session.proves(join, share.file_id) for join in refused)
            if asked and share.welcomes(link):
                self.join(link, share)

    def remove(self, file_id: FileId, reason: m.Reason = m.Reason.DONE) -> None:
        """Leave a share on every link."""
        share = self.shares.pop(file_id)
        del self._tags[discovery_tag(file_id)]
        for link in list(self.links.values()):
            if link.session.joined(file_id):
                link.send(link.session.leave(file_id, reason))
            share.gone(link)
        self.uploads.remove_share(file_id)
        for link in self._numbers:
            self._sending.leave(link, file_id)
        if share.source is not None:
            share.source.close()

    def join(self, link: SecureLink, share: Share) -> None:
        """Ask the other end whether it takes part in a share; once per link."""
        if not link.session.joined(share.file_id):
            link.send(link.session.join(share.file_id))
            if link.session.live(share.file_id):
                share.live(link)

    # --- links --------------------------------------------------------------------

    async def run_link(self, link: SecureLink) -> None:
        """Serve a new link until it ends; at once if it is one too many."""
        try:
            refusal = await self._refusal(link)
            if refusal is None:
                await self._run_link(link)
                return
            link.goodbye(refusal)
            with trio.move_on_after(1):
                await link.run(_DEAF)
        finally:
            link.close()

    async def _run_link(self, link: SecureLink) -> None:
        key = (link.node_id, link.instance)
        self.links[key] = link
        self._numbers[link] = next(self._count)
        self._sending.open(link)
        try:
            for share in self.shares.values():
                if share.fetcher is not None and share.fetcher.welcomes(link):
                    self.join(link, share)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._watch, link)
                await link.run(self)
                nursery.cancel_scope.cancel()
        finally:
            if self.links.get(key) is link:
                del self.links[key]
            for share in self.shares.values():
                share.gone(link)
            self._sending.close(link)
            del self._numbers[link]
            self._refused.pop(link, None)
            self._pinged.pop(link, None)
            if isinstance(link.closed_because, InternalError):
                self.report(str(link.closed_because))

    async def _watch(self, link: SecureLink) -> None:
        """See that a link is worth its place, and its slots."""
        used_at = self.now()
        while True:
            await trio.sleep(WATCH_SECONDS)
            self._sending.relieve(link)
            if any(link in share.members for share in self.shares.values()):
                used_at = self.now()
            elif self.now() - used_at > UNUSED_SECONDS:
                link.goodbye(m.Reason.IDLE, "no share in common")

    async def _refusal(self, link: SecureLink) -> m.Reason | None:
        """Why a new link must go; None if it may stay, and takes the place of an older one."""
        me = (self.endpoint.identity.node_id, self.endpoint.instance)
        them = (link.node_id, link.instance)
        if me == them:
            return m.Reason.DUPLICATE
        if self._is_banned(link):
            return m.Reason.FORBIDDEN
        other = self.links.get(them)
        if other is None:
            return None if self._room_for(link) else m.Reason.BUSY
        if link.initiator == other.initiator:
            # They dial again, or we do: the old link may be dead and not know it.
            if them in self._probed or await self._lives(other, them):
                return m.Reason.DUPLICATE
            if self.links.get(them) not in (other, None):
                return m.Reason.DUPLICATE
            if self._is_banned(link):
                return m.Reason.FORBIDDEN
            other.close(LinkClosedError("the peer was silent and has linked anew"))
        elif link.initiator != (me < them):
            return m.Reason.DUPLICATE
        else:
            other.goodbye(m.Reason.DUPLICATE)
        return None

    async def _lives(self, link: SecureLink, key: tuple[NodeId, bytes]) -> bool:
        """Whether anything comes on a link within PROBE_SECONDS of asking for it."""
        asked_at = self.now()
        self._probed.add(key)
        try:
            link.send(m.Ping(0))
            while self.links.get(key) is link and self.now() < asked_at + PROBE_SECONDS:
                await trio.sleep(PROBE_SECONDS / 40)
                if link.heard_at > asked_at:
                    return not link.leaving
            return False
        finally:
            self._probed.discard(key)

    def _room_for(self, link: SecureLink) -> bool:
        """Whether one more link fits; what we dial ourselves always does, up to a node's few."""
        if sum(node_id == link.node_id for node_id, _ in self.links) >= MAX_PER_NODE:
            return False
        if link.initiator:
            return True
        if len(self.links) >= self.max_links:
            return False
        if is_loopback(link.remote[0]):
            return True
        accepted = [other for other in self.links.values() if not other.initiator]
        machine = same_machine(link.remote[0])
        near = sum(same_machine(other.remote[0]) == machine for other in accepted)
        return near < MAX_PER_MACHINE

    def may_dial(self) -> bool:
        """Whether there is a place for one more dialled link, or a link that can give way."""
        taken = sum(not self._can_go(link) for link in self.links.values())
        return taken + self.dialling < self.max_links

    def make_room(self, link: SecureLink) -> bool:
        """Find a place for a link that was dialled; whoever came last may have to go.

        False if there is none, unless it takes the place of a link to the same process.
        """
        staying = [other for other in self.links.values() if not other.leaving]
        if len(staying) < self.max_links or (link.node_id, link.instance) in self.links:
            return True
        spare = next(filter(self._can_go, reversed(staying)), None)
        if spare is not None:
            spare.goodbye(m.Reason.BUSY)
        return spare is not None

    def _can_go(self, link: SecureLink) -> bool:
        """Whether a link is one that was accepted and that no download here has a use for."""
        return not link.initiator and not any(
            share.fetcher is not None and link in share.members for share in self.shares.values()
        )

    def _is_banned(self, link: SecureLink) -> bool:
        nodes = self._banned_at.get(same_machine(link.remote[0]), ())
        return link.node_id in self.banned or len(nodes) >= MAX_BANNED_HERE

    def quarantine(self, link: SecureLink) -> None:
        """A peer sent a bad chunk: end its links and make no more.

        Its address too, if it is the second such node there: identities cost
        nothing. Loopback is spared, because it says nothing of who is behind it.
        """
        self.banned.add(link.node_id)
        if not is_loopback(link.remote[0]):
            self._banned_at.setdefault(same_machine(link.remote[0]), set()).add(link.node_id)
        for other in list(self.links.values()):
            if self._is_banned(other):
                other.goodbye(m.Reason.BAD_DATA)
                self._sending.leave_all(other)
                for share in self.shares.values():
                    share.gone(other)

    def ping(self, link: SecureLink) -> None:
        """Measure a round trip unless a measurement is under way."""
        _, asked_at = self._pinged.get(link, (0, float("-inf")))
        if self.now() - asked_at > PING_SECONDS:
            nonce = self.rng.getrandbits(63) | 1
            self._pinged[link] = (nonce, self.now())
            link.send(m.Ping(nonce))

    # --- the link's handler -------------------------------------------------------

    def message(self, link: SecureLink, message: m.Message) -> None:
        if link.leaving:
            return
        match message:
            case m.Join():
                self._joined(link, message)
            case m.Refuse():
                link.session.refused(message)
            case m.Ping():
                link.pong(message.nonce)
            case m.Pong():
                self._ponged(link, message)
            case m.Leave():
                self._left(link, message)
            case m.Hello() | m.Goodbye() | m.Unknown():
                pass
            case _:
                share = self.shares.get(link.session.share_of(message))
                if share is not None:
                    share.message(link, message)

    def sink(self, link: SecureLink, data: m.Data) -> memoryview | None:
        share = self.shares.get(link.session.share_of(data))
        member = share.members.get(link) if share is not None else None
        link.charge(share.download if share is not None else None)
        if share is not None and share.fetcher is not None and member is not None:
            return share.fetcher.sink(member, data)
        return self.discard(member, data)

    def discard(self, member: Member | None, data: m.Data) -> memoryview:
        """A place for bytes that are not wanted any more; ProtocolError if they never were."""
        memory = self.endpoint.buffers.discard[: data.length]
        if member is None:
            return memory  # we have left the share while they were on their way
        cancelled = member.cancelled.get(data.chunk)
        if cancelled is None or cancelled.left < data.length:
            raise ProtocolError("chunk bytes that nobody asked for")
        cancelled.left -= data.length
        return memory

    async def room(self, link: SecureLink, data: m.Data) -> None:
        share = self.shares.get(link.session.share_of(data))
        if share is not None and share.fetcher is not None:
            await share.fetcher.room()
        else:
            await trio.lowlevel.checkpoint()

    def filled(self, link: SecureLink, data: m.Data) -> None:
        share = self.shares.get(link.session.share_of(data))
        member = share.members.get(link) if share is not None else None
        if share is not None and share.fetcher is not None and member is not None:
            share.fetcher.filled(member, data)

    def departing(self, link: SecureLink) -> None:
        self.news.tell(link)

    def piece(self, link: SecureLink, room: int) -> ChunkPiece | None:
        for budget in self.endpoint.upload:
            room = min(room, budget.record or room)
        return self._sending.piece(link, room)

    def unreadable(self, link: SecureLink, piece: Piece, error: FuryMeshError) -> None:
        self._sending.unreadable(link, piece, error)

    # --- joining and leaving --------------------------------------------------------

    def _joined(self, link: SecureLink, join: m.Join) -> None:
        file_id = self._tags.get(DiscoveryTag(join.tag))
        share = self.shares.get(file_id) if file_id is not None else None
        if share is None or not link.session.proves(join, share.file_id):
            # One answer for unknown, unproven and unwelcome: it tells nothing.
            refused = self._refused.setdefault(link, [])
            if len(refused) >= MAX_REFUSALS:
                raise ProtocolError("too many joins for shares that are not here")
            refused.append(join)
            link.send(m.Refuse(join.share, m.Reason.NOT_FOUND))
            return
        link.session.accept(join, share.file_id)
        if link.session.joined(share.file_id):
            share.live(link)
        elif share.welcomes(link):
            self.join(link, share)

    def _left(self, link: SecureLink, message: m.Leave) -> None:
        file_id = link.session.left(message)
        share = self.shares.get(file_id)
        if share is None:
            return
        share.gone(link)
        self._sending.leave(link, file_id)
        if link.session.joined(file_id):
            link.send(link.session.leave(file_id, m.Reason.DONE))

    def _ponged(self, link: SecureLink, message: m.Pong) -> None:
        pinged = self._pinged.get(link)
        round_trip = None
        if pinged is not None and pinged[0] == message.nonce:
            del self._pinged[link]
            round_trip = self.now() - pinged[1]
        for share in self.shares.values():
            member = share.members.get(link)
            if member is not None and share.fetcher is not None:
                share.fetcher.spoke(member, round_trip)

    # --- what shares ask for ----------------------------------------------------------

    def dispatch(self) -> None:
        """Give free slots to the requests that deserve them."""
        self._sending.dispatch()

    def abandon(self, link: SecureLink, file_id: FileId, chunk: int) -> None:
        """Stop sending a chunk that the peer no longer wants."""
        self._sending.abandon(link, file_id, chunk)

    def introduce(self, share: Share, newcomer: SecureLink) -> None:
        """Tell a newcomer who else is here."""
        exchange.introduce(share, newcomer, self.rng)

    def learnt(self, share: Share, link: SecureLink, peers: Iterable[m.PeerAddress]) -> None:
        """A member told us of others."""
        exchange.learnt(share, link, peers, self.book)
