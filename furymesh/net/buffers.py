"""The large buffers of a node, shared by all its links.

Always true: memory for receiving and sending does not grow with the number of
links. One receive buffer serves every link, because a link consumes what it
received before it waits again; send buffers are lent to links that have
something to send; slabs hold chunks that are arriving or being verified.
"""

from __future__ import annotations

from mmap import mmap

import trio

from furymesh.wire.records import MAX_RECORD

RECEIVE_SIZE = 1024 * 1024 + MAX_RECORD  # one system call for about a mebibyte
SEND_SIZE = 1024 * 1024  # chunk bytes sealed for one system call
# What sealing adds to a full send buffer: a tag and a header per record, and
# room for one batch of control messages.
SEND_SLACK = 256 * 1024
IDLE_BUFFERS = 4  # kept for reuse; beyond this they go back to the system
# Bytes of chunks arriving or being verified, over all links of a download. More
# would not be faster: slabs that stay in the processor's cache are.
SLAB_BUDGET = 16 * 1024 * 1024
# Large chunks get more, so that the ten peers a download dials can all send and
# two chunks be stored meanwhile; together with the rest of a node this stays
# near 100 MB.
WANTED_SLABS = 12
SLAB_CEILING = 48 * 1024 * 1024
MIN_SLABS = 6  # even with the largest chunks


def slab_budget(chunk_size: int) -> int:
    """How many bytes of slabs a download with chunks of this size (bytes) may use."""
    return max(SLAB_BUDGET, min(WANTED_SLABS * chunk_size, SLAB_CEILING))


class SlabPool:
    """Chunk-sized buffers for one download, from a fixed budget.

    `take` returns None when all are lent; `wait` returns when one was given
    back. Everybody who waits is woken then, because whoever is woken may have
    no use for a slab any more. Slabs are reused, never cleared: every byte is
    overwritten before it is verified.
    """

    def __init__(self, chunk_size: int, budget: int = SLAB_BUDGET) -> None:
        self.chunk_size = chunk_size
        self.limit = max(MIN_SLABS, budget // max(chunk_size, 1))
        self._free: list[memoryview] = []
        self._lent = 0
        self._given = trio.Event()

    def take(self) -> memoryview | None:
        if self._lent >= self.limit:
            return None
        self._lent += 1
        return self._free.pop() if self._free else memoryview(bytearray(self.chunk_size))

    def give(self, slab: memoryview) -> None:
        self._lent -= 1
        self._free.append(slab)
        self._given.set()
        self._given = trio.Event()

    async def wait(self) -> None:
        await self._given.wait()

    def trim(self) -> None:
        """Give idle slabs back to the system, until they are wanted again."""
        self._free.clear()


def _pages(size: int) -> memoryview:
    """Memory that the system provides as it is touched: most sends are small."""
    return memoryview(mmap(-1, size))


class Buffers:
    """What one node's links share."""

    def __init__(self) -> None:
        self.receive = _pages(RECEIVE_SIZE)
        self.scratch = _pages(SEND_SIZE)  # plaintext on its way to a seal
        self._idle: list[memoryview] = []

    def take_send(self) -> memoryview:
        return self._idle.pop() if self._idle else _pages(SEND_SIZE + SEND_SLACK)

    def give_send(self, buffer: memoryview) -> None:
        if len(self._idle) < IDLE_BUFFERS:
            self._idle.append(buffer)
