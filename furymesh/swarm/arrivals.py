"""Chunks on their way in: from the first byte in a slab to a verified chunk on disk.

Always true:

* a sender sends one chunk at a time, piece after piece in order;
* a slab is lent to one arrival, and goes back to the pool only when no link
  can still write into it: a link in the middle of a piece for it is diverted
  first, and a link in the middle of another piece is left alone;
* a chunk is reported stored only after pwrite and its journal record, in that
  order, and only if its digest was right;
* of the slabs, STORE_THREADS are left for storing: no more than `senders`
  peers may owe chunks at once, so a full house of them can all be read.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, auto
from queue import SimpleQueue

import trio

from furymesh.core.errors import FuryMeshError, InternalError, ProtocolError
from furymesh.core.geometry import Geometry
from furymesh.core.manifest import Manifest
from furymesh.net.buffers import SlabPool, Slabs
from furymesh.storage.part import PartStore
from furymesh.storage.resume import ResumeData
from furymesh.swarm.member import Sender
from furymesh.wire import messages as m

STORE_THREADS = 2  # hash and pwrite release the GIL; more would only fight over memory


@dataclass(slots=True)
class Arrival:
    """One chunk arriving from one sender."""

    sender: Sender
    chunk: int
    slab: memoryview
    received: int = 0
    filling: bool = False  # its link is writing a piece into the slab


class Verdict(Enum):
    GOOD = auto()
    BAD = auto()
    FAILED = auto()  # not the peer's fault


@dataclass(frozen=True, slots=True)
class Outcome:
    arrival: Arrival
    verdict: Verdict
    error: FuryMeshError | None = None


@dataclass(slots=True, eq=False)
class _Worker:
    """What one storing thread has to do."""

    queue: SimpleQueue[Arrival | None] = field(default_factory=SimpleQueue)
    load: int = 0  # chunks handed to it whose outcome is not known yet


class Arrivals:
    """The slabs of one download and the threads that verify and store them."""

    def __init__(
        self,
        manifest: Manifest,
        part: PartStore,
        resume: ResumeData | None,
        slabs: Slabs,
        settled: Callable[[list[Outcome]], None],
    ) -> None:
        self._manifest = manifest
        self._geometry: Geometry = manifest.header.geometry
        self._part = part
        self._resume = resume
        self._settled = settled
        self._broken: InternalError | None = None
        self._breakdown = trio.Event()
        size = min(self._geometry.chunk_size, max(self._geometry.size, 1))
        self._pool = SlabPool(slabs, size)
        self._arriving: dict[Sender, Arrival] = {}
        self._workers = [_Worker() for _ in range(STORE_THREADS)]
        self._outcomes: deque[tuple[_Worker, Outcome]] = deque()

    @property
    def senders(self) -> int:
        """How many peers can be read from at once."""
        return max(self._pool.limit - STORE_THREADS, 1)

    @property
    def storing(self) -> bool:
        """Whether a complete chunk is not stored yet, or nobody was told that it is."""
        return any(worker.load for worker in self._workers)

    def rest(self) -> None:
        """Nothing is expected for a while: keep no memory for it."""
        self._pool.trim()

    # --- bytes in -----------------------------------------------------------------

    def sink(self, sender: Sender, data: m.Data) -> memoryview | None:
        """The place for a piece that was asked for; None if no slab is free."""
        arrival = self._arriving.get(sender)
        if arrival is None:
            if data.offset:
                raise ProtocolError("a chunk does not begin at its beginning")
            slab = self._pool.take()
            if slab is None:
                return None
            arrival = self._arriving[sender] = Arrival(sender, data.chunk, slab)
        end = data.offset + data.length
        if (
            data.chunk != arrival.chunk
            or data.offset != arrival.received
            or end > self._geometry.length(data.chunk)
        ):
            raise ProtocolError("a piece does not continue its chunk")
        arrival.filling = True
        return arrival.slab[data.offset : end]

    async def room(self) -> None:
        """Wait until a slab may be free."""
        await self._pool.wait()

    def filled(self, sender: Sender, data: m.Data) -> bool:
        """A piece is in its sink; False if nobody wants it any more."""
        arrival = self._arriving.get(sender)
        if arrival is None or not arrival.filling or arrival.chunk != data.chunk:
            return False
        arrival.filling = False
        arrival.received += data.length
        return True

    def complete(self, sender: Sender) -> None:
        """All bytes of the sender's chunk are in: verify and store it."""
        # The first worker unless it is busier: who is idle stays asleep. One queue for
        # all would wake each of them for every chunk.
        worker = min(self._workers, key=lambda worker: worker.load)
        worker.load += 1
        worker.queue.put(self._arriving.pop(sender))

    def cancel(self, sender: Sender, chunk: int) -> int:
        """Give up the arrival of a chunk; returns the bytes that had come."""
        return self.left(sender) if self.arriving(sender) == chunk else 0

    def arriving(self, sender: Sender) -> int | None:
        """The chunk that a sender is in the middle of."""
        arrival = self._arriving.get(sender)
        return arrival.chunk if arrival is not None else None

    def left(self, sender: Sender) -> int:
        """Nothing is wanted of the sender; returns the bytes that came for nothing.

        Its link may live on, for other shares or until its last word is out.
        """
        arrival = self._arriving.pop(sender, None)
        if arrival is None:
            return 0
        if arrival.filling:
            sender.divert()
        self._pool.give(arrival.slab)
        return arrival.received

    # --- verify and store -----------------------------------------------------------

    async def run(self) -> None:
        """Verify and store what completes, until cancelled; raises InternalError.

        Threads of their own rather than one trio.to_thread call a chunk: at a
        thousand chunks a second the hand-over would cost more than the hash.
        """
        token = trio.lowlevel.current_trio_token()
        threads = [
            threading.Thread(target=self._work, args=(worker, token), name="store", daemon=True)
            for worker in self._workers
        ]
        for thread in threads:
            thread.start()
        try:
            await self._breakdown.wait()
            assert self._broken is not None
            raise self._broken
        finally:
            for worker in self._workers:
                worker.queue.put(None)
            with trio.CancelScope(shield=True):
                for thread in threads:
                    await trio.to_thread.run_sync(thread.join)

    def close(self) -> None:
        """Let go of the memory, once no link brings bytes any more: it would be lent again."""
        self._pool.close()

    def _work(self, worker: _Worker, token: trio.lowlevel.TrioToken) -> None:
        """One storing thread: takes arrivals one by one, hands outcomes back together."""
        while (arrival := worker.queue.get()) is not None:
            self._outcomes.append((worker, self._store(arrival)))
            try:
                token.run_sync_soon(self._collect, idempotent=True)
            except trio.RunFinishedError:
                return

    def _collect(self) -> None:
        outcomes = []
        while self._outcomes:
            worker, outcome = self._outcomes.popleft()
            worker.load -= 1
            self._pool.give(outcome.arrival.slab)
            outcomes.append(outcome)
        if not outcomes:
            return
        # Runs between the tasks of the event loop: what is raised here would end
        # the whole process, so the task that runs this download raises it instead.
        try:
            self._settled(outcomes)
        except Exception as error:
            self._broken = InternalError(f"internal error: {error!r}")
            self._breakdown.set()

    def _store(self, arrival: Arrival) -> Outcome:
        view = arrival.slab[: self._geometry.length(arrival.chunk)]
        try:
            if not self._manifest.matches(arrival.chunk, view):
                return Outcome(arrival, Verdict.BAD)
            self._part.write_chunk(arrival.chunk, view)
            if self._resume is not None:
                self._resume.add(arrival.chunk)
        except FuryMeshError as error:
            return Outcome(arrival, Verdict.FAILED, error)
        except Exception as error:  # a bug, but a silent thread would be a worse one
            return Outcome(arrival, Verdict.FAILED, InternalError(f"internal error: {error!r}"))
        return Outcome(arrival, Verdict.GOOD)
