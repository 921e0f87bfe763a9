"""Reading bencode, the encoding of trackers' answers (BEP 3).

Strict, because it comes from strangers: one value has one spelling, nothing may
follow it, and both its size and its depth are limited. Only the order of a
dictionary's keys is not insisted on; trackers in use get it wrong.
"""

from __future__ import annotations

import re

from furymesh.core.errors import ProtocolError

MAX_SIZE = 64 * 1024  # bytes; fifty peers of an answer, written at their longest, take a tenth
MAX_DEPTH = 8  # an answer has three levels

Value = int | bytes | list["Value"] | dict[bytes, "Value"]

# Twenty characters hold every 64-bit number; longer ones cost more than they say.
_INTEGER = re.compile(rb"i(0|-?[1-9][0-9]{0,18})e")
_LENGTH = re.compile(rb"(0|[1-9][0-9]{0,5}):")


def decode(raw: bytes) -> Value:
    """The one value that `raw` holds; raises ProtocolError."""
    if len(raw) > MAX_SIZE:
        raise ProtocolError(f"more than {MAX_SIZE} bytes of bencode")
    reader = _Reader(raw)
    value = reader.value(MAX_DEPTH)
    if reader.at != len(raw):
        raise ProtocolError("bytes after the end of bencode")
    return value


class _Reader:
    def __init__(self, raw: bytes) -> None:
        self._raw = raw
        self.at = 0

    def value(self, depth: int) -> Value:
        first = self._raw[self.at : self.at + 1]
        if first == b"i":
            return int(self._match(_INTEGER))
        if first.isdigit():
            return self._text()
        if first not in (b"l", b"d"):
            raise ProtocolError("bencode is cut short or malformed")
        if not depth:
            raise ProtocolError(f"bencode is nested more than {MAX_DEPTH} deep")
        self.at += 1
        return self._list(depth - 1) if first == b"l" else self._dictionary(depth - 1)

    def _list(self, depth: int) -> Value:
        items: list[Value] = []
        while not self._ended():
            items.append(self.value(depth))
        return items

    def _dictionary(self, depth: int) -> Value:
        fields: dict[bytes, Value] = {}
        while not self._ended():
            key = self._text()
            if key in fields:
                raise ProtocolError("a key is in a bencoded dictionary twice")
            fields[key] = self.value(depth)
        return fields

    def _ended(self) -> bool:
        ended = self._raw.startswith(b"e", self.at)
        self.at += ended
        return ended

    def _text(self) -> bytes:
        size = int(self._match(_LENGTH))
        text = self._raw[self.at : self.at + size]
        if len(text) != size:
            raise ProtocolError("bencode is cut short or malformed")
        self.at += size
        return text

    def _match(self, pattern: re.Pattern[bytes]) -> bytes:
        found = pattern.match(self._raw, self.at)
        if found is None:
            raise ProtocolError("bencode is cut short or malformed")
        self.at = found.end()
        return found[1]
