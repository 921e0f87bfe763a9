"""A simulated node: furymesh's own Scheduler and Uploads, driven as the swarm package drives them.

Nothing is decided here. Messages are those of the wire, without their bytes;
digests and disks always succeed after a moment. As in the product a node has
one Uploads for all its shares, and one Scheduler for each that it downloads.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from furymesh.core.geometry import Geometry
from furymesh.core.ids import FileId
from furymesh.core.scheduler import TICK, Action, Request, Scheduler
from furymesh.core.uploads import DEFAULT_SLOTS, Job, Uploads
from furymesh.swarm.announcer import MAX_NEWS_SECONDS, MIN_NEWS_SECONDS, NEWS_CHUNKS
from furymesh.swarm.fetching import PING_SECONDS
from tests.sim.network import Clock, Host, Link

STORE_SECONDS = 0.002  # hash and write of one chunk
PACKET = 64 * 1024  # bytes in one turn of an uplink
# What a link does at the rates simulated here: bytes its socket takes ahead of the
# wire, and bytes of a chunk that it hands over together and the receiver sees as one.
UNSENT = 32 * 1024
PIECE = 128 * 1024


class Misbehaviour(AssertionError):
    """A node sent what furymesh would end the link for."""


# Messages; `share` is its number in the simulation. Nobody changes one, but a
# frozen dataclass takes three times as long to make, and millions are made.


@dataclass(slots=True)
class Have:
    share: int
    mask: int


@dataclass(slots=True)
class Ask:
    share: int
    chunks: tuple[int, ...]


@dataclass(slots=True)
class Drop:
    share: int
    chunks: tuple[int, ...]


@dataclass(slots=True)
class Reject:
    share: int
    chunk: int
    held: bool
    suggest: tuple[int, ...]


@dataclass(slots=True)
class Data:
    share: int
    chunk: int
    offset: int
    size: int


@dataclass(slots=True)
class Ping:
    at: float


@dataclass(slots=True)
class Pong:
    at: float


Message = Have | Ask | Drop | Reject | Data | Ping | Pong


@dataclass(slots=True)
class _Sending:
    job: Job
    share: int
    offset: int = 0


@dataclass(slots=True)
class _Arriving:
    share: int
    chunk: int
    received: int = 0  # bytes


@dataclass(slots=True)
class _Neighbour:
    link: Link  # towards it
    sending: deque[_Sending] = field(default_factory=deque)
    arriving: _Arriving | None = None
    pinged: bool = False
    untold: dict[int, int] = field(default_factory=dict)  # chunks it was not told of, by share

    def say(self, message: Message, size: int = 0) -> None:
        """Send a message, and before it the news."""
        if self.untold:
            self.tell()
        self.link.send(message, size)

    def tell(self) -> None:
        """Tell of new chunks."""
        for share, mask in self.untold.items():
            self.link.send(Have(share, mask))
        self.untold.clear()


@dataclass(slots=True)
class Share:
    """What one node has of one share, and how it gets the rest."""

    number: int
    geometry: Geometry
    everything: int
    have: int
    scheduler: Scheduler | None
    members: dict[int, _Neighbour] = field(default_factory=dict)
    fetched: int = 0  # bytes
    wasted: int = 0  # bytes that came for nothing
    rejections: int = 0
    finished_at: float | None = None
    announcing: bool = False
    # When news was told last, how many chunks there were then, and how long news waits.
    told_at: float = 0.0
    told: int = 0
    news_seconds: float = MIN_NEWS_SECONDS


class Node:
    """One process on one host; `on_finish` is called for each download that ends."""

    def __init__(
        self,
        clock: Clock,
        host: Host,
        rng: Random,
        *,
        slots: int = DEFAULT_SLOTS,
        unsent: int = UNSENT,
        piece: int = PIECE,
        on_finish: Callable[[], None] = lambda: None,
    ) -> None:
        self.clock = clock
        self.host = host
        self.uploads = Uploads(rng, slots=slots)
        self.shares: dict[int, Share] = {}
        self.neighbours: dict[int, _Neighbour] = {}
        self._rng = rng
        self._unsent = unsent
        self._piece = piece
        self._on_finish = on_finish

    # --- shares -------------------------------------------------------------------

    def open(self, number: int, geometry: Geometry, have: int) -> Share:
        """Serve a share, and fetch what is missing of it."""
        everything = geometry.all_chunks
        share = self.shares[number] = Share(number, geometry, everything, have, None)
        self.uploads.add_share(file_id(number), everything, have)
        if have != everything:
            share.scheduler = Scheduler(geometry, self._rng, have=have)
            share.scheduler.verifiable = everything
            share.told_at, share.told = self.clock.now, have.bit_count()
            self.clock.after(self._rng.random() * TICK, self._tick, share)
            self.clock.after(self._rng.random() * PING_SECONDS, self._ping, share)
        return share

    # --- neighbours ---------------------------------------------------------------

    def meet(self, number: int, link: Link) -> None:
        """There is a link to another node."""
        self.neighbours[number] = _Neighbour(link)
        link.on_room = lambda: self._write(number)

    def join(self, share_number: int, number: int) -> None:
        """A neighbour and this node both have something of a share, or want it."""
        share, neighbour = self.shares[share_number], self.neighbours[number]
        share.members[number] = neighbour
        self.uploads.peer_joined(file_id(share_number), number)
        if share.scheduler is not None:
            share.scheduler.peer_joined(self.clock.now, number)
            if not neighbour.pinged:
                neighbour.link.send(Ping(self.clock.now))
                neighbour.pinged = True
        if share.have:
            neighbour.link.send(Have(share_number, share.have))

    def part(self, number: int) -> None:
        """The link to a neighbour has ended."""
        neighbour = self.neighbours.pop(number)
        neighbour.link.closed = True
        for sending in neighbour.sending:
            self.uploads.finished(sending.job)
        self._discard(neighbour)
        for share in self.shares.values():
            if share.members.pop(number, None) is None:
                continue
            self.uploads.peer_left(file_id(share.number), number)
            if share.scheduler is not None:
                self._apply(share, share.scheduler.peer_left(self.clock.now, number))
        self._dispatch()

    def message(self, number: int, message: Message) -> None:
        """A message of a neighbour has come."""
        neighbour = self.neighbours.get(number)
        if neighbour is None:
            return
        match message:  # the frequent ones first
            case Have():
                self._told(number, message)
            case Data():
                self._data(number, neighbour, message)
            case Ask():
                self._asked(number, neighbour, message)
            case Drop():
                self._dropped(number, neighbour, message)
            case Reject():
                self._rejected(number, message)
            case Ping(at):
                neighbour.say(Pong(at))
            case Pong(at):
                neighbour.pinged = False
                now = self.clock.now
                for share in self.shares.values():
                    if share.scheduler is not None and number in share.members:
                        self._apply(share, share.scheduler.heard(now, number, now - at))

    # --- serving ------------------------------------------------------------------

    def _asked(self, number: int, neighbour: _Neighbour, ask: Ask) -> None:
        share_id = file_id(ask.share)
        for chunk in ask.chunks:
            turned = self.uploads.request(self.clock.now, share_id, number, chunk)
            if turned is not None:
                neighbour.say(Reject(ask.share, chunk, turned.held, turned.suggest))
        self._dispatch()

    def _dropped(self, number: int, neighbour: _Neighbour, drop: Drop) -> None:
        share_id = file_id(drop.share)
        for chunk in drop.chunks:
            if not self.uploads.cancel(share_id, number, chunk):
                ending = (drop.share, chunk)
                for sending in [s for s in neighbour.sending if (s.share, s.job.chunk) == ending]:
                    self._stop(neighbour, sending)

    def _dispatch(self) -> None:
        while (job := self.uploads.next_job()) is not None:
            assert isinstance(job.peer, int)
            number = int.from_bytes(job.file_id, "big")
            self.neighbours[job.peer].sending.append(_Sending(job, number))
            self._write(job.peer)

    def _stop(self, neighbour: _Neighbour, sending: _Sending) -> None:
        neighbour.sending.remove(sending)
        self.uploads.finished(sending.job)
        self._dispatch()

    def _write(self, number: int) -> None:
        """Hand pieces to the network while it takes them."""
        neighbour = self.neighbours.get(number)
        if neighbour is None:
            return
        link = neighbour.link
        while neighbour.sending and link.unsent < self._unsent and not self.host.frozen:
            sending = neighbour.sending[0]
            chunk = sending.job.chunk
            length = self.shares[sending.share].geometry.length(chunk)
            size = min(self._piece, length - sending.offset)
            neighbour.tell()
            for _ in range((size - 1) // PACKET):
                link.send(None, PACKET)
            data = Data(sending.share, chunk, sending.offset, size)
            link.send(data, (size - 1) % PACKET + 1)
            sending.offset += size
            if sending.offset == length:
                self._stop(neighbour, sending)

    # --- fetching -----------------------------------------------------------------

    def _told(self, number: int, have: Have) -> None:
        self.uploads.peer_has(file_id(have.share), number, have.mask)
        share = self.shares[have.share]
        if share.scheduler is not None:
            self._apply(share, share.scheduler.peer_has(self.clock.now, number, have.mask))

    def _rejected(self, number: int, reject: Reject) -> None:
        share = self.shares[reject.share]
        if share.scheduler is None:
            return
        share.rejections += 1
        self._apply(
            share,
            share.scheduler.rejected(
                self.clock.now,
                number,
                (reject.chunk,),
                held=reject.held,
                suggest=reject.suggest,
            ),
        )

    def _apply(self, share: Share, actions: list[Action]) -> None:
        for action in actions:
            neighbour = self.neighbours.get(action.peer)
            if neighbour is None:
                continue
            if isinstance(action, Request):
                neighbour.say(Ask(share.number, action.chunks))
                continue
            arriving = neighbour.arriving
            if (
                arriving is not None
                and arriving.share == share.number
                and arriving.chunk in action.chunks
            ):
                self._discard(neighbour)
            neighbour.say(Drop(share.number, action.chunks))

    def _discard(self, neighbour: _Neighbour) -> None:
        """What has come of an unfinished chunk is of no use."""
        if neighbour.arriving is not None:
            self.shares[neighbour.arriving.share].wasted += neighbour.arriving.received
            neighbour.arriving = None

    def _data(self, number: int, neighbour: _Neighbour, data: Data) -> None:
        share = self.shares[data.share]
        scheduler = share.scheduler
        if scheduler is None or not scheduler.owes(number, data.chunk):
            share.wasted += data.size
            return
        arriving = neighbour.arriving
        if arriving is None:
            arriving = neighbour.arriving = _Arriving(data.share, data.chunk)
        if (arriving.share, arriving.chunk, arriving.received) != (
            data.share,
            data.chunk,
            data.offset,
        ):
            raise Misbehaviour(f"{data} when {arriving} was due")
        arriving.received += data.size
        if arriving.received == share.geometry.length(data.chunk):
            neighbour.arriving = None
            self.clock.after(STORE_SECONDS, self._store, share, data.chunk)
        self._apply(share, scheduler.data(self.clock.now, number, data.chunk, data.size))

    def _store(self, share: Share, chunk: int) -> None:
        scheduler = share.scheduler
        assert scheduler is not None
        self._apply(share, scheduler.stored(self.clock.now, chunk))
        share.fetched += share.geometry.length(chunk)
        bit = 1 << chunk
        share.have |= bit
        number = share.number
        self.uploads.gained(file_id(number), chunk)
        for neighbour in share.members.values():
            untold = neighbour.untold
            untold[number] = untold.get(number, 0) | bit
        if not share.announcing:
            share.announcing = True
            self.clock.after(share.news_seconds, self._announce, share)
        if share.have == share.everything:
            share.finished_at = self.clock.now
            self._on_finish()

    def _announce(self, share: Share) -> None:
        share.announcing = False
        for neighbour in share.members.values():
            if neighbour.untold:
                neighbour.tell()
        now, done = self.clock.now, share.have.bit_count()
        each = (now - share.told_at) / max(done - share.told, 1)
        share.news_seconds = min(max(NEWS_CHUNKS * each, MIN_NEWS_SECONDS), MAX_NEWS_SECONDS)
        share.told_at, share.told = now, done
        if share.have == share.everything:
            share.scheduler = None

    def _tick(self, share: Share) -> None:
        if share.scheduler is not None:
            if not self.host.frozen:
                self._apply(share, share.scheduler.tick(self.clock.now))
            self.clock.after(TICK, self._tick, share)

    def _ping(self, share: Share) -> None:
        if share.scheduler is not None:
            for number, neighbour in share.members.items():
                if not neighbour.pinged and share.scheduler.owed(number):
                    neighbour.pinged = True
                    neighbour.say(Ping(self.clock.now))
            self.clock.after(PING_SECONDS, self._ping, share)


def file_id(share: int) -> FileId:
    """The id under which Uploads knows a share."""
    return _IDS[share]


MAX_SHARES = 64  # in one simulation
_IDS = [FileId(number.to_bytes(32, "big")) for number in range(MAX_SHARES)]
