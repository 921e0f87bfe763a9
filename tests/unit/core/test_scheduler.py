"""The scheduler's decisions, one situation at a time."""

from __future__ import annotations

from random import Random

import pytest

from furymesh.core.errors import IllegalStateError
from furymesh.core.geometry import Geometry
from furymesh.core.peer_state import (
    BUSY_FACTOR,
    BUSY_GRACE,
    MIN_RATE,
    STALL_SECONDS,
    UNKNOWN_SECONDS,
)
from furymesh.core.scheduler import (
    ELSEWHERE_SECONDS,
    SLOW_RATE,
    TICK,
    UNLIMITED,
    UNPROVEN_CHUNKS,
    YIELD_GAIN,
    Action,
    Cancel,
    Request,
    Scheduler,
)

CHUNK = 256 * 1024


def make(count: int, *, have: int = 0, known: int = -1, senders: int = UNLIMITED) -> Scheduler:
    geometry = Geometry(count * CHUNK, CHUNK)
    scheduler = Scheduler(geometry, Random(0), have=have, max_senders=senders)
    scheduler.verifiable = known & geometry.all_chunks
    return scheduler


def join(scheduler: Scheduler, peer: int, mask: int, now: float = 0.0) -> list[Action]:
    scheduler.peer_joined(now, peer)
    return scheduler.peer_has(now, peer, mask)


def asked(actions: list[Action], peer: int) -> list[int]:
    """The chunks that were asked of a peer."""
    return [c for a in actions if isinstance(a, Request) and a.peer == peer for c in a.chunks]


def cancelled(actions: list[Action], peer: int) -> list[int]:
    return [c for a in actions if isinstance(a, Cancel) and a.peer == peer for c in a.chunks]


def bring(scheduler: Scheduler, now: float, peer: int, chunk: int) -> list[Action]:
    actions = scheduler.data(now, peer, chunk, CHUNK)
    return actions + scheduler.stored(now, chunk)


def test_an_unknown_peer_is_asked_for_one_chunk() -> None:
    scheduler = make(10)
    assert len(asked(join(scheduler, 1, 0b11111), 1)) == 1
    scheduler.check()


def test_who_brought_nothing_good_yet_can_waste_little() -> None:
    scheduler = make(100)
    owed = asked(join(scheduler, 1, -1 & (1 << 100) - 1), 1)
    brought = 0
    while owed:  # at any rate, but no digest has been looked at yet
        brought += 1
        owed += asked(scheduler.data(brought * 1e-3, 1, owed.pop(0), CHUNK), 1)
        scheduler.check()
    assert brought == UNPROVEN_CHUNKS


def test_a_good_chunk_opens_the_window() -> None:
    scheduler = make(100)
    (chunk,) = asked(join(scheduler, 1, (1 << 100) - 1), 1)
    (second,) = asked(scheduler.data(0.1, 1, chunk, CHUNK), 1)
    assert asked(scheduler.data(0.2, 1, second, CHUNK), 1) == []
    assert asked(scheduler.stored(0.2, chunk), 1)


def test_the_rarest_chunk_goes_first() -> None:
    scheduler = make(4, have=0b1000, known=0)
    for peer, mask in enumerate([0b111, 0b110, 0b110, 0b011]):
        join(scheduler, peer, mask)
    assert asked(scheduler.verifiable_grew(0.0, 0b111), 0) in ([0], [2], [1])
    assert scheduler.availability(0) == 2


def test_only_chunks_with_known_digests_are_asked_for() -> None:
    scheduler = make(4, known=0b0010)
    assert asked(join(scheduler, 1, 0b1111), 1) == [1]
    assert bring(scheduler, 0.1, 1, 1) == []
    assert asked(scheduler.verifiable_grew(0.2, 0b1010), 1) == [3]


