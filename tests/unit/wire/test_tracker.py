"""Trackers' answers, over HTTP and UDP, and what they are asked."""

from __future__ import annotations

import struct
from urllib.parse import parse_qsl

import pytest

from furymesh.core.errors import ProtocolError
from furymesh.core.link import Address
from furymesh.wire import bencode, tracker_udp
from furymesh.wire.bencode import MAX_DEPTH, MAX_SIZE, Value
from furymesh.wire.tracker import (
    DEFAULT_INTERVAL,
    MAX_INTERVAL,
    MAX_PEERS,
    MAX_TRACKER_ID,
    MIN_INTERVAL,
    Announce,
    Answer,
    Event,
    Refusal,
    parse_answer,
    query,
)
from tests.bencoding import bencoded

V4, V6 = bytes([192, 0, 2, 1]), bytes.fromhex("20010db8000000000000000000000001")
PORT = (7654).to_bytes(2, "big")
ANNOUNCE = Announce(bytes(range(236, 256)), bytes(range(20)), 0xAB, 7654, True, Event.STARTED)


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        (b"i0e", 0),
        (b"i-42e", -42),
        (b"3:a:b", b"a:b"),
        (b"le", []),
        (b"d1:b0:1:ali1eee", {b"b": b"", b"a": [1]}),
    ],
)
def test_bencode_is_read(raw: bytes, value: Value) -> None:
    assert bencode.decode(raw) == value


@pytest.mark.parametrize(
    "raw",
    [
        *[b"", b"i", b"ie", b"i-0e", b"i01e", b"i+1e", b"i 1e", b"i1", b"i1.0e", b"x"],
        *[b"i" + b"9" * 20 + b"e", b"01:a", b"2:a", b"-1:a", b"1", b"999999999999:a"],
        *[b"l", b"li1e", b"d", b"di1ei2ee", b"d1:ae", b"d1:a", b"d1:ai1e1:ai2ee", b"e"],
        *[b"i1ei2e", b"le\n", b"l" * 40_000, b"d1:a" * 9_000, b"0:" + bytes(MAX_SIZE)],
    ],
    ids=lambda raw: ascii(raw[:12]),
)
def test_bencode_with_another_spelling_or_none_is_refused(raw: bytes) -> None:
    with pytest.raises(ProtocolError):
        bencode.decode(raw)


def test_bencode_has_a_greatest_size_and_depth() -> None:
    deepest = b"l" * MAX_DEPTH + b"e" * MAX_DEPTH
    assert bencode.decode(deepest)
    with pytest.raises(ProtocolError, match="nested"):
        bencode.decode(b"l" + deepest + b"e")
    head = b"%d:" % (MAX_SIZE - 6)
    assert len(head) == 6
    assert bencode.decode(head + bytes(MAX_SIZE - 6))
    with pytest.raises(ProtocolError, match="more than"):
        bencode.decode(b"%d:" % (MAX_SIZE - 5) + bytes(MAX_SIZE - 5))


def test_an_announce_is_a_query() -> None:
    fields = dict(parse_qsl(query(ANNOUNCE), encoding="latin-1", strict_parsing=True))
    assert fields == {
        "info_hash": ANNOUNCE.info_hash.decode("latin-1"),
        "peer_id": ANNOUNCE.peer_id.decode("latin-1"),
        "port": "7654",
        "uploaded": "0",
        "downloaded": "0",
        "left": "1",
        "compact": "1",
        "no_peer_id": "1",
        "numwant": str(MAX_PEERS),
        "key": "000000ab",
        "event": "started",
    }


def test_who_lacks_nothing_or_leaves_asks_for_nobody() -> None:
    bare = Announce(bytes(20), bytes(20), 1, 1, False, Event.NONE, b"\xff&")
    text = query(bare)
    assert "left=0" in text
    assert "numwant=0" in text
    assert "event" not in text
    assert text.endswith("&trackerid=%FF%26")
    leaving = Announce(bytes(20), bytes(20), 1, 1, True, Event.STOPPED)
    assert leaving.peers_wanted == 0


def test_peers_are_read_in_all_their_forms() -> None:
    fields: dict[bytes, Value] = {b"interval": 1800, b"min interval": 600}
    found = Address("192.0.2.1", 7654), Address("2001:db8::1", 7654)
    compact = {**fields, b"peers": V4 + PORT, b"peers6": V6 + PORT, b"tracker id": b"t"}
    assert parse_answer(bencoded(compact)) == Answer(1800, 600, found, b"t")
    listed: list[Value] = [
        {b"ip": b"192.0.2.1", b"port": 7654, b"peer id": b"x"},
        {b"ip": b"2001:DB8::0:1", b"port": 7654},
        {b"ip": b"2001:db8::1", b"port": 7654},
        {b"ip": b"localhost", b"port": 7654},
        {b"ip": b"\xff", b"port": 7654},
        {b"ip": b"192.0.2.2", b"port": 0},
        {b"ip": b"192.0.2.2", b"port": 1 << 16},
        {b"ip": b"192.0.2.2"},
        {b"port": 7},
    ]
    assert parse_answer(bencoded({**fields, b"peers": listed})) == Answer(1800, 600, found)


