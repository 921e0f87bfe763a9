"""When a tracker is told of what; no clock and no socket takes part."""

from __future__ import annotations

import math
from random import Random

import pytest

from furymesh.core.ids import DiscoveryTag
from furymesh.core.link import Address
from furymesh.discovery.announcing import (
    FIRST_BACKOFF,
    HUNGRY_SECONDS,
    JITTER,
    MAX_BACKOFF,
    REFUSED_BACKOFF,
    Schedule,
    Turn,
)
from furymesh.wire.tracker import Answer, Event, Refusal

ONE, TWO = DiscoveryTag(b"1" * 32), DiscoveryTag(b"2" * 32)
CROWD = tuple(Address("192.0.2.1", port) for port in (1, 2, 3))
ANSWER = Answer(1800, 900, CROWD)
ALONE = Answer(1800, 0, CROWD[:1])


def schedule() -> Schedule:
    return Schedule(Random(1))


def nobody(tag: DiscoveryTag) -> bool:
    return False


def somebody(tag: DiscoveryTag) -> bool:
    return True


def take(at: Schedule, now: float, answer: Answer | Refusal | None = ANSWER) -> Turn:
    """The turn that is due, answered so; None for a failure."""
    turn = at.next(now, nobody)
    assert turn is not None
    if answer is None:
        at.failed(turn, now)
    else:
        at.answered(turn, answer, now)
    return turn


def within(seconds: float, pause: float) -> bool:
    return pause <= seconds <= pause * (1 + JITTER)


def test_nothing_is_due_of_nothing() -> None:
    empty = schedule()
    assert empty.wake == math.inf
    assert empty.next(0, nobody) is None
    assert empty.farewells() == []


def test_a_share_is_started_told_of_at_each_interval_and_stopped() -> None:
    told = schedule()
    told.follow([ONE], [], 10)
    assert take(told, 10) == Turn(ONE, Event.STARTED, False, b"")
    assert within(told.wake - 10, 1800)
    assert told.next(told.wake - 1, nobody) is None
    assert take(told, told.wake).event is Event.NONE
    told.follow([], [], 20)
    assert take(told, 20) == Turn(ONE, Event.STOPPED, False, b"")
    assert told.wake == math.inf


def test_what_is_wanted_goes_first_and_what_waits_longest_then() -> None:
    told = schedule()
    told.follow([ONE], [], 0)
    told.follow([ONE, TWO], [TWO], 1)
    assert take(told, 1).tag == TWO
    assert take(told, 1).tag == ONE
    assert told.next(1, nobody) is None


def test_completion_is_told_at_once_and_once() -> None:
    told = schedule()
    told.follow([ONE], [ONE], 0)
    assert take(told, 0) == Turn(ONE, Event.STARTED, True, b"")
    told.follow([ONE], [], 5)
    assert take(told, 5) == Turn(ONE, Event.COMPLETED, False, b"")
    assert take(told, told.wake).event is Event.NONE


def test_what_was_told_is_told_again_at_once_when_it_is_to_be_renewed() -> None:
    told = schedule()
    told.follow([ONE], [], 0)
    told.renew(0)
    assert take(told, 0) == Turn(ONE, Event.STARTED, False, b"")
    assert told.next(1, nobody) is None
    told.renew(1)
    assert take(told, 1) == Turn(ONE, Event.NONE, False, b"")
    assert within(told.wake - 1, 1800)


def test_completion_is_told_before_the_end() -> None:
    told = schedule()
    told.follow([ONE], [ONE], 0)
    take(told, 0)
    told.follow([ONE], [], 5)
    told.follow([], [], 5)
    last_words = [Turn(ONE, event, False, b"") for event in (Event.COMPLETED, Event.STOPPED)]
    assert told.farewells() == last_words
    assert [take(told, 5), take(told, 6)] == last_words
    assert told.over


def test_completion_of_what_came_back_is_told_once() -> None:
    told = schedule()
    told.follow([ONE], [ONE], 0)
    take(told, 0)
    told.follow([ONE], [], 5)
    told.follow([], [], 5)
    told.follow([ONE], [], 6)
    assert take(told, 6) == Turn(ONE, Event.COMPLETED, False, b"")
    told.follow([ONE], [], 7)
    assert take(told, told.wake).event is Event.NONE


@pytest.mark.parametrize("answer", [None, Refusal("no")])
def test_a_completion_that_nobody_wants_to_hear_is_not_told_again(answer: Refusal | None) -> None:
    told = schedule()
    told.follow([ONE], [ONE], 0)
    take(told, 0)
    told.follow([ONE], [], 5)
    told.follow([], [], 5)
    assert take(told, 5, answer).event is Event.COMPLETED
    assert told.over


def test_who_never_heard_of_it_is_not_told_that_it_is_over() -> None:
    told = schedule()
    told.follow([ONE], [ONE], 0)
    take(told, 0, None)
    assert told.farewells() == []
    told.follow([ONE], [], 1)
    assert take(told, told.wake).event is Event.STARTED
    told = schedule()
    told.follow([ONE], [ONE], 0)
    told.follow([], [], 1)
    assert told.wake == math.inf


