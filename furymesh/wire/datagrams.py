"""The datagrams by which nodes of one network segment find each other.

Two messages in flat JSON: DISCOVER asks who takes part in some shares (or runs
another service), OFFER tells where links are accepted. Shares appear by their
discovery tags only. Always true:

* an OFFER is never longer than the DISCOVER it answers, so nobody can be hit
  harder through us than directly;
* whatever bytes come in, reading them costs little: their length and nesting
  are checked before anything is parsed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from furymesh.core.errors import ProtocolError, UsageError
from furymesh.core.ids import (
    ID_SIZE,
    INSTANCE_SIZE,
    DiscoveryTag,
    NodeId,
    node_id_text,
    parse_node_id,
)

VERSION = 1
MAX_DATAGRAM = 1200  # bytes: one frame on every network, never a fragment
MAX_TAGS = 14  # in one datagram; as many as fit
_TAG = re.compile(f"[0-9a-f]{{{2 * ID_SIZE}}}")
_INSTANCE = re.compile(f"[0-9a-f]{{{2 * INSTANCE_SIZE}}}")


class Service(StrEnum):
    """What is looked for."""

    SWARM = "swarm"  # who takes part in shares
    SYNC = "sync"  # who takes in folders; without tags


@dataclass(frozen=True, slots=True)
class Discover:
    """Who is there? For the swarm: of these shares."""

    service: Service
    node_id: NodeId
    instance: bytes
    tags: tuple[DiscoveryTag, ...] = ()


@dataclass(frozen=True, slots=True)
class Offer:
    """Links are accepted at `port` of the address this comes from; for the swarm: for these."""

    service: Service
    node_id: NodeId
    instance: bytes
    port: int
    tags: tuple[DiscoveryTag, ...] = ()


def encode_discover(question: Discover) -> bytes:
    """The datagram, as long as the longest answer; at most MAX_TAGS tags."""
    answer = Offer(question.service, question.node_id, question.instance, 65535, question.tags)
    fields = _fields("DISCOVER", question)
    short = len(_encode(_fields("OFFER", answer))) - len(_encode({**fields, "pad": ""}))
    return _encode({**fields, "pad": "." * max(short, 0)})


def encode_offer(offer: Offer, room: int) -> bytes:
    """The datagram, with as many of the tags as make it no longer than `room`.

    Empty if there is not even room for one, or for none where there are none.
    """
    for count in range(len(offer.tags), -1, -1):
        raw = _encode(_fields("OFFER", replace(offer, tags=offer.tags[:count])))
        if len(raw) <= room and (count or not offer.tags):
            return raw
    return b""


def decode(raw: bytes | memoryview) -> Discover | Offer:
    """Read a datagram; raises ProtocolError for whatever is none of version 1."""
    if len(raw) > MAX_DATAGRAM:
        raise ProtocolError("a datagram of discovery is too long")
    raw = bytes(raw)
    if raw.count(b"{") != 1 or raw.count(b"[") > 1:
        raise ProtocolError("a datagram of discovery is no flat object")
    try:
        fields = json.loads(raw, object_pairs_hook=_unique)
    except (ValueError, RecursionError):
        raise ProtocolError("a datagram of discovery is no JSON") from None
    version = fields.get("version") if isinstance(fields, dict) else None
    if type(version) is not int or version != VERSION:
        raise ProtocolError("a datagram of discovery has another version")
    service = _service(fields.get("service"))
    node_id = _node_id(fields.get("node_id"))
    instance = bytes.fromhex(_matching(_INSTANCE, fields.get("instance")))
    tags = _tags(fields.get("tags"))
    if bool(tags) != (service is Service.SWARM):
        raise ProtocolError("a datagram of discovery has tags, or lacks them")
    match fields.get("type"):
        case "DISCOVER":
            return Discover(service, node_id, instance, tags)
        case "OFFER":
            return Offer(service, node_id, instance, _port(fields.get("port")), tags)
        case _:
            raise ProtocolError("a datagram of discovery has another type")


def _fields(kind: str, message: Discover | Offer) -> dict[str, Any]:
    return {
        "type": kind,
        "version": VERSION,
        "service": message.service.value,
        "node_id": node_id_text(message.node_id),
        "instance": message.instance.hex(),
        **({"port": message.port} if isinstance(message, Offer) else {}),
        **({"tags": [tag.hex() for tag in message.tags]} if message.tags else {}),
    }


def _encode(fields: dict[str, Any]) -> bytes:
    return json.dumps(fields, separators=(",", ":")).encode("ascii")


def _unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("a name twice")
    return fields


def _service(value: object) -> Service:
    try:
        return Service(value if isinstance(value, str) else "")
    except ValueError:
        raise ProtocolError("a datagram of discovery is for another service") from None


def _node_id(value: object) -> NodeId:
    try:
        return parse_node_id(value if isinstance(value, str) and value.isascii() else "")
    except UsageError:
        raise ProtocolError("a datagram of discovery names no node") from None


def _matching(form: re.Pattern[str], value: object) -> str:
    if not isinstance(value, str) or not form.fullmatch(value):
        raise ProtocolError("a datagram of discovery has a malformed tag or instance")
    return value


def _tags(value: object) -> tuple[DiscoveryTag, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or len(value) > MAX_TAGS:
        raise ProtocolError("a datagram of discovery has a malformed list of tags")
    tags = [DiscoveryTag(bytes.fromhex(_matching(_TAG, tag))) for tag in value]
    return tuple(dict.fromkeys(tags))


def _port(value: object) -> int:
    if type(value) is not int or not 0 < value < 1 << 16:
        raise ProtocolError("a datagram of discovery has a malformed port")
    return value
