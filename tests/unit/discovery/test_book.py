from __future__ import annotations

from random import Random

import pytest

from furymesh.core.errors import UnavailableError
from furymesh.core.ids import FileId, NodeId
from furymesh.core.link import Address
from furymesh.discovery.book import (
    DROPPED_SECONDS,
    GIVE_UP,
    HEARSAY_SECONDS,
    MAX_ADDRESSES,
    MAX_BACKOFF_HEARD,
    MAX_BACKOFF_NAMED,
    MAX_BACKOFF_NEEDED,
    MAX_HEARD,
    MAX_HEARD_DIALS,
    MAX_OF_SOURCE,
    MAX_TOLD,
    Candidate,
    PeerBook,
    Source,
)
from furymesh.net.secure_link import SecureLink

SHARE = FileId(bytes(32))
OTHER = FileId(b"\1" * 32)
PROCESS = (NodeId(b"n" * 32), b"instance")


@pytest.fixture
def book() -> PeerBook:
    return PeerBook(Random(1))


def address(number: int, node_id: NodeId | None = None) -> Address:
    return Address(f"192.0.2.{number % 256}", 1000 + number, node_id)


def only(book: PeerBook) -> Candidate:
    (candidate,) = book.candidates(SHARE)
    return candidate


def test_most_trusted_comes_first(book: PeerBook) -> None:
    for number, source in enumerate(reversed(Source)):
        book.add(SHARE, address(number), source)
    order = []
    while (candidate := book.due(SHARE, 0.0)) is not None:
        candidate.busy = True
        order.append(candidate.source)
    assert order == sorted(Source)


def test_shares_do_not_mix(book: PeerBook) -> None:
    book.add(SHARE, address(1), Source.USER)
    assert book.due(OTHER, 0.0) is None
    book.forget(SHARE)
    assert book.due(SHARE, 0.0) is None


def test_better_source_wins_with_its_identity(book: PeerBook) -> None:
    pinned = address(1, NodeId(b"n" * 32))
    book.add(SHARE, address(1), Source.EXCHANGE)
    book.add(SHARE, pinned, Source.USER)
    book.add(SHARE, address(1), Source.LINK)
    assert only(book).address == pinned
    assert only(book).source is Source.USER


async def elsewhere() -> SecureLink:
    raise UnavailableError("not at the relay")


def told_by_relay(book: PeerBook) -> None:
    book.add(SHARE, address(1, PROCESS[0]), Source.RELAY, process=PROCESS, via=elsewhere)


def test_hearsay_of_another_way_does_not_keep_from_dialling_who_was_named(book: PeerBook) -> None:
    book.add(SHARE, address(1), Source.USER)
    told_by_relay(book)
    candidate = only(book)
    ways = []
    for _ in range(4):
        ways.append(candidate.other_way())
        book.failed(SHARE, candidate, 0.0, "refused")
    assert ways == [None, elsewhere, None, elsewhere]


def test_who_is_named_with_an_id_is_not_looked_for_where_somebody_else_is(book: PeerBook) -> None:
    pinned = address(1, NodeId(b"y" * 32))
    told_by_relay(book)
    assert only(book).other_way() is elsewhere
    book.add(SHARE, pinned, Source.USER)
    told_by_relay(book)
    assert only(book).address == pinned
    assert only(book).via is None


@pytest.mark.parametrize("source", [Source.USER, Source.RESUME])
@pytest.mark.parametrize(
    ("helped", "ceiling"), [(False, MAX_BACKOFF_NEEDED), (True, MAX_BACKOFF_NAMED)]
)
def test_named_addresses_are_tried_for_ever_ever_more_rarely(
    book: PeerBook, source: Source, helped: bool, ceiling: float
) -> None:
    book.add(SHARE, address(1), source)
    now, waits = 0.0, []
    for _ in range(20):
        candidate = book.due(SHARE, now, helped=helped)
        assert candidate is not None
        candidate.busy = True
        book.failed(SHARE, candidate, now, "refused")
        assert book.due(SHARE, now, helped=helped) is None
        waits.append(candidate.due_at(helped) - now)
        now = candidate.due_at(helped)
    assert waits[0] < 1
    assert waits[3] > waits[0]
    assert ceiling / 2 < max(waits) <= ceiling
    assert len(set(waits[10:])) > 5, "all who lost a peer at once would come back at once"
    assert only(book).outcome == "refused"


def test_a_named_address_that_waits_is_due_as_soon_as_nobody_else_helps(book: PeerBook) -> None:
    book.add(SHARE, address(1), Source.USER)
    for _ in range(10):
        book.failed(SHARE, only(book), 0.0, "refused")
    assert book.due(SHARE, MAX_BACKOFF_NEEDED, helped=True) is None
    assert book.due(SHARE, MAX_BACKOFF_NEEDED, helped=False) is only(book)


