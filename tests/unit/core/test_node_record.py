"""Where a node says that it is."""

from __future__ import annotations

import pytest

from furymesh.core.ids import NodeId
from furymesh.core.link import Address
from furymesh.core.node_record import MAX_ADDRESSES, MAX_RECORD, decode, encode

PLACES = (Address("192.0.2.7", 7654), Address("2001:db8::7", 1))


def test_a_record_both_ways() -> None:
    assert encode(PLACES) == b"1 192.0.2.7:7654 [2001:db8::7]:1"
    assert decode(encode(PLACES)) == PLACES


def test_whose_addresses_they_are_is_not_repeated_nor_an_address_twice() -> None:
    assert encode([Address("192.0.2.7", 7, NodeId(bytes(32))), Address("192.0.2.7", 7)]) == (
        b"1 192.0.2.7:7"
    )


def test_a_record_names_a_few_addresses_and_is_short_enough() -> None:
    longest = "1111:2222:3333:4444:5555:6666:7777"
    many = [Address(f"{longest}:{number:x}", 65535) for number in range(0x1000, 0x1100)]
    record = encode(many)
    assert decode(record) == tuple(many[:MAX_ADDRESSES])
    assert len(record) <= MAX_RECORD


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"1",
        b"1 ",
        b"2 192.0.2.7:7654",
        b"192.0.2.7:7654",
        b"1  192.0.2.7:7654",
        b"1 192.0.2.7:7654 ",
        b"1 192.0.2.7:7654\n",
        b"1\t192.0.2.7:7654",
        b"1 192.0.2.7:07654",
        b"1 192.0.2.7:0",
        b"1 192.0.2.7:65536",
        b"1 192.0.2.7",
        b"1 example.org:7654",
        b"1 EXAMPLE.ORG:7654",
        b"1 [2001:DB8::7]:1",
        b"1 192.0.2.7:7654 192.0.2.7:7654",
        b"1 aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa@192.0.2.7:7654",
        b"1 192.0.2.7:7654 garbage",
        b"1 192.0.2.7:7654\xff",
        b"1 " + b"192.0.2.7:7654 " * 100,
        b"1" + b"".join(b" 192.0.2.%d:1" % number for number in range(MAX_ADDRESSES + 1)),
    ],
)
def test_any_other_text_names_nothing(raw: bytes) -> None:
    assert decode(raw) == ()
