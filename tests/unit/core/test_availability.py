import pytest

from furymesh.core.availability import Availability
from furymesh.core.errors import IllegalStateError


def test_counts_come_and_go() -> None:
    availability = Availability()
    availability.add(0b0111)
    availability.add(0b0110)
    availability.add(0b0100)
    assert [availability.count(chunk) for chunk in range(4)] == [1, 2, 3, 0]
    assert availability.rarest(0b0111) == 0b0001
    assert availability.rarest(0b0110) == 0b0010
    assert availability.rarest(0b1111) == 0b1000
    availability.remove(0b0110)
    assert [availability.count(chunk) for chunk in range(4)] == [1, 1, 2, 0]
    assert availability.rarest(0b0111) == 0b0011


def test_what_anybody_holds() -> None:
    availability = Availability()
    assert availability.held == 0
    for mask in (0b0111, 0b0100, 0b100100):
        availability.add(mask)
    assert availability.held == 0b100111
    availability.remove(0b0100)
    availability.remove(0b0111)
    assert availability.held == 0b100100


def test_nothing_is_rarest_of_nothing() -> None:
    assert Availability().rarest(0) == 0
    assert Availability().rarest(0b101) == 0b101


def test_a_million_chunks_of_many_peers() -> None:
    availability = Availability()
    everything = (1 << 1_000_000) - 1
    for _ in range(200):
        availability.add(everything)
    availability.add(everything ^ 1 << 77)
    assert availability.rarest(everything) == 1 << 77
    assert availability.count(999_999) == 201


def test_a_chunk_of_many_holders_loses_one() -> None:
    availability = Availability()
    for _ in range(5):
        availability.add(0b11)
    availability.remove(0b01)
    assert [availability.count(chunk) for chunk in range(2)] == [4, 5]
    availability.remove(0b01)
    assert [availability.count(chunk) for chunk in range(2)] == [3, 5]
    assert availability.rarest(0b11) == 0b01


def test_what_nobody_holds_cannot_be_lost_and_the_counts_stay() -> None:
    availability = Availability()
    availability.add(0b011)
    for lost in (0b100, 0b111):
        with pytest.raises(IllegalStateError, match="below zero"):
            availability.remove(lost)
    assert [availability.count(chunk) for chunk in range(3)] == [1, 1, 0]
