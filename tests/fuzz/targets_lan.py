"""The datagrams of the local network."""

from __future__ import annotations

from furymesh.core.errors import ProtocolError
from furymesh.core.ids import DiscoveryTag, NodeId
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
from tests.fuzz.engine import Target

_NODE, _INSTANCE = NodeId(b"n" * 32), b"instance"


def datagram(data: bytes) -> None:
    """What is read means the same when it is written, and is answered with no more bytes."""
    read = decode(data)
    if isinstance(read, Offer):
        assert decode(encode_offer(read, MAX_DATAGRAM)) == read
        return
    assert decode(encode_discover(read)) == read
    answer = encode_offer(Offer(read.service, _NODE, _INSTANCE, 65535, read.tags), len(data))
    assert len(answer) <= len(data)


def _seeds() -> dict[str, bytes]:
    tags = tuple(DiscoveryTag(bytes([number]) * 32) for number in range(MAX_TAGS))
    return {
        "discover": encode_discover(Discover(Service.SWARM, _NODE, _INSTANCE, tags[:2])),
        "full": encode_discover(Discover(Service.SWARM, _NODE, _INSTANCE, tags)),
        "offer": encode_offer(Offer(Service.SWARM, _NODE, _INSTANCE, 7654, tags[:2]), 1000),
        "sync": encode_discover(Discover(Service.SYNC, _NODE, _INSTANCE)),
    }


TARGETS = (
    Target(
        "datagram",
        datagram,
        _seeds,
        (ProtocolError,),
        (
            *(b'"type":"DISCOVER"', b'"type":"OFFER"', b'"version":1', b'"service":"sync"'),
            *(b'"port":', b'"tags":[', b'"tags":[]', b'"pad":""', b"{", b"}", b"[", b"]", b"null"),
            *(rb"\ud800", rb"\u0000", b"1e999", b"NaN", b"-1", b"true", b'"' + b"0" * 64 + b'"'),
        ),
    ),
)
