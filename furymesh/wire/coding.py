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


def plain(field: str, message_type: Any) -> Callable[[Any], bytes]:
    """Encoder for a message whose fields go onto the wire as they are."""
    slots = message_type.DESCRIPTOR.fields_by_name.keys()

    def encoder(value: Any) -> bytes:
        body = message_type(**{slot: getattr(value, slot) for slot in slots})
        return bytes(pb.Frame(**{field: body}).SerializeToString())

    return encoder


def hint(text: str, limit: int) -> str:
    """A text for people, cut to `limit` bytes between characters.

    It may come from a path and then hold what is not text; that becomes "?".
    """
    return text.encode("utf-8", "replace")[:limit].decode("utf-8", "ignore")
