"""Which chunk is asked of a peer."""

from __future__ import annotations

from random import Random

import pytest

from furymesh.core.debts import Debts
from furymesh.core.geometry import Geometry
from furymesh.core.ledger import Ledger
from furymesh.core.pacing import Pace
from furymesh.core.peer_state import PeerState
from furymesh.core.picker import Picker

CHUNK = 16 * 1024
ALL = 0b1111


class Choice:
    """Four chunks, one here; peer 1 has all, peer 2 the even ones."""

    def __init__(self) -> None:
        ledger = Ledger(Geometry(4 * CHUNK, CHUNK), have=0b1000)
        self.debts = Debts(ledger)
        self.picker = Picker(ledger, self.debts, Random(0), {})
        self.one, self.two = PeerState(1, Pace(0.0)), PeerState(2, Pace(0.0))
        self.picker.peer_has(self.one, ALL)
        self.picker.peer_has(self.two, 0b0101)


@pytest.fixture
def choice() -> Choice:
    return Choice()


def test_only_news_counts(choice: Choice) -> None:
    assert choice.picker.peer_has(choice.two, 0b0111) == 0b0010
    assert choice.picker.peer_lost(choice.two, 0b1001) == 0b0001
    assert choice.two.have == 0b0110
    assert [choice.picker.availability(chunk) for chunk in range(4)] == [1, 2, 2, 1]


def test_the_rarest_comes_first_unless_the_peer_suggests_another(choice: Choice) -> None:
    assert choice.picker.pick(0.0, choice.one, ALL) == 1
    choice.one.suggested = [3, 2, 0]
    assert choice.picker.pick(0.0, choice.one, ALL) == 2, "3 is here"
    assert choice.one.suggested == [0]


def test_what_cannot_be_verified_is_not_asked_for(choice: Choice) -> None:
    assert choice.picker.pick(0.0, choice.one, 0b0100) == 2
    assert choice.picker.pick(0.0, choice.one, 0b1000) is None


@pytest.mark.parametrize(("now", "chunk"), [(0.0, None), (10.0, 0)])
def test_the_endgame_duplicates_what_is_late(choice: Choice, now: float, chunk: int | None) -> None:
    for owed in (0, 1):
        choice.debts.owe(0.0, choice.one, owed)
    assert choice.picker.pick(now, choice.two, 0b0011) is None, "2 is missing"
    choice.debts.owe(0.0, choice.one, 2)
    choice.debts.owe(0.0, choice.two, 2)
    assert choice.picker.pick(now, choice.two, ALL) == chunk
