"""What the codecs of control messages have in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from furymesh.core.errors import ProtocolError
from furymesh.wire.pb import furymesh_pb2 as pb


def need(condition: bool, what: str) -> None:
    """Raise ProtocolError, which says what is wrong, unless the condition holds."""
    if not condition:
        raise ProtocolError(what)


def text(value: str, limit: int) -> str:
    """`value` if it has at most `limit` bytes; raises ProtocolError."""
    need(len(value.encode()) <= limit, "text too long")
    return value


def encoder(field: str, message_type: Any, **hints: int) -> Callable[[Any], bytes]:
    """What writes a message of this type as the `field` of a Frame, its own fields as they are.

    But for `hints`, texts for people, that are cut to so many bytes.
    """
    slots = message_type.DESCRIPTOR.fields_by_name.keys()

    def encode(value: Any) -> bytes:
        fields = {slot: getattr(value, slot) for slot in slots}
        for slot, limit in hints.items():
            fields[slot] = _cut(fields[slot], limit)
        return bytes(pb.Frame(**{field: message_type(**fields)}).SerializeToString())

    return encode


def _cut(hint: str, limit: int) -> str:
    """A text cut to `limit` bytes between characters.

    It may come from a path and then hold what is not text; that becomes "?".
    """
    return hint.encode("utf-8", "replace")[:limit].decode("utf-8", "ignore")