def test_an_address_may_fail_for_days(book: PeerBook) -> None:
    book.add(SHARE, address(1), Source.USER)
    for _ in range(20_000):
        book.failed(SHARE, only(book), 0.0, "refused")
    assert 0.0 < only(book).due_at(helped=True) <= MAX_BACKOFF_NAMED


def test_who_watches_a_share_is_told_of_its_new_addresses(book: PeerBook) -> None:
    told: list[int] = []
    book.watch(SHARE, lambda: told.append(1))
    book.add(SHARE, address(1), Source.EXCHANGE)
    book.add(SHARE, address(1), Source.USER)  # known: nobody new to dial
    book.add(OTHER, address(2), Source.USER)
    assert len(told) == 1
    book.watch(SHARE, None)
    book.add(SHARE, address(3), Source.USER)
    assert len(told) == 1


def test_hearsay_is_given_up(book: PeerBook) -> None:
    book.add(SHARE, address(1), Source.EXCHANGE)
    now = 0.0
    for _ in range(GIVE_UP):
        candidate = book.due(SHARE, now)
        assert candidate is not None
        book.failed(SHARE, candidate, now, "refused")
        now += 2 * MAX_BACKOFF_HEARD
    assert book.candidates(SHARE) == []


def test_only_help_clears_the_past(book: PeerBook) -> None:
    """Who connects only to break the rules again must wait ever longer."""
    book.add(SHARE, address(1), Source.USER)
    candidate = only(book)
    for _ in range(5):
        book.connected(candidate, PROCESS)
        book.failed(SHARE, candidate, 0.0, "broke a rule")
    assert candidate.not_before > 2.0
    book.helped(candidate)
    book.failed(SHARE, candidate, 0.0, "gone")
    assert candidate.not_before < 1.0


def test_busy_addresses_are_not_due(book: PeerBook) -> None:
    book.add(SHARE, address(1), Source.USER)
    only(book).busy = True
    assert book.due(SHARE, 0.0) is None


def test_hearsay_makes_room_and_never_pushes_out_names(book: PeerBook) -> None:
    book.add(SHARE, address(0), Source.EXCHANGE)
    for number in range(1, MAX_ADDRESSES):
        book.add(SHARE, address(number), Source.USER)
    book.add(SHARE, address(MAX_ADDRESSES), Source.EXCHANGE)
    assert len(book.candidates(SHARE)) == MAX_ADDRESSES
    assert sum(candidate.source is Source.EXCHANGE for candidate in book.candidates(SHARE)) == 1
    book.add(SHARE, address(MAX_ADDRESSES + 1), Source.USER)
    book.add(SHARE, address(MAX_ADDRESSES + 2), Source.EXCHANGE)
    assert len(book.candidates(SHARE)) == MAX_ADDRESSES
    assert all(candidate.source is Source.USER for candidate in book.candidates(SHARE))


def test_dropped_address_stays_away_until_named_again(book: PeerBook) -> None:
    book.add(SHARE, address(1), Source.USER)
    book.drop(SHARE, only(book))
    assert book.candidates(SHARE) == []
    book.drop(OTHER, Candidate(address(1), Source.USER))


def test_one_teller_is_believed_so_many_addresses(book: PeerBook) -> None:
    for number in range(2 * MAX_TOLD):
        book.add(SHARE, address(number), Source.EXCHANGE, teller="liar")
    assert len(book.candidates(SHARE)) == MAX_TOLD
    for candidate in book.candidates(SHARE):
        book.drop(SHARE, candidate)
    book.add(SHARE, address(5000), Source.EXCHANGE, teller="liar")
    book.add(SHARE, address(5001), Source.EXCHANGE, teller="honest")
    assert only(book).address == address(5001)


