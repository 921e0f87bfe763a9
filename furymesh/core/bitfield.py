"""Sets of chunks as integers.

A set of chunks is a *mask*: a Python int whose bit i stands for chunk i. Set
algebra on a million chunks is then one machine loop in C (``have & ~mine``),
and a mask is immutable, so it can be handed around without copies.

On the wire and on disk a mask is its little-endian bytes: chunk i is bit
``i % 8`` (least significant first) of byte ``i // 8``; spare bits are zero.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from random import Random

# A run of bytes with chunks in them: the gaps between are passed over in C.
_RUN = re.compile(rb"[^\0]+")


def mask_of(chunks: Iterable[int]) -> int:
    """The mask holding exactly these chunk indices."""
    indices = list(chunks)
    if not indices:
        return 0
    raw = bytearray(max(indices) // 8 + 1)
    for index in indices:
        raw[index >> 3] |= 1 << (index & 7)
    return int.from_bytes(raw, "little")


def chunks_of(mask: int) -> Iterator[int]:
    """The chunk indices in a mask, ascending."""
    for run in _RUN.finditer(mask.to_bytes((mask.bit_length() + 7) // 8, "little")):
        for position, byte in enumerate(run[0], run.start()):
            base = position * 8
            while byte:
                low = byte & -byte
                yield base + low.bit_length() - 1
                byte ^= low


def to_bytes(mask: int, chunk_count: int) -> bytes:
    """The packed form, exactly ``ceil(chunk_count / 8)`` bytes."""
    return mask.to_bytes((chunk_count + 7) // 8, "little")


def from_bytes(raw: bytes, chunk_count: int) -> int | None:
    """Read the packed form; None if the length is off or a spare bit is set."""
    if len(raw) != (chunk_count + 7) // 8:
        return None
    mask = int.from_bytes(raw, "little")
    return mask if mask >> chunk_count == 0 else None


def nth_chunk(mask: int, n: int) -> int:
    """The n-th chunk (from 0) of a mask in ascending order, by bisection."""
    base = 0
    width = mask.bit_length()
    while width > 1:
        half = width // 2
        low = mask & ((1 << half) - 1)
        count = low.bit_count()
        if n < count:
            mask, width = low, half
        else:
            n -= count
            mask >>= half
            base += half
            width -= half
    return base


def random_chunk(mask: int, rng: Random) -> int:
    """A chunk of a non-empty mask, each equally likely."""
    return nth_chunk(mask, rng.randrange(mask.bit_count()))


def strip(mask: int, chunk_count: int, width: int) -> str:
    """A density strip: `width` characters, each telling how full its part is."""
    shades = " ░▒▓█"
    out = []
    for column in range(width):
        start = column * chunk_count // width
        end = max(start + 1, (column + 1) * chunk_count // width)
        part = (mask >> start & ((1 << (end - start)) - 1)).bit_count()
        level = 0 if not part else 4 if part == end - start else 1 + 3 * part // (end - start)
        out.append(shades[level])
    return "".join(out)
