"""Targets that are answers of trackers, over HTTP and UDP."""

from __future__ import annotations

import ipaddress
import struct

from furymesh.core.errors import ProtocolError
from furymesh.core.link import Address
from furymesh.wire import bencode, tracker_udp
from furymesh.wire.tracker import (
    MAX_INTERVAL,
    MAX_PEERS,
    MIN_INTERVAL,
    Answer,
    Refusal,
    parse_answer,
)
from tests.bencoding import bencoded
from tests.fuzz.engine import Target


def read_bencode(data: bytes) -> None:
    """One value has one spelling, but for the order of keys."""
    assert bencoded(bencode.decode(data)) == data


def check(told: Answer | Refusal) -> None:
    if isinstance(told, Refusal):
        assert told.reason.isprintable()
        return
    assert MIN_INTERVAL <= told.interval <= MAX_INTERVAL
    assert 0 <= told.min_interval <= told.interval
    assert len(set(told.peers)) == len(told.peers) <= MAX_PEERS
    for peer in told.peers:
        assert str(ipaddress.ip_address(peer.host)) == peer.host
        assert Address.parse(str(peer)) == peer


def answer(data: bytes) -> None:
    check(parse_answer(data))


def packet(data: bytes) -> None:
    """The first byte chooses the packet that is waited for."""
    kind, raw = data[:1], data[1:]
    tracker_udp.is_answer(raw, 7)
    if kind == b"c":
        told = tracker_udp.parse_connected(raw)
        assert isinstance(told, Refusal) or 0 <= told < 1 << 64
    else:
        check(tracker_udp.parse_announced(raw, ip_size=4 if kind == b"4" else 16))


_V4 = ipaddress.ip_address("192.0.2.1").packed + b"\x1d\xe6"
_V6 = ipaddress.ip_address("2001:db8::1").packed + b"\x1d\xe6"
_COUNTS = {b"complete": 3, b"incomplete": 1}

_ANSWERS = {
    "compact": bencoded(
        {**_COUNTS, b"interval": 1800, b"min interval": 900, b"peers": _V4 * 2, b"peers6": _V6}
    ),
    "listed": bencoded(
        {
            b"interval": 120,
            b"peers": [
                {b"ip": b"192.0.2.1", b"peer id": b"-" * 20, b"port": 7654},
                {b"ip": b"2001:db8::1", b"port": 1},
                {b"ip": b"tracker.example", b"port": 1},
            ],
            b"tracker id": b"again",
        }
    ),
    "refused": bencoded({b"failure reason": b"not \x1b[1mregistered"}),
}

TARGETS = (
    Target(
        "bencode",
        read_bencode,
        lambda: {
            "nested": bencoded([[[{b"a": [0, -1, 2**60], b"": {}}]], b"text"]),
            "unordered": bencoded({b"b": 1, b"a": 2}),
        },
        (ProtocolError,),
        (b"i-0e", b"i", b"e", b"l", b"d", b"99999:", b"0:", b"llllllllll", b"1:a"),
    ),
    Target(
        "tracker_answer",
        answer,
        lambda: _ANSWERS,
        (ProtocolError,),
        (
            *(b"8:interval", b"12:min interval", b"5:peers", b"6:peers6", b"14:failure reason"),
            *(b"i-1e", b"i9999999999e", b"le", b"de", b"10:tracker id", _V4, _V6, b"4:port"),
        ),
    ),
    Target(
        "tracker_packet",
        packet,
        lambda: {
            "connected": b"c" + struct.pack(">IIQ", 0, 7, 2**63),
            "announced": b"4" + struct.pack(">IIIII", 1, 7, 1800, 2, 3) + _V4 * 2,
            "announced6": b"6" + struct.pack(">IIIII", 1, 7, 1800, 2, 3) + _V6 * 2,
            "refused": b"4" + struct.pack(">II", 3, 7) + b"not \x1b[1mhere",
        },
        (ProtocolError,),
        (struct.pack(">II", 3, 7), struct.pack(">II", 1, 7), _V4, _V6, b"\0" * 18),
    ),
)