def test_a_suggestion_is_followed_unless_it_is_stale() -> None:
    scheduler = make(8, have=0b0000_0001)
    (first,) = asked(join(scheduler, 1, 0xFF), 1)
    free = [chunk for chunk in range(1, 8) if chunk != first]
    actions = scheduler.rejected(0.1, 1, [first], held=True, suggest=[0, 99, free[3]])
    assert asked(actions, 1) == [free[3]], "0 is here already and 99 does not exist"


def test_a_refused_chunk_is_left_alone_for_a_while_even_if_others_follow() -> None:
    scheduler = make(2)
    (first,) = asked(join(scheduler, 1, 0b11), 1)
    other = 1 - first
    assert asked(scheduler.rejected(0.0, 1, [first], held=True, suggest=[]), 1) == [other]
    assert scheduler.rejected(0.9, 1, [other], held=True, suggest=[]) == []
    actions = scheduler.tick(ELSEWHERE_SECONDS + 0.01)
    assert asked(actions, 1) == [first], "the second refusal does not renew the first"


def test_the_endgame_does_not_ask_again_what_was_just_refused() -> None:
    scheduler = make(1)
    join(scheduler, 1, 1)
    scheduler.peer_joined(0.0, 2)
    late = UNKNOWN_SECONDS * 3
    scheduler.heard(late, 1)
    assert asked(scheduler.peer_has(late, 2, 1), 2) == [0]
    assert scheduler.rejected(late, 2, [0], held=True, suggest=[]) == []
    assert scheduler.tick(late + TICK) == []


def test_a_refusal_because_it_lacks_the_chunk_is_believed() -> None:
    scheduler = make(1)
    join(scheduler, 1, 1)
    assert scheduler.rejected(0.0, 1, [0], held=False, suggest=[]) == []
    assert scheduler.availability(0) == 0
    assert asked(scheduler.peer_has(1.0, 1, 1), 1) == [0]


def test_a_late_chunk_is_duplicated_once_and_the_loser_cancelled() -> None:
    scheduler = make(1)
    join(scheduler, 1, 1)
    for peer in (2, 3):
        scheduler.peer_joined(0.0, peer)
        assert scheduler.peer_has(0.0, peer, 1) == []
    late = UNKNOWN_SECONDS * 3
    scheduler.heard(late, 1)
    actions = scheduler.tick(late)
    (rival,) = [peer for peer in (2, 3) if asked(actions, peer)]
    assert cancelled(bring(scheduler, late + 0.1, rival, 0), 1) == [0]
    assert scheduler.ledger.done
    scheduler.check()


def test_no_duplicates_while_anything_is_missing() -> None:
    scheduler = make(2)
    join(scheduler, 1, 0b01)
    join(scheduler, 2, 0b01)
    late = UNKNOWN_SECONDS * 3
    scheduler.heard(late, 1)
    assert scheduler.tick(late) == [], "chunk 1 is missing: nobody waits for chunk 0 yet"


def test_the_second_owner_stays_when_the_first_leaves() -> None:
    scheduler = make(1)
    join(scheduler, 1, 1)
    join(scheduler, 2, 1)
    late = UNKNOWN_SECONDS * 3
    scheduler.heard(late, 1)
    assert asked(scheduler.tick(late), 2) == [0]
    assert scheduler.peer_left(late, 1) == []
    assert scheduler.owes(2, 0)
    scheduler.check()
    bring(scheduler, late + 0.1, 2, 0)
    assert scheduler.ledger.done


def test_a_peer_may_leave_while_its_chunk_is_verified() -> None:
    for good in (True, False):
        scheduler = make(1)
        join(scheduler, 1, 1)
        scheduler.data(0.1, 1, 0, CHUNK)
        assert scheduler.peer_left(0.1, 1) == []
        scheduler.check()
        if good:
            scheduler.stored(0.2, 0)
        else:
            scheduler.bad(0.2, 0)
        scheduler.check()
        assert scheduler.ledger.done == good


