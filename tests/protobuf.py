"""Writing protobuf by hand, for what no encoder of messages would write."""

from __future__ import annotations


def varint(number: int) -> bytes:
    out = b""
    while number > 127:
        out += bytes([number & 127 | 128])
        number >>= 7
    return out + bytes([number])


def tag(field: int, wire_type: int) -> bytes:
    return varint(field << 3 | wire_type)


def length_delimited(field: int, raw: bytes) -> bytes:
    return tag(field, 2) + varint(len(raw)) + raw
