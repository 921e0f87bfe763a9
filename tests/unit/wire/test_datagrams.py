"""The datagrams of the local network: what is read, what is refused, and how long they are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from furymesh.core.errors import ProtocolError
from furymesh.core.ids import DiscoveryTag, FileId, NodeId, discovery_tag
from furymesh.wire.datagrams import (
    MAX_DATAGRAM,
    MAX_TAGS,
    Discover,
    Offer,
    Service,
    decode,
    encode_discover,
    encode_offer,
)

DOCS = Path(__file__).parents[3] / "docs" / "discovery.md"
NODE, INSTANCE = NodeId(b"n" * 32), b"instance"


def tags(count: int) -> tuple[DiscoveryTag, ...]:
    return tuple(DiscoveryTag(bytes([number]) * 32) for number in range(count))


def discover(count: int = 1) -> Discover:
    return Discover(Service.SWARM, NODE, INSTANCE, tags(count))


def offer(count: int = 1, port: int = 65535) -> Offer:
    return Offer(Service.SWARM, NODE, INSTANCE, port, tags(count))


def changed(message: Discover | Offer, **fields: Any) -> bytes:
    raw = encode_discover(message) if isinstance(message, Discover) else encode_offer(message, 9999)
    return json.dumps({**json.loads(raw), **fields}).encode()


@pytest.mark.parametrize("count", [1, 2, MAX_TAGS])
def test_what_is_written_is_read(count: int) -> None:
    assert decode(encode_discover(discover(count))) == discover(count)
    assert decode(encode_offer(offer(count), MAX_DATAGRAM)) == offer(count)


def test_the_datagrams_in_the_documentation_are_real() -> None:
    text = DOCS.read_text("utf-8")
    question, answer = [line.encode() for line in text.splitlines() if line.startswith("{")]
    told = decode(question)
    assert isinstance(told, Discover)
    assert told.tags == (discovery_tag(FileId(bytes(range(32)))),)
    assert encode_discover(told) == question
    offered = decode(answer)
    assert isinstance(offered, Offer)
    assert encode_offer(offered, len(question)) == answer


def test_a_service_without_shares_has_no_tags() -> None:
    question = Discover(Service.SYNC, NODE, INSTANCE)
    answer = Offer(Service.SYNC, NODE, INSTANCE, 7777)
    raw = encode_discover(question)
    assert decode(raw) == question
    assert decode(encode_offer(answer, len(raw))) == answer


@pytest.mark.parametrize("count", range(1, MAX_TAGS + 1))
def test_a_whole_answer_is_never_longer_than_the_question(count: int) -> None:
    raw = encode_discover(discover(count))
    assert len(raw) <= MAX_DATAGRAM
    answer = encode_offer(offer(count), len(raw))
    assert len(answer) <= len(raw)
    assert decode(answer) == offer(count)


def test_an_answer_to_a_short_question_leaves_tags_out() -> None:
    room = len(encode_discover(discover(3)))
    assert decode(encode_offer(offer(9), room)) == offer(3)
    assert encode_offer(offer(1), 100) == b""


def test_unknown_flat_fields_are_passed_over() -> None:
    assert decode(changed(discover(), more="x", other=None)) == discover()


@pytest.mark.parametrize(
    "fields",
    [
        {"type": "HELLO"},
        {"type": None},
        {"version": 2},
        {"version": True},
        {"version": "1"},
        {"service": "mail"},
        {"service": 1},
        {"service": "sync"},
        {"node_id": "n" * 52 + "x"},
        {"node_id": 7},
        {"instance": "00"},
        {"instance": "G" * 16},
        {"tags": None},
        {"tags": []},
        {"tags": "00"},
        {"tags": [7]},
        {"tags": ["00"]},
        {"tags": ["A" * 64]},
        {"tags": ["0" * 64] * (MAX_TAGS + 1)},
        {"more": {}},
        {"more": []},
        {"port": 0},
        {"port": 65536},
        {"port": -1},
        {"port": True},
        {"port": "80"},
        {"port": 80.0},
        {"port": None},
    ],
)
def test_whatever_is_malformed_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ProtocolError):
        decode(changed(offer(), **fields))


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b"7",
        b"[" * MAX_DATAGRAM,
        b'{"type":"DISCOVER"}',
        b"\xff" * 100,
        b'{"version":' + b"9" * 1000 + b"}",
        encode_discover(discover()) + b" " * MAX_DATAGRAM,
        encode_discover(discover()).replace(b'"pad"', b'"type"'),
    ],
)
def test_whatever_is_no_datagram_is_refused(raw: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode(raw)