def test_a_bad_chunk_is_fetched_elsewhere() -> None:
    scheduler = make(1)
    join(scheduler, 1, 1)
    join(scheduler, 2, 1)
    scheduler.data(0.1, 1, 0, CHUNK)
    actions = scheduler.bad(0.2, 0)
    assert asked(actions, 1) + asked(actions, 2) == [0]


def test_a_silent_peer_loses_its_chunks_and_is_tried_again_when_it_speaks() -> None:
    scheduler = make(3)
    (first,) = asked(join(scheduler, 1, 0b111), 1)
    join(scheduler, 2, 1 << first)
    actions = scheduler.tick(STALL_SECONDS + 0.1)
    assert cancelled(actions, 1) == [first]
    assert not asked(actions, 1)
    assert asked(actions, 2) == [first]
    assert scheduler.owed(1) == CHUNK, "bytes of it may still come, so the peer is pinged"
    # The answer to a ping from before: the old chunk's bytes may be behind it.
    (probe,) = asked(scheduler.heard(60.0, 1, 59.0), 1)
    assert probe != first
    assert len(asked(bring(scheduler, 60.1, 1, probe), 1)) == 1


def test_a_chunk_taken_back_is_asked_again_after_a_round_trip() -> None:
    scheduler = make(1)
    join(scheduler, 1, 1)
    join(scheduler, 2, 1)
    scheduler.tick(STALL_SECONDS + 0.1)
    scheduler.peer_left(STALL_SECONDS + 0.2, 2)
    assert scheduler.heard(10.0, 1, 9.0) == [], "this round trip began before"
    assert asked(scheduler.heard(10.5, 1, 0.5), 1) == [0]


def test_any_word_wakes_a_stalled_peer() -> None:
    scheduler = make(3)
    join(scheduler, 1, 0b001)
    join(scheduler, 2, 0b001)
    scheduler.tick(STALL_SECONDS + 0.1)
    assert asked(scheduler.peer_has(10.0, 1, 0b010), 1) == [1]


def test_what_only_a_silent_peer_has_is_waited_for() -> None:
    scheduler = make(2)
    join(scheduler, 1, 0b01)
    assert scheduler.tick(30.0) == []
    scheduler.check()
    assert asked(scheduler.peer_has(30.1, 1, 0b10), 1) == [], "first what it owes"
    assert scheduler.tick(30.2) == [], "the cut is not held against it"
    assert asked(bring(scheduler, 30.3, 1, 0), 1) == [1]


def test_a_peer_that_comes_later_takes_over_what_a_silent_one_owes() -> None:
    scheduler = make(1)
    join(scheduler, 1, 1)
    assert scheduler.tick(STALL_SECONDS + 0.1) == []
    join(scheduler, 2, 1, STALL_SECONDS + 0.2)
    actions = scheduler.tick(STALL_SECONDS + 0.3)
    assert cancelled(actions, 1) == [0]
    assert scheduler.owes(2, 0)


def test_when_all_fall_silent_nothing_is_taken_back() -> None:
    scheduler = make(8)
    for peer in (1, 2):
        (chunk,) = asked(join(scheduler, peer, 2**8 - 1), peer)
        scheduler.data(0.2 * peer, peer, chunk, 100)
    now = 0.5
    while now < 30.0:
        now += 0.1
        assert [action for action in scheduler.tick(now) if cancelled([action], action.peer)] == []
    scheduler.check()


def test_a_peer_that_lives_but_never_delivers_loses_its_chunk() -> None:
    scheduler = make(2)
    (first,) = asked(join(scheduler, 1, 0b01), 1)
    end = BUSY_FACTOR * UNKNOWN_SECONDS + BUSY_GRACE + 1
    now, actions = 0.0, list[Action]()
    while now < end:
        now += 0.5
        scheduler.heard(now, 1, 0.01)
        actions += scheduler.tick(now)
    assert cancelled(actions, 1) == [first]


