"""All links and shares of one node: who is connected, and who gets what next.

Always true:

* at most one link per remote process: of two, the one dialled by the smaller
  (node id, instance) stays, so both ends keep the same one;
* a share is live on a link exactly while the link is in ``share.members``;
* an upload slot belongs to exactly one job, and a job to one link's queue.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import count
from random import Random

import trio

from furymesh.core.errors import FuryMeshError, InternalError, ProtocolError
from furymesh.core.ids import DiscoveryTag, FileId, NodeId, discovery_tag
from furymesh.core.link import Address
from furymesh.core.uploads import Job, Uploads
from furymesh.discovery.book import PeerBook, Source
from furymesh.net.connect import Endpoint, packed_ip, unpacked_ip
from furymesh.net.secure_link import Piece, SecureLink
from furymesh.swarm.share import ChunkSource, Member, Share
from furymesh.wire import codec
from furymesh.wire import messages as m

MAX_LINKS = 200  # more would only share the same uplink
MAX_REFUSALS = 256  # joins for unknown shares on one link; then it is guessing, not asking
INTRODUCTIONS = 30  # peers told to a newcomer: enough for the degree it needs
DISK_THREADS = 4  # cold reads at once


@dataclass(slots=True)
class _Sending:
    job: Job
    offset: int = 0


@dataclass(frozen=True, slots=True)
class ChunkPiece:
    """A piece of a chunk, read when the writer has room for it."""

    message: m.Data
    source: ChunkSource
    share: Share
    limiter: trio.CapacityLimiter

    def read_now(self, view: memoryview) -> bool:
        return self.source.resident_read_into(self.message.chunk, self.message.offset, view)

    async def read(self, view: memoryview) -> None:
        await trio.to_thread.run_sync(
            self.source.read_into,
            self.message.chunk,
            self.message.offset,
            view,
            limiter=self.limiter,
        )


class Swarm:
    """The links of a node and the shares it takes part in."""

    def __init__(self, endpoint: Endpoint, rng: Random, *, max_links: int = MAX_LINKS) -> None:
        self.endpoint = endpoint
        self.rng = rng
        self.uploads = Uploads(rng)
        self.shares: dict[FileId, Share] = {}
        self.links: dict[tuple[NodeId, bytes], SecureLink] = {}
        self.book = PeerBook(rng)
        self.banned: set[NodeId] = set()  # sent a chunk with a wrong digest
        self.max_links = max_links
        self._tags: dict[DiscoveryTag, FileId] = {}
        self._numbers: dict[SecureLink, int] = {}
        self._count = count(1)
        self._refused: dict[SecureLink, list[m.Join]] = {}
        self._sending: dict[SecureLink, deque[_Sending]] = {}
        self._pinged: dict[SecureLink, tuple[int, float]] = {}
        self._disk = trio.CapacityLimiter(DISK_THREADS)
        self._discard = memoryview(bytearray(codec.MAX_PIECE))
        self.report: Callable[[str], None] = lambda problem: None  # a line for the operator

    def now(self) -> float:
        return trio.current_time()

    def number_of(self, link: SecureLink) -> int:
        return self._numbers[link]

    # --- shares -------------------------------------------------------------------

    def add(self, share: Share) -> None:
        """Take part in a share; who asked for it before, and could prove it, is told now."""
        self.shares[share.file_id] = share
        self._tags[discovery_tag(share.file_id)] = share.file_id
        for link, refused in self._refused.items():
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
        for link, sendings in self._sending.items():
            for sending in [s for s in sendings if s.job.file_id == file_id]:
                self._stop_sending(link, sending)
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
        refusal = self._refusal(link)
        if refusal is not None:
            link.goodbye(refusal)
            with trio.move_on_after(1):
                await link.run(self)
            return
        key = (link.node_id, link.instance)
        self.links[key] = link
        self._numbers[link] = next(self._count)
        self._sending[link] = deque()
        try:
            for share in self.shares.values():
                if share.fetcher is not None and share.fetcher.welcomes(link):
                    self.join(link, share)
            await link.run(self)
        finally:
            if self.links.get(key) is link:
                del self.links[key]
            for share in self.shares.values():
                share.gone(link)
            for sending in list(self._sending.pop(link)):
                self.uploads.finished(sending.job)
            del self._numbers[link]
            self._refused.pop(link, None)
            self._pinged.pop(link, None)
            if isinstance(link.closed_because, InternalError):
                self.report(str(link.closed_because))
            self.dispatch()

    def _refusal(self, link: SecureLink) -> m.Reason | None:
        me = (self.endpoint.identity.node_id, self.endpoint.instance)
        them = (link.node_id, link.instance)
        if me == them:
            return m.Reason.DUPLICATE
        if link.node_id in self.banned:
            return m.Reason.FORBIDDEN
        other = self.links.get(them)
        if other is not None:
            mine_first = me < them
            if link.initiator == other.initiator or link.initiator != mine_first:
                return m.Reason.DUPLICATE
            other.goodbye(m.Reason.DUPLICATE)
        elif len(self.links) >= self.max_links:
            return m.Reason.BUSY
        return None

    def link_to(self, node_id: NodeId) -> SecureLink | None:
        """A link to any process of a node."""
        return next((link for link in self.links.values() if link.node_id == node_id), None)

    def quarantine(self, link: SecureLink) -> None:
        """A peer sent a bad chunk: end its links and make no more."""
        self.banned.add(link.node_id)
        for other in list(self.links.values()):
            if other.node_id == link.node_id:
                other.goodbye(m.Reason.BAD_DATA)

    def ping(self, link: SecureLink) -> None:
        """Measure a round trip unless a measurement is under way."""
        if link not in self._pinged:
            nonce = self.rng.getrandbits(63) | 1
            self._pinged[link] = (nonce, self.now())
            link.send(m.Ping(nonce))

    # --- the link's handler -------------------------------------------------------

    def message(self, link: SecureLink, message: m.Message) -> None:
        match message:
            case m.Join():
                self._joined(link, message)
            case m.Refuse():
                link.session.refused(message)
            case m.Ping():
                link.send(m.Pong(message.nonce))
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
        if share is not None and share.fetcher is not None and member is not None:
            return share.fetcher.sink(member, data)
        return self.discard(member, data)

    def discard(self, member: Member | None, data: m.Data) -> memoryview:
        """A place for bytes that are not wanted any more; ProtocolError if they never were."""
        if member is None:
            # We have left the share while they were on their way.
            return self._discard[: data.length]
        left = member.cancelled.get(data.chunk, 0) - data.length
        if left < 0:
            raise ProtocolError("chunk bytes that nobody asked for")
        member.cancelled[data.chunk] = left
        return self._discard[: data.length]

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

    def piece(self, link: SecureLink, room: int) -> ChunkPiece | None:
        sendings = self._sending.get(link)
        while sendings:
            sending = sendings[0]
            job = sending.job
            share = self.shares[job.file_id]
            length = share.geometry.length(job.chunk)
            size = min(length - sending.offset, room, codec.MAX_PIECE)
            if share.source is None or not share.have >> job.chunk & 1:
                self._stop_sending(link, sending)
                number = link.session.number(job.file_id)
                link.send(m.Reject(number, (job.chunk,), m.Reason.NOT_HELD))
                continue
            number = link.session.number(job.file_id)
            message = m.Data(number, job.chunk, sending.offset, size)
            sending.offset += size
            if sending.offset == length:
                self._stop_sending(link, sending)
            return ChunkPiece(message, share.source, share, self._disk)
        return None

    def unreadable(self, link: SecureLink, piece: Piece, error: FuryMeshError) -> None:
        """The chunk cannot be read (any more): withdraw it, blame nobody."""
        assert isinstance(piece, ChunkPiece)
        share = piece.share
        chunk = piece.message.chunk
        self.report(f"{share.name}: {error}")
        for sending in list(self._sending.get(link, ())):
            if sending.job.chunk == chunk and sending.job.file_id == share.file_id:
                self._stop_sending(link, sending)
        if link in share.members:
            number = link.session.number(share.file_id)
            link.send(m.Reject(number, (chunk,), m.Reason.NOT_HELD))
        share.unreadable(chunk, error)

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
        for sending in [s for s in self._sending.get(link, ()) if s.job.file_id == file_id]:
            self._stop_sending(link, sending)
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

    # --- uploads ------------------------------------------------------------------

    def dispatch(self) -> None:
        """Give free slots to the requests that deserve them."""
        while (job := self.uploads.next_job()) is not None:
            link = job.peer
            assert isinstance(link, SecureLink)
            self._sending[link].append(_Sending(job))
            link.poke()

    def abandon(self, link: SecureLink, file_id: FileId, chunk: int) -> None:
        """Stop sending a chunk that the peer no longer wants."""
        for sending in list(self._sending.get(link, ())):
            if sending.job.file_id == file_id and sending.job.chunk == chunk:
                self._stop_sending(link, sending)

    def _stop_sending(self, link: SecureLink, sending: _Sending) -> None:
        self._sending[link].remove(sending)
        self.uploads.finished(sending.job)
        self.dispatch()

    # --- peer exchange --------------------------------------------------------------

    def introduce(self, share: Share, newcomer: SecureLink) -> None:
        """Tell a newcomer who else is here."""
        if share.private:
            return
        addresses = [
            address
            for link in share.members
            if link is not newcomer and (address := _public_address(link)) is not None
        ]
        if addresses:
            chosen = self.rng.sample(addresses, min(len(addresses), INTRODUCTIONS))
            number = newcomer.session.number(share.file_id)
            newcomer.send(m.Peers(number, tuple(chosen)))

    def learnt(self, share: Share, link: SecureLink, peers: Iterable[m.PeerAddress]) -> None:
        """A member told us of others; a hint, never a fact."""
        if share.fetcher is None or share.private:
            return
        for peer in peers:
            address = Address(
                unpacked_ip(peer.ip), peer.port, NodeId(peer.node_id) if peer.node_id else None
            )
            self.book.add(share.file_id, address, Source.EXCHANGE)


def _public_address(link: SecureLink) -> m.PeerAddress | None:
    """Where others can reach the node at the other end, as far as we can tell."""
    port = link.remote[1] if link.initiator else (link.hello.listen_port if link.hello else 0)
    ip = packed_ip(link.remote[0])
    return m.PeerAddress(ip, port, link.node_id) if port and ip else None
