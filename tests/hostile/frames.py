"""Control frames that no honest peer sends, made from a seed.

Each is of one message type: fields at the edges of their ranges, lists that are too
long, texts that are none, a frame cut, bent or nested a thousand deep.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from google.protobuf.descriptor import FieldDescriptor

from furymesh.wire.codec import MAX_INDICES
from furymesh.wire.pb import furymesh_pb2 as pb
from tests.protobuf import length_delimited, tag, varint

KINDS = tuple(field.name for field in pb.Frame.DESCRIPTOR.fields)
MAX_FRAME = 120_000  # bytes; one record takes a little more
NUMBERS = (0, 1, 2, 3, 7, 8, 255, 2**16 - 1, 2**16, 2**20, 2**20 + 1, 2**31 - 1, 2**31, 2**32 - 1)
LENGTHS = (0, 1, 4, 8, 15, 16, 31, 32, 33, 64, 255, 256, 1024, 65_535, 65_536, 65_537)
COUNTS = (0, 1, 2, 16, 17, 100, 101, MAX_INDICES, MAX_INDICES + 1)
ENDLESS = b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"  # -1 as a varint
GROUPS = 5000  # one inside the other


def hostile(rng: Random, kind: str, number: int) -> bytes:
    """One frame of a message type; `number` is that of a share, for fields that name one."""
    return rng.choice(_STYLES)(rng, kind, number)[:MAX_FRAME] or b"\0"


def _odd_fields(rng: Random, kind: str, number: int) -> bytes:
    """Every field at some edge of its range."""
    return _frame(kind, _body(rng, _type_of(kind), number, odd=1.0))


def _one_odd_field(rng: Random, kind: str, number: int) -> bytes:
    """Plausible, but for a field or two."""
    return _frame(kind, _body(rng, _type_of(kind), number, odd=0.3))


def _bent(rng: Random, kind: str, number: int) -> bytes:
    """A plausible frame with some bytes changed, or cut off."""
    raw = bytearray(_one_odd_field(rng, kind, number))
    for _ in range(rng.randint(1, 4)):
        if raw:
            raw[rng.randrange(len(raw))] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
    return bytes(raw[: rng.randint(1, len(raw) or 1)] if rng.random() < 0.5 else raw)


def _negative(rng: Random, kind: str, number: int) -> bytes:
    """Every number of the message is -1, and every length reaches to the end of the world."""
    out = b""
    for field in _type_of(kind).DESCRIPTOR.fields:
        packed = field.type in (FieldDescriptor.TYPE_BYTES, FieldDescriptor.TYPE_STRING)
        out += tag(field.number, 2 if packed else 0) + ENDLESS
    return length_delimited(_number_of(kind), out)


def _too_long(rng: Random, kind: str, number: int) -> bytes:
    """A length that is not there."""
    return tag(_number_of(kind), 2) + varint(rng.choice((2**31 - 1, 2**31, 2**32 - 1, 2**63)))


def _nested(rng: Random, kind: str, number: int) -> bytes:
    """Unknown groups, each inside the one before."""
    inner = tag(15, 3) * GROUPS + (tag(15, 4) * GROUPS if rng.random() < 0.5 else b"")
    return length_delimited(_number_of(kind), inner)


def _several(rng: Random, kind: str, number: int) -> bytes:
    """Several messages in one frame: the last of them counts."""
    other = rng.choice(KINDS)
    return _one_odd_field(rng, other, number) + _one_odd_field(rng, kind, number)


_STYLES: tuple[Callable[[Random, str, int], bytes], ...] = (
    _odd_fields,
    _one_odd_field,
    _one_odd_field,
    _bent,
    _bent,
    _negative,
    _too_long,
    _nested,
    _several,
)


def _type_of(kind: str) -> Any:
    described = pb.Frame.DESCRIPTOR.fields_by_name[kind].message_type
    assert described is not None
    return getattr(pb, described.name)


def _number_of(kind: str) -> int:
    return int(pb.Frame.DESCRIPTOR.fields_by_name[kind].number)


def _frame(kind: str, body: Any) -> bytes:
    return bytes(pb.Frame(**{kind: body}).SerializeToString())


def _body(rng: Random, message: Any, number: int, *, odd: float) -> Any:
    body = message()
    for field in message.DESCRIPTOR.fields:
        strange = rng.random() < odd
        if field.is_repeated:
            count = rng.choice(COUNTS) if strange else rng.randint(0, 4)
            if field.message_type is not None:
                peer = _body(rng, pb.PeerAddress, number, odd=odd)
                getattr(body, field.name).extend([peer] * count)
            else:
                value = _value(rng, field, strange, number)
                getattr(body, field.name).extend([value] * count)
        else:
            setattr(body, field.name, _value(rng, field, strange, number))
    return body


def _value(rng: Random, field: Any, strange: bool, number: int) -> Any:
    match field.type:
        case FieldDescriptor.TYPE_BYTES:
            plausible = {"instance": 8, "ip": 4, "observed_ip": 4}.get(field.name, 32)
            size = rng.choice(LENGTHS) if strange else plausible
            return rng.choice((b"\0", b"\xff", b"\x5a")) * size
        case FieldDescriptor.TYPE_STRING:
            size = rng.choice(LENGTHS) if strange else 5
            return rng.choice(("a", "\0", "\x1b[2J", "../", "é")) * (size // 4)
        case FieldDescriptor.TYPE_BOOL:
            return rng.random() < 0.5
        case FieldDescriptor.TYPE_ENUM:
            return rng.choice((0, 1, 6, 12, 13, 99, 2**31 - 1)) if strange else rng.randint(0, 12)
        case _:
            if field.name == "share" and not strange:
                return number
            return rng.choice(NUMBERS) if strange else rng.randint(0, 20)