def test_a_pause_takes_everything_back() -> None:
    scheduler = make(2)
    join(scheduler, 1, 0b01)
    join(scheduler, 2, 0b10)
    actions = scheduler.pause()
    assert cancelled(actions, 1) == [0]
    assert cancelled(actions, 2) == [1]
    assert scheduler.tick(0.5) == []
    scheduler.heard(0.6, 1, 0.1)
    assert asked(scheduler.proceed(1.0), 1) == [0]


def test_a_lost_chunk_is_fetched_again() -> None:
    scheduler = make(1, have=1)
    join(scheduler, 1, 1)
    assert scheduler.ledger.done
    assert asked(scheduler.lost(1.0, 0b1), 1) == [0]


def test_what_a_peer_lost_is_asked_of_another() -> None:
    scheduler = make(1)
    join(scheduler, 1, 1)
    join(scheduler, 2, 1)
    assert asked(scheduler.peer_lost(0.1, 1, 1), 2) == [0]
    assert scheduler.availability(0) == 1


def test_joining_twice_is_a_bug() -> None:
    scheduler = make(1)
    scheduler.peer_joined(0.0, 1)
    with pytest.raises(IllegalStateError):
        scheduler.peer_joined(0.0, 1)


def test_only_as_many_peers_send_as_there_is_room_for() -> None:
    scheduler = make(20, senders=2)
    for peer in range(4):
        join(scheduler, peer, scheduler.ledger.missing)
    owing = [peer for peer in range(4) if scheduler.owed(peer)]
    assert owing == [0, 1]
    actions = scheduler.peer_left(0.1, 0)
    assert len([peer for peer in (2, 3) if asked(actions, peer)]) == 1
    scheduler.check()


def rated(scheduler: Scheduler, now: float, peer: int, rate: float) -> None:
    """Bytes of the chunk that a peer owes arrive at a rate (bytes/s), until it is measured."""
    (chunk,) = [c for c in range(20) if scheduler.owes(peer, c)][:1]
    scheduler.data(now + 1.0, peer, chunk, int(rate))


def test_a_slow_peer_makes_way_for_one_that_was_never_tried() -> None:
    scheduler = make(20, senders=1)
    join(scheduler, 1, 2**20 - 1)
    rated(scheduler, 0.0, 1, 4 * MIN_RATE)
    join(scheduler, 2, 2**20 - 1, 1.0)
    assert scheduler.tick(1.1) == [], "it may yet end what it began"
    actions = scheduler.tick(BUSY_GRACE + 0.1)  # silent by now, too
    assert len(cancelled(actions, 1)) == 1
    assert len(asked(actions, 2)) == 1
    scheduler.check()


def slow_and_waited_for() -> tuple[Scheduler, int, float]:
    """Peer 1 owes a chunk, which is returned, and sends it slowly; peer 2 waits; the time."""
    scheduler = make(20, senders=1)
    (chunk,) = asked(join(scheduler, 1, 2**20 - 1), 1)
    join(scheduler, 2, 2**20 - 1)
    now = 0.0
    while now < BUSY_GRACE:
        now += 0.5
        scheduler.data(now, 1, chunk, 2 * MIN_RATE)
        assert scheduler.tick(now) == [], "it may yet end what it began"
    return scheduler, chunk, now


def test_a_slow_peer_that_keeps_sending_makes_way_in_the_middle_of_a_chunk() -> None:
    scheduler, chunk, now = slow_and_waited_for()
    assert 4 * MIN_RATE < SLOW_RATE
    actions = scheduler.tick(now + TICK)
    assert cancelled(actions, 1) == [chunk]
    assert len(asked(actions, 2)) == 1
    scheduler.check()


def test_a_slow_peer_does_not_make_way_while_it_waits_for_our_room() -> None:
    scheduler, chunk, now = slow_and_waited_for()
    scheduler.held_up(now, 1)
    assert scheduler.tick(now + TICK) == []
    assert scheduler.owes(1, chunk)