def test_a_share_that_comes_back_before_its_end_was_told_is_started_again() -> None:
    told = schedule()
    told.follow([ONE], [], 0)
    take(told, 0)
    told.follow([], [], 1)
    told.follow([ONE], [], 2)
    assert take(told, 2).event is Event.STARTED


def test_an_unanswered_tracker_is_left_alone_longer_and_longer() -> None:
    told, now, waits = schedule(), 0.0, []
    told.follow([ONE, TWO], [], now)
    for _ in range(12):
        turn = take(told, now, None)
        assert turn.event is Event.STARTED
        waits.append(told.wake - now)
        now = told.wake
    assert 0.7 * FIRST_BACKOFF < waits[0] < 1.3 * FIRST_BACKOFF
    assert waits[3] > 3 * waits[0]
    assert 0.7 * MAX_BACKOFF < waits[-1] < 1.3 * MAX_BACKOFF
    take(told, now)
    assert told.next(now, nobody) is not None


def test_a_share_that_becomes_wanted_ends_the_wait() -> None:
    told = schedule()
    told.follow([ONE], [], 0)
    take(told, 0, None)
    assert told.next(1, nobody) is None
    told.follow([ONE, TWO], [TWO], 1)
    assert take(told, 1, None).tag == TWO
    assert told.next(2, nobody) is None
    told.follow([ONE, TWO], [ONE, TWO], 2)
    assert told.next(2, nobody) is not None


def test_a_share_that_becomes_wanted_again_is_looked_for_at_once() -> None:
    told = schedule()
    told.follow([ONE], [], 0)
    take(told, 0)
    told.follow([ONE], [ONE], 1)
    assert take(told, 1) == Turn(ONE, Event.NONE, True, b"")


def test_a_refused_share_waits_and_holds_up_no_other() -> None:
    told = schedule()
    told.follow([ONE, TWO], [ONE], 0)
    assert take(told, 0, Refusal("not here")).tag == ONE
    assert take(told, 0).tag == TWO
    first = told.wake
    assert within(first, REFUSED_BACKOFF)
    assert take(told, first, Refusal("still not")) == Turn(ONE, Event.STARTED, True, b"")
    assert within(told.wake - first, 2 * REFUSED_BACKOFF)
    assert [turn.tag for turn in told.farewells()] == [TWO]


@pytest.mark.parametrize("answer", [ALONE, Answer(1800, 0, CROWD)])
def test_who_is_led_to_nobody_asks_again_sooner_and_then_at_the_interval(answer: Answer) -> None:
    told = schedule()
    told.follow([ONE], [ONE], 0)
    now, waits = 0.0, []
    for _ in range(8):
        take(told, now, answer)
        waits.append(told.wake - now)
        now = told.wake
    assert within(waits[0], HUNGRY_SECONDS)
    assert within(waits[1], 2 * HUNGRY_SECONDS)
    assert all(within(wait, 1800) for wait in waits[-2:])


def test_who_has_a_link_asks_at_the_interval_and_sooner_once_it_is_lost() -> None:
    told = schedule()
    told.follow([ONE], [ONE], 0)
    for _ in range(3):  # the third question that found nobody
        take(told, told.wake, ALONE)
    asked = told.wake
    take(told, asked, Answer(1800, 0, CROWD))
    while told.next(now := told.wake, somebody) is None:
        assert told.wake > now
    assert within(now - asked, 1800)

    take(told, now, Answer(1800, 0, CROWD))
    assert told.next(told.wake, somebody) is None
    lost = told.wake
    assert lost - now <= 2 * HUNGRY_SECONDS * (1 + JITTER)
    take(told, lost, ALONE)
    assert within(told.wake - lost, HUNGRY_SECONDS)


def test_the_least_interval_is_kept_by_who_finds_nobody() -> None:
    told = schedule()
    told.follow([ONE], [ONE], 0)
    take(told, 0, Answer(1800, 900, ()))
    assert within(told.wake, 900)


def test_who_lacks_nothing_is_content_with_nobody() -> None:
    told = schedule()
    told.follow([ONE], [], 0)
    take(told, 0, ALONE)
    assert within(told.wake, 1800)


def test_a_tracker_is_given_its_id_again() -> None:
    told = schedule()
    told.follow([ONE], [], 0)
    take(told, 0, Answer(1800, 0, (), b"id"))
    assert take(told, told.wake).tracker_id == b"id"
    assert take(told, told.wake).tracker_id == b"id"
    assert told.farewells() == [Turn(ONE, Event.STOPPED, False, b"id")]


def test_what_was_asked_when_the_end_came_is_taken_back() -> None:
    told = schedule()
    told.follow([ONE, TWO], [], 0)
    turn = told.next(0, nobody)
    assert turn is not None
    assert told.farewells() == [Turn(turn.tag, Event.STOPPED, False, b"")]


def test_nothing_is_taken_back_from_a_tracker_that_is_gone() -> None:
    told = schedule()
    told.follow([ONE], [], 0)
    take(told, 0)
    take(told, told.wake, None)
    assert told.farewells() == []
    told.follow([], [], 5000)
    assert take(told, told.wake, None).event is Event.STOPPED
    assert told.next(10_000, nobody) is None
