"""What is read from a mirror: chunks of a stream, cut out of the plain files there."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from furymesh.core.geometry import Geometry
from furymesh.core.layout import Layout
from furymesh.core.sealing import Sealer, carried_range
from furymesh.net.tasks import open_tasks
from furymesh.sources.source import Take

# Small files of a chunk that are asked for at a time: each costs a few round trips.
PARTS_AT_ONCE = 16


class Part(NamedTuple):
    """`length` bytes at `offset` of a file that has `size`; they begin at `at` in their chunk."""

    path: str
    size: int
    offset: int
    length: int
    at: int


Read = Callable[[Part, Take], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Content:
    """The files of a share, and the chunks made of them; sealed here if there is a `sealer`.

    With that, `geometry` is of the sealed stream.
    """

    layout: Layout
    geometry: Geometry
    sealer: Sealer | None

    def parts(self, chunk: int) -> Iterator[Part]:
        """Where the plain bytes of a chunk are, in their order."""
        at = 0
        for number, offset, length in self.layout.segments(*self._plain_range(chunk)):
            file = self.layout.files[number]
            yield Part(file.path, file.size, offset, length, at)
            at += length

    def as_it_is(self, chunk: int) -> Part | None:
        """The only part of a chunk, if its bytes are those of the chunk."""
        first = next(self.parts(chunk))
        return first if not self.sealer and first.length == self.geometry.length(chunk) else None

    async def read(self, chunk: int, read: Read) -> bytes | bytearray:
        """A whole chunk, several of its files at a time; raises what `read` does."""
        plain = bytearray(self._plain_range(chunk)[1])
        parts = self.parts(chunk)

        async def work() -> None:
            for part in parts:
                at = part.at

                def take(data: bytes) -> None:
                    nonlocal at
                    plain[at : at + len(data)] = data
                    at += len(data)

                await read(part, take)

        async with open_tasks() as nursery:
            for _ in range(PARTS_AT_ONCE):
                nursery.start_soon(work)
        return self.sealer.seal(chunk, plain) if self.sealer else plain

    def _plain_range(self, chunk: int) -> tuple[int, int]:
        """Offset and length in the plain stream of what a chunk holds."""
        return carried_range(self.geometry, chunk, sealed=self.sealer is not None)