def test_port_zero_and_spelling_of_addresses() -> None:
    mapped = bytes(10) + b"\xff\xff" + V4
    raw = bencoded({b"peers": V4 + b"\0\0" + V4 + PORT, b"peers6": mapped + PORT})
    told = parse_answer(raw)
    assert isinstance(told, Answer)
    assert told.peers == (Address("192.0.2.1", 7654),)


def test_no_more_peers_are_taken_than_were_asked_for() -> None:
    peers = b"".join(V4 + port.to_bytes(2, "big") for port in range(1, 2 * MAX_PEERS))
    told = parse_answer(bencoded({b"peers": peers}))
    assert isinstance(told, Answer)
    assert len(told.peers) == MAX_PEERS


@pytest.mark.parametrize(
    ("interval", "least", "expected"),
    [
        (900, 300, (900, 300)),
        (0, 0, (MIN_INTERVAL, 0)),
        (-5, -5, (MIN_INTERVAL, 0)),
        (2**60, 2**60, (MAX_INTERVAL, MAX_INTERVAL)),
        (100, 200, (100, 100)),
        (b"soon", [], (DEFAULT_INTERVAL, 0)),
    ],
)
def test_times_are_kept_within_bounds(
    interval: Value, least: Value, expected: tuple[int, int]
) -> None:
    told = parse_answer(bencoded({b"interval": interval, b"min interval": least}))
    assert isinstance(told, Answer)
    assert (told.interval, told.min_interval) == expected


@pytest.mark.parametrize(
    "fields",
    [
        [],
        b"text",
        {b"peers": V4},
        {b"peers": 5},
        {b"peers": [V4]},
        {b"peers6": V4 + PORT},
        {b"peers6": []},
    ],
)
def test_answers_of_another_form_are_refused(fields: Value) -> None:
    with pytest.raises(ProtocolError):
        parse_answer(bencoded(fields))


def test_a_refusal_is_told_in_words_that_can_be_shown() -> None:
    told = parse_answer(bencoded({b"failure reason": b"go \x1b[1maway" + b"!" * 500}))
    assert isinstance(told, Refusal)
    assert told.reason.startswith("go \\x1b[1maway!!!")
    assert len(told.reason) < 150
    nothings: tuple[Value, ...] = (b"", [], 7)
    for nothing in nothings:
        assert parse_answer(bencoded({b"failure reason": nothing})) == Refusal("no reason given")


def test_udp_packets_are_those_of_the_protocol() -> None:
    assert tracker_udp.connect_request(7).hex() == "0000041727101980" + "00000000" + "00000007"
    packet = tracker_udp.announce_request(2**63, 7, ANNOUNCE)
    assert packet.hex() == (
        "8000000000000000"
        + "0000000100000007"
        + ANNOUNCE.info_hash.hex()
        + ANNOUNCE.peer_id.hex()
        + "0000000000000000"  # downloaded
        + "0000000000000001"  # left
        + "0000000000000000"  # uploaded
        + "00000002"  # started
        + "00000000"  # address
        + "000000ab"  # key
        + "00000032"  # peers wanted
        + "1de6"
    )


def test_udp_answers_are_read() -> None:
    connected = struct.pack(">IIQ", 0, 7, 2**63)
    assert tracker_udp.parse_connected(connected + b"more") == 2**63
    assert tracker_udp.is_answer(connected, 7)
    assert not tracker_udp.is_answer(connected, 8)
    assert not tracker_udp.is_answer(connected[:7], 7)
    head = struct.pack(">IIIII", 1, 7, 1800, 2, 3)
    assert tracker_udp.parse_announced(head + V4 + PORT, ip_size=4) == Answer(
        1800, 0, (Address("192.0.2.1", 7654),)
    )
    assert tracker_udp.parse_announced(head + V6 + PORT, ip_size=16) == Answer(
        1800, 0, (Address("2001:db8::1", 7654),)
    )
    refused = struct.pack(">II", 3, 7) + b"n\ao\n\0"
    assert tracker_udp.parse_connected(refused) == Refusal("n\\x07o")
    assert tracker_udp.parse_announced(refused, ip_size=4) == Refusal("n\\x07o")
    assert tracker_udp.parse_announced(head[:8], ip_size=4) == Refusal("no reason given")


@pytest.mark.parametrize(
    "packet",
    [
        b"",
        bytes(7),
        bytes(9),
        struct.pack(">II", 0, 7),
        struct.pack(">IIIII", 2, 7, 1800, 2, 3),
        struct.pack(">IIII", 1, 7, 1800, 2),
        struct.pack(">IIIII", 1, 7, 1800, 2, 3) + V4,
        struct.pack(">IIIII", 1, 7, 1800, 2, 3) + bytes(6 * 1000),
    ],
)
def test_udp_packets_of_another_form_are_refused(packet: bytes) -> None:
    with pytest.raises(ProtocolError):
        tracker_udp.parse_announced(packet, ip_size=4)


@pytest.mark.parametrize("tracker_id", [7, b"x" * (MAX_TRACKER_ID + 1)])
def test_a_tracker_id_that_could_not_be_sent_back_is_left_out(tracker_id: Value) -> None:
    answer = parse_answer(bencoded({b"interval": 900, b"tracker id": tracker_id}))
    assert isinstance(answer, Answer)
    assert answer.tracker_id == b""
