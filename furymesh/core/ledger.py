"""Who owns the state of chunks: this module alone moves them between states.

Always true: a chunk is in exactly one of four states.

* MISSING: nobody has been asked for it.
* IN_FLIGHT: at least one peer was asked, or its bytes are being verified.
* HAVE: verified and on disk.
* SKIPPED: not wanted.

``have``, ``in_flight``, ``missing`` and the skipped chunks are disjoint masks that
cover all chunks.
A transition that does not start in the state it must start in raises
IllegalStateError.
"""

from __future__ import annotations

from enum import Enum, auto

from furymesh.core.errors import IllegalStateError
from furymesh.core.geometry import Geometry


class ChunkState(Enum):
    MISSING = auto()
    IN_FLIGHT = auto()
    HAVE = auto()
    SKIPPED = auto()


class Ledger:
    """The states of all chunks of one download."""

    def __init__(self, geometry: Geometry, have: int = 0, skipped: int = 0) -> None:
        self.geometry = geometry
        self._all = geometry.all_chunks
        if (have | skipped) & ~self._all or have & skipped:
            raise IllegalStateError("initial masks overlap or exceed the chunks")
        self._have = have
        self._in_flight = 0
        self._skipped = skipped
        self._missing = self._all & ~(have | skipped)

    @property
    def have(self) -> int:
        return self._have

    @property
    def in_flight(self) -> int:
        return self._in_flight

    @property
    def missing(self) -> int:
        return self._missing

    @property
    def done(self) -> bool:
        return not self._missing and not self._in_flight

    def state(self, chunk: int) -> ChunkState:
        bit = 1 << chunk
        if self._have & bit:
            return ChunkState.HAVE
        if self._in_flight & bit:
            return ChunkState.IN_FLIGHT
        return ChunkState.SKIPPED if self._skipped & bit else ChunkState.MISSING

    def request(self, chunk: int) -> None:
        """MISSING → IN_FLIGHT."""
        self._expect(chunk, ChunkState.MISSING)
        self._missing ^= 1 << chunk
        self._in_flight |= 1 << chunk

    def release(self, chunk: int) -> None:
        """IN_FLIGHT → MISSING: nobody will bring it, or it was bad."""
        self._expect(chunk, ChunkState.IN_FLIGHT)
        self._in_flight ^= 1 << chunk
        self._missing |= 1 << chunk

    def store(self, chunk: int) -> None:
        """IN_FLIGHT → HAVE: verified and written."""
        self._expect(chunk, ChunkState.IN_FLIGHT)
        self._in_flight ^= 1 << chunk
        self._have |= 1 << chunk

    def lose(self, chunk: int) -> None:
        """HAVE → MISSING: a re-read from disk did not verify."""
        self._expect(chunk, ChunkState.HAVE)
        self._have ^= 1 << chunk
        self._missing |= 1 << chunk

    def _expect(self, chunk: int, state: ChunkState) -> None:
        actual = self.state(chunk)
        if actual is not state:
            raise IllegalStateError(f"chunk {chunk} is {actual.name}, expected {state.name}")
