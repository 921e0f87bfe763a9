"""Writing bencode: what trackers do and furymesh does not."""

from __future__ import annotations

from furymesh.wire.bencode import Value


def bencoded(value: Value) -> bytes:
    """`value` in bencode; keys in the order of the dictionary."""
    match value:
        case int():
            return b"i%de" % value
        case bytes():
            return b"%d:%s" % (len(value), value)
        case list():
            return b"l%se" % b"".join(map(bencoded, value))
        case dict():
            return b"d%se" % b"".join(bencoded(k) + bencoded(v) for k, v in value.items())
