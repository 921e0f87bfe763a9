"""Who owes which chunk: how debts begin and end, and that broken books are noticed."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from furymesh.core.debts import LATE_FACTOR, LATE_GRACE, Debts
from furymesh.core.errors import IllegalStateError
from furymesh.core.geometry import Geometry
from furymesh.core.ledger import Ledger
from furymesh.core.pacing import Pace
from furymesh.core.peer_state import UNKNOWN_SECONDS, PeerState

CHUNK = 16 * 1024


class Books:
    """Four chunks and two peers: the first owes chunks 0 and 1, the second nothing."""

    def __init__(self) -> None:
        self.ledger = Ledger(Geometry(4 * CHUNK, CHUNK))
        self.debts = Debts(self.ledger)
        self.one = PeerState(1, Pace(0.0))
        self.two = PeerState(2, Pace(0.0))
        for chunk in (0, 1):
            self.debts.owe(0.0, self.one, chunk)
        self.check()

    def check(self) -> None:
        self.debts.check([self.one, self.two])


@pytest.fixture
def books() -> Books:
    return Books()


def test_a_debt_puts_a_chunk_in_flight_until_it_is_forgotten(books: Books) -> None:
    assert (books.ledger.in_flight, books.debts.senders) == (0b11, 1)
    assert books.one.owed_bytes == 2 * CHUNK
    books.debts.forget(books.one, [0, 1])
    books.check()
    assert (books.ledger.in_flight, books.debts.senders) == (0, 0)
    assert books.one.owed_bytes == 0
    assert not books.one.taken_back


def test_the_bytes_of_what_was_taken_back_may_still_come(books: Books) -> None:
    books.debts.take_back(0.5, books.one, [1])
    assert books.one.taken_back == {1: 0.5}
    assert books.ledger.in_flight == 0b01


def test_of_what_is_taken_back_from_a_mirror_nothing_comes(books: Books) -> None:
    books.one.mirror = True
    books.debts.take_back(0.5, books.one, [1])
    assert not books.one.taken_back
    assert books.ledger.in_flight == 0b01


def test_who_brings_a_chunk_frees_its_rival(books: Books) -> None:
    books.debts.owe(0.1, books.two, 0)
    assert books.debts.senders == 2
    books.two.delivered(0.2, 0, CHUNK)
    assert books.debts.brought(0.2, books.two, 0) == [books.one]
    books.check()
    assert list(books.one.owed) == [1]
    assert books.one.taken_back == {0: 0.2}
    assert books.ledger.in_flight == 0b11, "it awaits verification"
    assert books.debts.stored(0) is books.two
    books.check()
    assert books.ledger.have == 0b01


def test_a_bad_chunk_is_missing_again(books: Books) -> None:
    books.one.delivered(0.2, 0, CHUNK)
    books.debts.brought(0.2, books.one, 0)
    assert books.one.unverified == 1
    books.debts.bad(0)
    books.check()
    assert books.one.unverified == 0
    assert books.ledger.in_flight == 0b10


def test_what_a_peer_brought_before_it_left_is_not_laid_to_its_successor(books: Books) -> None:
    books.one.delivered(0.2, 0, CHUNK)
    books.debts.brought(0.2, books.one, 0)
    books.debts.left(books.one)
    books.one = PeerState(1, Pace(0.3))  # it came back under the same number
    books.check()
    assert books.ledger.in_flight == 0b01
    assert books.debts.stored(0) is None
    books.check()


def test_what_one_peer_brought_stays_laid_to_it_when_another_leaves(books: Books) -> None:
    books.debts.owe(0.1, books.two, 2)
    for peer, chunk in ((books.one, 0), (books.two, 2)):
        peer.delivered(0.2, chunk, CHUNK)
        books.debts.brought(0.2, peer, chunk)
    books.debts.left(books.one)
    books.debts.check([books.two])
    assert books.debts.stored(0) is None
    assert books.debts.stored(2) is books.two


def test_the_latest_chunk_is_the_last_in_the_queue_that_has_one_owner(books: Books) -> None:
    books.one.pace.rate = float(CHUNK)
    eta = books.one.pace.seconds_for(2 * CHUNK)
    assert books.debts.latest(0.1, 0b1111) == (eta, 1)
    assert books.debts.latest(0.1, 0b1101) == (books.one.pace.seconds_for(CHUNK), 0)
    books.debts.owe(0.1, books.two, 1)
    assert books.debts.latest(0.1, 0b1110) is None


def test_a_late_chunk_comes_never_unless_it_waits_for_us(books: Books) -> None:
    late = LATE_FACTOR * UNKNOWN_SECONDS + LATE_GRACE + 0.1
    assert books.debts.latest(late, 0b1) == (float("inf"), 0)
    books.one.hold(0.1)
    assert books.debts.latest(late, 0b1) == (UNKNOWN_SECONDS, 0)


def lost_in_the_ledger(books: Books) -> None:
    books.ledger.release(0)


def owned_twice(books: Books) -> None:
    books.debts.owners[0].append(books.one)


def owned_by_a_stranger(books: Books) -> None:
    books.debts.owners[0] = [books.two]


def one_sender_too_many(books: Books) -> None:
    books.debts.senders += 1


def bytes_unbooked(books: Books) -> None:
    books.one.owed_bytes -= 1


def owed_unknown_to_the_owners(books: Books) -> None:
    books.debts.owe(0.0, books.two, 0)
    books.debts.owners[0].remove(books.one)


def one_unverified_too_many(books: Books) -> None:
    books.two.unverified += 1


@pytest.mark.parametrize(
    "damage",
    [
        lost_in_the_ledger,
        owned_twice,
        owned_by_a_stranger,
        one_sender_too_many,
        bytes_unbooked,
        owed_unknown_to_the_owners,
        one_unverified_too_many,
    ],
)
def test_broken_books_are_noticed(books: Books, damage: Callable[[Books], None]) -> None:
    damage(books)
    with pytest.raises(IllegalStateError):
        books.check()
