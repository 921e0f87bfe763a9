"""Mutation: from inputs that a parser likes to inputs that it may not.

Half of the changes know nothing of what they change (bits, bytes, runs); the
others know what parsers stumble on: integers at their borders, lengths that lie,
repeated and nested parts, the tokens of the format. The same generator in the
same state makes the same input.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from random import Random

MAX_INPUT = 256 * 1024  # bytes; what needs more to go wrong is for tests of limits
MAX_RUN = 64  # bytes of one blind change
MANY = (16, 100, 1_100, 20_000)  # repetitions; 1,100 is above Python's recursion limit

# Borders of the usual widths, and of what takes their square or their product.
EDGES = sorted(
    {
        (1 << bits) + offset
        for bits in (0, 7, 8, 14, 15, 16, 21, 24, 28, 31, 32, 48, 53, 56, 62, 63, 64)
        for offset in (-1, 0, 1)
    }
)
# What text is rarely expected to hold: control, direction, combining, lone surrogates
# (as JSON and UTF-8 with surrogates write them), other digits, long case foldings.
ODD_TEXT = (
    *("\x00", "\x1b[2J", "\n", "\r", "\x7f", "\x85", "\u202e", "\u2028", "\u0301", "\ufeff"),
    *("\u0661", "\u0130", "\ufb03", "\U0001f469"),
    *(r"\u0000", r"\ud800", r"\udc80", r"\udfff", r"\ud83d\ude00", "%00", "%ed%a0%80", "%25"),
    *("NaN", "Infinity", "-1", "1e400", "0x10", "1_0", "..", "../", "//", "~", "null", "true"),
    *"[]{}\"'\\:;=&?#@,/%",
    "9" * 30,
    "9" * 5_000,
)


class Mutator:
    """Makes inputs out of a pool of others."""

    def __init__(self, rng: Random, pool: Sequence[bytes], tokens: Sequence[bytes] = ()) -> None:
        """`pool` may grow meanwhile; it is never empty."""
        self._rng = rng
        self._pool = pool
        odd = [text.encode("utf-8", "surrogatepass") for text in ODD_TEXT]
        self._tokens = [*tokens] * 3 + odd if tokens else odd
        self._changes: tuple[Callable[[bytearray], None], ...] = (
            self._flip_bit,
            self._set_byte,
            self._remove,
            self._repeat,
            self._insert_random,
            self._insert_token,
            self._insert_token,
            self._replace_by_token,
            self._set_integer,
            self._set_integer,
            self._shift_integer,
            self._change_number,
            self._splice,
            self._truncate,
            self._swap,
            self._nest,
        )

    def next(self) -> bytes:
        """An input: one of the pool with one to about eight changes."""
        rng = self._rng
        data = bytearray(rng.choice(self._pool))
        changes = 1
        while rng.random() < 0.5 and changes < 8:
            changes += 1
        for _ in range(changes):
            rng.choice(self._changes)(data)
        return bytes(data[:MAX_INPUT])

    # --- blind ------------------------------------------------------------------

    def _flip_bit(self, data: bytearray) -> None:
        if data:
            data[self._at(data)] ^= 1 << self._rng.randrange(8)

    def _set_byte(self, data: bytearray) -> None:
        if data:
            data[self._at(data)] = self._rng.choice((0, 1, 0x7F, 0x80, 0xFF, 0x20, 0x2F, 0x5B))

    def _remove(self, data: bytearray) -> None:
        at, end = self._run(data)
        del data[at:end]

    def _repeat(self, data: bytearray) -> None:
        at, end = self._run(data)
        times = self._rng.choice((1, 1, 1, 2, *MANY))
        data[at:at] = (data[at:end] * times)[:MAX_INPUT]

    def _insert_random(self, data: bytearray) -> None:
        at = self._at(data)
        data[at:at] = self._rng.randbytes(self._rng.randrange(1, 17))

    def _splice(self, data: bytearray) -> None:
        """The front of this input and the back of another, or a piece of it in the middle."""
        other = self._rng.choice(self._pool)
        at = self._at(data)
        start = self._at(other)
        if self._rng.random() < 0.5:
            data[at:] = other[start:]
        else:
            data[at:at] = other[start : start + self._rng.randrange(1, MAX_RUN)]

    def _truncate(self, data: bytearray) -> None:
        del data[self._at(data) :]

    def _swap(self, data: bytearray) -> None:
        at, end = self._run(data)
        part = data[at:end]
        del data[at:end]
        to = self._at(data)
        data[to:to] = part

    # --- knowing ----------------------------------------------------------------

    def _insert_token(self, data: bytearray) -> None:
        at = self._at(data)
        data[at:at] = self._rng.choice(self._tokens)

    def _replace_by_token(self, data: bytearray) -> None:
        at, end = self._run(data)
        data[at:end] = self._rng.choice(self._tokens)

    def _set_integer(self, data: bytearray) -> None:
        """A binary integer becomes a border, or the length of what follows, give or take one."""
        width, order = self._rng.choice((1, 2, 4, 4, 8)), self._rng.choice("><")
        if len(data) < width:
            return
        at = self._rng.randrange(len(data) - width + 1)
        left = len(data) - at - width
        value = self._rng.choice((self._rng.choice(EDGES), left, left + 1, left - 1))
        code = {1: "B", 2: "H", 4: "I", 8: "Q"}[width]
        struct.pack_into(order + code, data, at, value % (1 << 8 * width))

    def _shift_integer(self, data: bytearray) -> None:
        if data:
            at = self._at(data)
            data[at] = (data[at] + self._rng.choice((-16, -2, -1, 1, 2, 16))) % 256

    def _change_number(self, data: bytearray) -> None:
        """A number in decimal becomes a border."""
        digits = [at for at, byte in enumerate(data[:4096]) if 48 <= byte <= 57]
        if not digits:
            return
        at = end = self._rng.choice(digits)
        while end < len(data) and 48 <= data[end] <= 57:
            end += 1
        value = self._rng.choice(EDGES) * self._rng.choice((1, 1, 1, -1))
        data[at:end] = str(value).encode()

    def _nest(self, data: bytearray) -> None:
        """Wrap a part in many brackets, or in nothing but their first halves."""
        opening, closing = self._rng.choice(
            ((b"[", b"]"), (b'{"a":', b"}"), (b"- ", b""), (b"(", b")"))
        )
        times = self._rng.choice(MANY)
        at, end = self._run(data)
        data[end:end] = closing * times if self._rng.random() < 0.7 else b""
        data[at:at] = opening * times

    # --- where ------------------------------------------------------------------

    def _at(self, data: bytes | bytearray) -> int:
        return self._rng.randrange(len(data)) if data else 0

    def _run(self, data: bytearray) -> tuple[int, int]:
        at = self._at(data)
        return at, min(len(data), at + self._rng.randrange(1, MAX_RUN))
