"""How many peers hold each chunk, counted for all chunks at once.

The counters are bit-sliced: plane k is a mask holding bit k of every chunk's
count. Adding a peer's whole bitmap is a ripple-carry addition of masks, and
the rarest chunks among some candidates fall out of a few ANDs: O(log peers)
big-integer operations whatever the number of chunks. (Bit-slicing as in
Lamport, "Multiple byte processing with full-word instructions", CACM 1975.)
"""

from __future__ import annotations

from furymesh.core.errors import IllegalStateError


class Availability:
    """Counts per chunk; peers' masks are added when they come and removed when they go."""

    def __init__(self) -> None:
        self._planes: list[int] = []

    def add(self, mask: int) -> None:
        """Count one more holder for every chunk in the mask."""
        planes = self._planes
        carry = mask
        level = 0
        while carry:
            if level == len(planes):
                planes.append(0)
            planes[level], carry = planes[level] ^ carry, planes[level] & carry
            level += 1

    def remove(self, mask: int) -> None:
        """Count one holder less for every chunk in the mask."""
        planes = self._planes.copy()
        borrow = mask
        for level, plane in enumerate(planes):
            if not borrow:
                break
            planes[level], borrow = plane ^ borrow, borrow & ~plane
        if borrow:
            raise IllegalStateError("a chunk's availability fell below zero")
        while planes and not planes[-1]:
            planes.pop()
        self._planes = planes

    @property
    def held(self) -> int:
        """The chunks that anybody holds, as a mask."""
        mask = 0
        for plane in self._planes:
            mask |= plane
        return mask

    def rarest(self, candidates: int) -> int:
        """Those of the candidates that the fewest peers hold, as a mask."""
        for plane in reversed(self._planes):
            fewer = candidates & ~plane
            if fewer:
                candidates = fewer
        return candidates

    def count(self, chunk: int) -> int:
        """How many peers hold one chunk."""
        return sum((plane >> chunk & 1) << level for level, plane in enumerate(self._planes))
