"""The large buffers of a node, shared by all its links.

Always true: memory for receiving and sending does not grow with the number of
links. One receive buffer serves every link, because a link consumes what it
received before it waits again; send buffers are lent to links that have
something to send; slabs hold chunks that are arriving or being verified, and
all downloads together have a fixed number of bytes of them.
"""

from __future__ import annotations

from mmap import mmap

import trio

from furymesh.wire.codec import MAX_PIECE
from furymesh.wire.records import MAX_RECORD

RECEIVE_SIZE = 2 * 1024 * 1024 + MAX_RECORD  # what may have come meanwhile, in one call
SEND_SIZE = 1024 * 1024  # chunk bytes sealed for one system call
# What sealing adds to a full send buffer: a tag and a header per record, and
# room for one batch of control messages.
SEND_SLACK = 256 * 1024
IDLE_BUFFERS = 4  # kept for reuse; beyond this they go back to the system
# Bytes of chunks that are arriving or being verified, over all downloads and links
# of a node; together with the rest of it this stays near 120 MB.
SLAB_MEMORY = 48 * 1024 * 1024
# One download uses this much. More would not be faster: slabs that stay in the
# processor's cache are.
POOL_MEMORY = 16 * 1024 * 1024
# Large chunks get more, so that the ten peers a download dials can all send and
# two chunks be stored meanwhile.
WANTED_SLABS = 12
POOL_CEILING = 48 * 1024 * 1024


class Slabs:
    """The memory for chunks on their way in, shared by the downloads of a node.

    Always true: no more than `total` bytes are held, and a download that holds
    more than its equal part gives what comes back to the others.
    """

    def __init__(self, total: int = SLAB_MEMORY) -> None:
        self._total = total
        self._held = 0
        self._pools: set[SlabPool] = set()  # those that hold something, or want to
        self._given = trio.Event()

    def part(self, pool: SlabPool) -> int:
        """How many bytes of slabs a pool may hold."""
        return self._total // len(self._pools | {pool})

    def reserve(self, pool: SlabPool) -> bool:
        """Count one more slab of a pool, if there is memory for it."""
        size = pool.chunk_size
        self._pools.add(pool)
        if self._held + size > self._total:
            for other in list(self._pools):
                if other is not pool:
                    other.trim()
        if self._held + size > self._total:
            return False
        self._held += size
        return True

    def release(self, pool: SlabPool, count: int, *, last: bool) -> None:
        """`count` slabs of a pool are gone; `last`: it holds no more."""
        self._held -= count * pool.chunk_size
        if last:
            self._pools.discard(pool)

    def given(self) -> None:
        """A slab came back: wake everybody, for who is woken may have no use for it."""
        self._given.set()
        self._given = trio.Event()

    async def wait(self) -> None:
        """Return when a slab came back."""
        await self._given.wait()


class SlabPool:
    """Chunk-sized buffers for one download.

    `take` returns None when there is none now; `wait` returns when that may have
    changed. Slabs are reused, never cleared: every byte is overwritten before it
    is verified.
    """

    def __init__(self, slabs: Slabs, chunk_size: int) -> None:
        self.chunk_size = chunk_size
        self._slabs = slabs
        self._free: list[memoryview] = []
        self._lent = 0
        self._closed = False

    @property
    def limit(self) -> int:
        """How many slabs it may lend; fewer while other downloads need theirs."""
        wanted = max(POOL_MEMORY, min(WANTED_SLABS * self.chunk_size, POOL_CEILING))
        return max(min(wanted, self._slabs.part(self)) // self.chunk_size, 1)

    def take(self) -> memoryview | None:
        if self._lent >= self.limit:
            return None
        if self._free:
            slab = self._free.pop()
        elif self._slabs.reserve(self):
            slab = _pages(self.chunk_size)
        else:
            return None
        self._lent += 1
        return slab

    def give(self, slab: memoryview) -> None:
        if self._closed:
            return
        self._lent -= 1
        self._free.append(slab)
        if self._lent + len(self._free) > self.limit:
            self._drop(1)
        self._slabs.given()

    async def wait(self) -> None:
        await self._slabs.wait()

    def trim(self) -> None:
        """Give idle slabs back to the system, until they are wanted again."""
        self._drop(len(self._free))

    def close(self) -> None:
        """Nothing arrives any more: let go of all memory, also of what was lent."""
        self._drop(len(self._free))
        self._slabs.release(self, self._lent, last=True)
        self._lent = 0
        self._closed = True
        self._slabs.given()

    def _drop(self, count: int) -> None:
        del self._free[len(self._free) - count :]
        self._slabs.release(self, count, last=not self._free and not self._lent)


def _pages(size: int) -> memoryview:
    """Memory that the system provides as it is touched: most sends are small."""
    return memoryview(mmap(-1, size))


class Buffers:
    """What one node's links share."""

    def __init__(self) -> None:
        self.receive = _pages(RECEIVE_SIZE)
        self.scratch = _pages(SEND_SIZE)  # plaintext on its way to a seal
        self.discard = _pages(MAX_PIECE)  # where bytes go that nobody wants any more
        self.slabs = Slabs()
        self._idle: list[memoryview] = []

    def take_send(self) -> memoryview:
        return self._idle.pop() if self._idle else _pages(SEND_SIZE + SEND_SLACK)

    def give_send(self, buffer: memoryview) -> None:
        if len(self._idle) < IDLE_BUFFERS:
            self._idle.append(buffer)
