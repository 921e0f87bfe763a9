"""When one tracker is told of which share: decided here, carried out elsewhere.

Always true: one announce at a time is made to a tracker; between two of a share
lies the interval that the tracker told, unless there is something to tell, or the
share is wanted and nobody who has it is linked; a tracker that does not answer is
left alone for its back-off, which only a share that is newly wanted ends; and what a
tracker once heard of is taken back when it ends, after word of its completion if that
was due.

Nothing else is called between a turn and its answer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from random import Random
from typing import NamedTuple

from furymesh.core.ids import DiscoveryTag
from furymesh.wire.tracker import Answer, Event, Refusal

# Seconds before a tracker that gave no answer is asked again, doubled each time.
FIRST_BACKOFF = 5.0
MAX_BACKOFF = 900.0
# Before a share is named again that the tracker refused: it will not want it soon.
REFUSED_BACKOFF = 300.0
MAX_REFUSED_BACKOFF = 4 * 3600.0
# While there is no link to anybody who has what is wanted, whomever a tracker named, it is
# asked again before the interval is over, as BEP 3 allows, but not before the least that it
# told. Doubled each time; and between two looks whether there still is one.
HUNGRY_SECONDS = 60.0
# Announces come late at random, by up to a tenth, so that those of many nodes spread.
# Trackers forget who is late by half an interval or more.
JITTER = 0.1


class Turn(NamedTuple):
    """An announce to be made now."""

    tag: DiscoveryTag
    event: Event
    wanted: bool
    tracker_id: bytes


@dataclass(slots=True)
class _Share:
    """One share, as this tracker was told of it."""

    wanted: bool
    due: float
    hungry: float = math.inf  # when it is due if it is wanted and nobody is linked
    event: Event = Event.STARTED  # to be told next
    asked: bool = False  # the tracker may list us: it was asked, and did not fail
    known: bool = False  # it does
    gone: bool = False  # this node takes part no more, which the tracker is still to hear
    refusals: int = 0  # in a row
    lonely: int = 0  # answers in a row that led to no link
    tracker_id: bytes = b""

    @property
    def wake(self) -> float:
        return min(self.due, self.hungry)


class Schedule:
    """Whose turn it is, for one tracker. Times are seconds of any one clock."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self._shares: dict[DiscoveryTag, _Share] = {}
        self._not_before = -math.inf  # of the tracker, after a failure
        self._failures = 0

    @property
    def over(self) -> bool:
        """Whether there is nothing to tell, now or later."""
        return not self._shares

    @property
    def wake(self) -> float:
        """When there is a turn, if nothing changes; infinity for never."""
        first = min((share.wake for share in self._shares.values()), default=math.inf)
        return max(first, self._not_before)

    def follow(
        self, announced: Iterable[DiscoveryTag], wanted: Iterable[DiscoveryTag], now: float
    ) -> None:
        """Take note of what this node takes part in now."""
        lacking = frozenset(wanted)
        taking_part = lacking.union(announced)
        for tag in taking_part:
            share, is_wanted = self._shares.get(tag), tag in lacking
            if share is None or share.event is Event.STOPPED:
                self._shares[tag] = _Share(is_wanted, now)
            elif share.wanted == is_wanted:
                share.gone = False
                continue
            else:
                share.gone, share.wanted, share.due = False, is_wanted, now
                if share.known:
                    share.event = Event.NONE if is_wanted else Event.COMPLETED
            if is_wanted:
                self._not_before = now
        for tag in self._shares.keys() - taking_part:
            share = self._shares[tag]
            if not share.asked:
                del self._shares[tag]
                continue
            share.gone, share.due = True, now
            if share.event is not Event.COMPLETED:
                share.event = Event.STOPPED

    def renew(self, now: float) -> None:
        """Tell the tracker again what it was told, because something of it has changed."""
        for share in self._shares.values():
            if share.known:
                share.due = now

    def next(self, now: float, linked: Callable[[DiscoveryTag], bool]) -> Turn | None:
        """The announce to make now, what is wanted before all else; None before `wake`.

        `linked` tells whether there is a link to anybody who has a share.
        """
        if now < self._not_before:
            return None
        for tag, share in self._shares.items():
            if share.hungry <= now and linked(tag):
                share.hungry, share.lonely = now + HUNGRY_SECONDS, 0
        due = [item for item in self._shares.items() if item[1].wake <= now]
        if not due:
            return None
        tag, share = min(due, key=lambda item: (not item[1].wanted, item[1].wake))
        share.asked = True
        return Turn(tag, share.event, share.wanted, share.tracker_id)

    def answered(self, turn: Turn, answer: Answer | Refusal, now: float) -> None:
        """The tracker answered."""
        self._failures = 0
        share = self._shares[turn.tag]
        share.hungry = math.inf
        if turn.event is Event.STOPPED or (share.gone and isinstance(answer, Refusal)):
            del self._shares[turn.tag]
        elif isinstance(answer, Refusal):
            pause = min(REFUSED_BACKOFF * (1 << share.refusals), MAX_REFUSED_BACKOFF)
            share.refusals = min(share.refusals + 1, 16)
            share.asked = share.known
            share.due = now + self._late(pause)
        else:
            share.refusals = 0
            share.known = True
            share.tracker_id = answer.tracker_id or share.tracker_id
            if share.gone:
                share.event, share.due = Event.STOPPED, now
            else:
                share.event = Event.NONE
                share.due = now + self._late(answer.interval)
                if share.wanted:
                    pause = max(HUNGRY_SECONDS * (1 << share.lonely), answer.min_interval)
                    share.hungry = now + self._late(pause)
                    share.lonely = min(share.lonely + 1, 16)

    def failed(self, turn: Turn, now: float) -> None:
        """It gave no answer, or none that makes sense."""
        share = self._shares[turn.tag]
        share.asked = share.known
        if share.gone:
            del self._shares[turn.tag]  # it will forget by itself
        pause = min(FIRST_BACKOFF * (1 << self._failures), MAX_BACKOFF)
        self._failures = min(self._failures + 1, 16)
        self._not_before = now + pause * self._rng.uniform(0.75, 1.25)

    def farewells(self) -> list[Turn]:
        """What is to be told at the end: nothing to a tracker that does not answer."""
        if self._failures:
            return []
        return [
            Turn(tag, event, False, share.tracker_id)
            for tag, share in self._shares.items()
            for event in (Event.COMPLETED, Event.STOPPED)
            if share.asked and event in (share.event, Event.STOPPED)
        ]

    def _late(self, pause: float) -> float:
        return pause * self._rng.uniform(1.0, 1.0 + JITTER)
