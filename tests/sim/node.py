"""A simulated node: furymesh's own Scheduler and Uploads, driven as the swarm package drives them.

Nothing is decided here. Messages are those of the wire, without their bytes;
digests and disks always succeed after a moment.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from random import Random

from furymesh.core.geometry import Geometry
from furymesh.core.ids import FileId
from furymesh.core.scheduler import TICK, Action, Request, Scheduler
from furymesh.core.uploads import DEFAULT_SLOTS, Job, Uploads
from tests.sim.network import Clock, Host, Link

SHARE = FileId(bytes(32))
NEWS_SECONDS = 0.1  # the longest that furymesh.swarm.fetching lets news wait for company
PING_SECONDS = 0.5  # likewise
STORE_SECONDS = 0.002  # hash and write of one chunk
PACKET = 64 * 1024  # bytes in one turn of an uplink
# What a link does at the rates simulated here: bytes its socket takes ahead of the
# wire, and bytes of a chunk that it hands over together and the receiver sees as one.
UNSENT = 32 * 1024
PIECE = 128 * 1024


class Misbehaviour(AssertionError):
    """A node sent what furymesh would end the link for."""


@dataclass(frozen=True, slots=True)
class Have:
    mask: int


@dataclass(frozen=True, slots=True)
class Ask:
    chunks: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Drop:
    chunks: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Reject:
    chunk: int
    held: bool
    suggest: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Data:
    chunk: int
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class Ping:
    at: float


@dataclass(frozen=True, slots=True)
class Pong:
    at: float


@dataclass(slots=True)
class _Sending:
    job: Job
    offset: int = 0


@dataclass(slots=True)
class _Neighbour:
    link: Link  # towards it
    sending: deque[_Sending] = field(default_factory=deque)
    arriving: tuple[int, int] | None = None  # chunk, bytes of it so far
    pinged: bool = False
    untold: int = 0  # chunks it was not told of

    def say(self, message: object, size: int = 0) -> None:
        """Send a message, and before it the news."""
        self.tell()
        self.link.send(message, size)

    def tell(self) -> None:
        """Tell of new chunks."""
        if self.untold:
            self.link.send(Have(self.untold))
            self.untold = 0


class Node:
    """One process on one host."""

    def __init__(
        self,
        clock: Clock,
        host: Host,
        geometry: Geometry,
        rng: Random,
        *,
        have: int = 0,
        slots: int = DEFAULT_SLOTS,
        unsent: int = UNSENT,
        piece: int = PIECE,
    ) -> None:
        self.clock = clock
        self.host = host
        self.geometry = geometry
        self.have = have
        self.wasted = 0  # bytes that came for nothing
        self.fetched = 0
        self.rejections = 0
        self.finished_at: float | None = None
        self.scheduler: Scheduler | None = None
        self.uploads = Uploads(rng, slots=slots)
        self.uploads.add_share(SHARE, geometry.all_chunks, have)
        self.neighbours: dict[int, _Neighbour] = {}
        self._unsent = unsent
        self._piece = piece
        self._announcing = False
        if have != geometry.all_chunks:
            self.scheduler = Scheduler(geometry, rng, have=have)
            self.scheduler.verifiable = geometry.all_chunks
            clock.after(rng.random() * TICK, self._tick)
            clock.after(rng.random() * PING_SECONDS, self._ping)

    # --- neighbours ---------------------------------------------------------------

    def meet(self, number: int, link: Link) -> None:
        self.neighbours[number] = _Neighbour(link)
        link.on_room = lambda: self._write(number)
        self.uploads.peer_joined(SHARE, number)
        if self.scheduler is not None:
            self.scheduler.peer_joined(self.clock.now, number)
            link.send(Ping(self.clock.now))
            self.neighbours[number].pinged = True
        if self.have:
            link.send(Have(self.have))

    def part(self, number: int) -> None:
        neighbour = self.neighbours.pop(number)
        neighbour.link.closed = True
        for sending in neighbour.sending:
            self.uploads.finished(sending.job)
        self.uploads.peer_left(SHARE, number)
        if neighbour.arriving is not None:
            self.wasted += neighbour.arriving[1]
        if self.scheduler is not None:
            self._apply(self.scheduler.peer_left(self.clock.now, number))
        self._dispatch()

    def message(self, number: int, message: object) -> None:
        neighbour = self.neighbours.get(number)
        if neighbour is None:
            return
        now, scheduler = self.clock.now, self.scheduler
        match message:
            case Data():
                self._data(number, neighbour, message)
            case Have(mask):
                self.uploads.peer_has(SHARE, number, mask)
                if scheduler is not None:
                    self._apply(scheduler.peer_has(now, number, mask))
            case Ask(chunks):
                self._asked(number, neighbour, chunks)
            case Drop(chunks):
                self._dropped(number, neighbour, chunks)
            case Reject(chunk, held, suggest) if scheduler is not None:
                self.rejections += 1
                actions = scheduler.rejected(now, number, (chunk,), held=held, suggest=suggest)
                self._apply(actions)
            case Ping(at):
                neighbour.say(Pong(at))
            case Pong(at):
                neighbour.pinged = False
                if scheduler is not None:
                    self._apply(scheduler.heard(now, number, now - at))

    # --- serving ------------------------------------------------------------------

    def _asked(self, number: int, neighbour: _Neighbour, chunks: tuple[int, ...]) -> None:
        for chunk in chunks:
            turned = self.uploads.request(self.clock.now, SHARE, number, chunk)
            if turned is not None:
                neighbour.say(Reject(chunk, turned.held, turned.suggest))
        self._dispatch()

    def _dropped(self, number: int, neighbour: _Neighbour, chunks: tuple[int, ...]) -> None:
        for chunk in chunks:
            if not self.uploads.cancel(SHARE, number, chunk):
                for sending in [s for s in neighbour.sending if s.job.chunk == chunk]:
                    self._stop(neighbour, sending)

    def _dispatch(self) -> None:
        while (job := self.uploads.next_job()) is not None:
            assert isinstance(job.peer, int)
            self.neighbours[job.peer].sending.append(_Sending(job))
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
            length = self.geometry.length(chunk)
            size = min(self._piece, length - sending.offset)
            neighbour.tell()
            for _ in range((size - 1) // PACKET):
                link.send(None, PACKET)
            link.send(Data(chunk, sending.offset, size), (size - 1) % PACKET + 1)
            sending.offset += size
            if sending.offset == length:
                self._stop(neighbour, sending)

    # --- fetching -----------------------------------------------------------------

    def _apply(self, actions: list[Action]) -> None:
        for action in actions:
            neighbour = self.neighbours.get(action.peer)
            if neighbour is None:
                continue
            if isinstance(action, Request):
                neighbour.say(Ask(action.chunks))
                continue
            arriving = neighbour.arriving
            if arriving is not None and arriving[0] in action.chunks:
                self.wasted += arriving[1]
                neighbour.arriving = None
            neighbour.say(Drop(action.chunks))

    def _data(self, number: int, neighbour: _Neighbour, data: Data) -> None:
        scheduler = self.scheduler
        if scheduler is None or not scheduler.owes(number, data.chunk):
            self.wasted += data.size
            return
        if neighbour.arriving is None:
            neighbour.arriving = (data.chunk, 0)
        if neighbour.arriving != (data.chunk, data.offset):
            raise Misbehaviour(f"{data} when {neighbour.arriving} was due")
        received = data.offset + data.size
        if received == self.geometry.length(data.chunk):
            neighbour.arriving = None
            self.clock.after(STORE_SECONDS, self._store, data.chunk)
        else:
            neighbour.arriving = (data.chunk, received)
        self._apply(scheduler.data(self.clock.now, number, data.chunk, data.size))

    def _store(self, chunk: int) -> None:
        scheduler = self.scheduler
        assert scheduler is not None
        self._apply(scheduler.stored(self.clock.now, chunk))
        self.fetched += self.geometry.length(chunk)
        self.have |= 1 << chunk
        self.uploads.gained(SHARE, chunk)
        for neighbour in self.neighbours.values():
            neighbour.untold |= 1 << chunk
        if not self._announcing:
            self._announcing = True
            self.clock.after(NEWS_SECONDS, self._announce)
        if scheduler.ledger.done:
            self.finished_at = self.clock.now

    def _announce(self) -> None:
        self._announcing = False
        for neighbour in self.neighbours.values():
            neighbour.tell()
        if self.have == self.geometry.all_chunks:
            self.scheduler = None

    def _tick(self) -> None:
        if self.scheduler is not None:
            if not self.host.frozen:
                self._apply(self.scheduler.tick(self.clock.now))
            self.clock.after(TICK, self._tick)

    def _ping(self) -> None:
        if self.scheduler is not None:
            for number, neighbour in self.neighbours.items():
                if self.scheduler.owed(number) and not neighbour.pinged:
                    neighbour.pinged = True
                    neighbour.say(Ping(self.clock.now))
            self.clock.after(PING_SECONDS, self._ping)