def test_a_slow_peer_does_not_make_way_where_our_own_limit_sets_the_rate() -> None:
    scheduler, chunk, now = slow_and_waited_for()
    scheduler.limited = True
    assert scheduler.tick(now + TICK) == []
    assert scheduler.owes(1, chunk)


@pytest.mark.parametrize(("gain", "keeps"), [(0.9, True), (1.1, False)])
def test_the_only_place_to_send_goes_to_a_peer_that_is_far_better(gain: float, keeps: bool) -> None:
    scheduler = make(20)
    (old,) = asked(join(scheduler, 1, 2**20 - 1), 1)
    (new,) = asked(join(scheduler, 2, 1 << 19), 2)
    scheduler.heard(0.0, 1, 0.001)  # so near that it is asked for one chunk at a time
    part = int(CHUNK / YIELD_GAIN / gain)
    scheduler.data(1.0, 1, old, part)
    scheduler.data(1.0, 2, new, CHUNK)
    scheduler.max_senders = 1
    scheduler.bad(1.0, new)
    assert scheduler.tick(1.1) == []
    actions = scheduler.data(CHUNK / part, 1, old, CHUNK - part)
    assert len(asked(actions, 1)) == keeps
    assert asked(actions, 2) == ([] if keeps else [new])


def test_a_peer_that_is_fast_enough_ends_its_chunk_before_it_makes_way() -> None:
    scheduler = make(20, senders=1)
    (first,) = asked(join(scheduler, 1, 2**20 - 1), 1)
    scheduler.data(1.0, 1, first, CHUNK - 100)
    join(scheduler, 2, 2**20 - 1, 1.0)
    assert cancelled(scheduler.tick(1.1), 1) == []
    owed = [chunk for chunk in range(20) if scheduler.owes(1, chunk)]
    for chunk in owed:
        missing = 100 if chunk == first else CHUNK
        actions = scheduler.data(1.2, 1, chunk, missing)
        assert asked(actions, 1) == []
    assert asked(actions, 2) != []
    assert CHUNK - 100 > SLOW_RATE


def test_a_trickle_is_given_up_and_the_peer_rests() -> None:
    scheduler = make(3)
    (first,) = asked(join(scheduler, 1, 0b111), 1)
    now, actions = 0.0, list[Action]()
    while not actions:
        now += 0.8
        assert now < BUSY_GRACE + 3
        scheduler.data(now, 1, first, 1)
        actions = scheduler.tick(now)
    assert cancelled(actions, 1) == [first]
    assert asked(scheduler.heard(now + 1, 1, 0.1), 1) == []
    assert len(asked(scheduler.heard(now + BUSY_GRACE, 1, 0.1), 1)) == 1


def test_a_trickle_of_other_bytes_does_not_buy_patience() -> None:
    scheduler = make(1)
    join(scheduler, 1, 1)
    now, actions = 0.0, list[Action]()
    while not actions:
        now += 0.5
        assert now < BUSY_FACTOR * UNKNOWN_SECONDS + BUSY_GRACE + 1
        scheduler.stirred(now, 1)
        actions = scheduler.tick(now)


def test_bytes_in_the_middle_of_a_piece_show_that_a_thin_link_lives() -> None:
    scheduler = make(1)
    join(scheduler, 1, 1)
    for tenths in range(60):
        scheduler.stirred(tenths / 10, 1)
        assert scheduler.tick(tenths / 10) == []


def test_silence_while_we_have_no_room_is_not_the_peers() -> None:
    scheduler = make(1)
    join(scheduler, 1, 1)
    join(scheduler, 2, 1)
    scheduler.held_up(0.5, 1)
    assert scheduler.tick(500.0) == []
    scheduler.let_go(500.0, 1)
    assert scheduler.tick(500.5) == []
    assert cancelled(scheduler.tick(500.5 + STALL_SECONDS), 1) == [0]