def test_who_told_much_may_tell_more_when_that_is_forgotten(book: PeerBook) -> None:
    for number in range(MAX_TOLD):
        book.add(SHARE, address(number), Source.RELAY, teller="relay")
    for candidate in book.candidates(SHARE)[: MAX_TOLD // 2]:
        book.drop(SHARE, candidate)

    def more(first: int) -> int:
        known = len(book.candidates(SHARE))
        for number in range(first, first + MAX_TOLD):
            book.add(SHARE, address(number), Source.RELAY, teller="relay")
        return len(book.candidates(SHARE)) - known

    assert more(1000) == 0
    book.due(SHARE, DROPPED_SECONDS)
    assert more(2000) == MAX_TOLD // 2
    book.due(SHARE, 2 * HEARSAY_SECONDS)
    book.due(SHARE, 4 * HEARSAY_SECONDS)
    assert book.candidates(SHARE) == []
    assert more(3000) == MAX_TOLD


def test_who_told_of_what_makes_room_may_tell_of_another(book: PeerBook) -> None:
    for number in range(MAX_OF_SOURCE):
        book.add(SHARE, address(number), Source.RELAY, teller=str(number // MAX_TOLD))
    book.add(SHARE, address(1000), Source.RELAY, teller="third")
    assert len(book.candidates(SHARE)) == MAX_OF_SOURCE
    book.failed(SHARE, book.candidates(SHARE)[0], 0.0, "refused")
    book.add(SHARE, address(1000), Source.RELAY, teller="third")
    book.failed(SHARE, book.candidates(SHARE)[0], 0.0, "refused")
    book.add(SHARE, address(1001), Source.RELAY, teller="0")
    assert address(1001) in [candidate.address for candidate in book.candidates(SHARE)]


def test_dropped_hearsay_is_not_believed_again(book: PeerBook) -> None:
    book.add(SHARE, address(1), Source.EXCHANGE)
    book.drop(SHARE, only(book))
    book.add(SHARE, address(1), Source.EXCHANGE)
    assert book.candidates(SHARE) == []
    book.add(SHARE, address(1), Source.USER)
    assert only(book).source is Source.USER
    book.drop(SHARE, only(book))
    assert book.due(SHARE, DROPPED_SECONDS) is None
    book.add(SHARE, address(1), Source.EXCHANGE)
    assert only(book).source is Source.EXCHANGE


def test_hearsay_pushes_out_only_hearsay_that_failed(book: PeerBook) -> None:
    for number in range(MAX_ADDRESSES):
        book.add(SHARE, address(number), Source.EXCHANGE)
    book.add(SHARE, address(7000), Source.EXCHANGE)
    assert address(7000) not in [candidate.address for candidate in book.candidates(SHARE)]
    book.failed(SHARE, book.candidates(SHARE)[9], 0.0, "refused")
    book.add(SHARE, address(7000), Source.EXCHANGE)
    known = [candidate.address for candidate in book.candidates(SHARE)]
    assert address(7000) in known
    assert address(9) not in known


def test_hearsay_leaves_places_for_a_named_address_that_waits(book: PeerBook) -> None:
    for number in range(20):
        book.add(SHARE, address(number), Source.EXCHANGE)
    book.add(SHARE, address(99), Source.USER)
    named = book.due(SHARE, 0.0)
    assert named is not None
    book.failed(SHARE, named, 0.0, "refused")

    def dial() -> list[Candidate]:
        dialled = []
        while (candidate := book.due(SHARE, 0.0)) is not None:
            candidate.busy = True
            dialled.append(candidate)
        return dialled

    for expected in (MAX_HEARD_DIALS, MAX_HEARD_DIALS, MAX_HEARD - 2 * MAX_HEARD_DIALS):
        dialled = dial()
        assert len(dialled) == expected
        for candidate in dialled:
            book.connected(candidate, PROCESS)
    named.busy = True
    assert len(dial()) == 20 - MAX_HEARD


def test_hearsay_that_is_not_heard_again_is_forgotten(book: PeerBook) -> None:
    book.add(SHARE, address(1), Source.USER)
    for number, source in enumerate((Source.LAN, Source.DHT), 2):
        book.add(SHARE, address(number), source)
    book.due(SHARE, 1000.0)
    book.due(SHARE, 1000.0 + HEARSAY_SECONDS)
    assert len(book.candidates(SHARE)) == 3
    book.add(SHARE, address(2), Source.LAN)
    book.due(SHARE, 1001.0 + HEARSAY_SECONDS)
    assert {candidate.source for candidate in book.candidates(SHARE)} == {Source.USER, Source.LAN}
    book.due(SHARE, 1002.0 + 2 * HEARSAY_SECONDS)
    assert only(book).source is Source.USER


def test_who_is_linked_is_not_forgotten(book: PeerBook) -> None:
    book.add(SHARE, address(1), Source.LAN)
    book.due(SHARE, 0.0)
    only(book).busy = True
    book.due(SHARE, 10 * HEARSAY_SECONDS)
    assert only(book).source is Source.LAN


def test_what_failed_makes_room_for_others_of_its_source(book: PeerBook) -> None:
    for number in range(MAX_OF_SOURCE):
        book.add(SHARE, address(number), Source.LAN)
    book.add(SHARE, Address("198.51.100.1", 1), Source.LAN)
    assert len(book.candidates(SHARE)) == MAX_OF_SOURCE
    candidate = book.candidates(SHARE)[7]
    book.failed(SHARE, candidate, 0.0, "refused")
    book.add(SHARE, Address("198.51.100.1", 1), Source.LAN)
    assert candidate not in book.candidates(SHARE)
    assert len(book.candidates(SHARE)) == MAX_OF_SOURCE


def test_a_claim_keeps_no_named_address_from_being_dialled() -> None:
    book = PeerBook(Random(1), linked={PROCESS})
    book.add(SHARE, address(1), Source.USER)
    book.add(SHARE, address(1), Source.LAN, process=PROCESS)
    assert book.due(SHARE, 0.0) is not None
