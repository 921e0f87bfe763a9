"""How many slots are found useful."""

from __future__ import annotations

import pytest

from furymesh.core.slots import MAX_SLOTS, TRIAL_JOBS, SlotCount


def run(slots: SlotCount, windows: int, rate: float, per_slot: float, now: float = 0.0) -> float:
    """Slots that finish `rate` jobs a second in all, at most `per_slot` each; the time after."""
    slots.look(now, busy=False)
    for _ in range(windows):
        jobs = TRIAL_JOBS * slots.count
        now += jobs / min(rate, per_slot * slots.count)
        for _ in range(jobs):
            slots.finished()
        slots.look(now, busy=True)
    return now


@pytest.mark.parametrize(("rate", "least", "most"), [(20.0, 2, 3), (100.0, 9, 13)])
def test_as_many_are_used_as_bring_more(rate: float, least: int, most: int) -> None:
    slots = SlotCount(2)
    run(slots, 200, rate, per_slot=10.0)
    assert least <= slots.count <= most


def test_there_is_a_limit() -> None:
    slots = SlotCount(2)
    run(slots, 200, 1e6, per_slot=1.0)
    assert slots.count == MAX_SLOTS


def test_slots_that_bring_nothing_any_more_are_given_back() -> None:
    slots = SlotCount(2)
    now = run(slots, 100, 200.0, per_slot=10.0)
    many = slots.count
    run(slots, 2000, 20.0, per_slot=10.0, now=now)
    assert 2 <= slots.count < many


def test_nothing_is_learnt_while_a_slot_is_free() -> None:
    slots = SlotCount(2)
    for second in range(100):
        for _ in range(TRIAL_JOBS * 2):
            slots.finished()
        slots.look(float(second), busy=False)
    assert slots.count == 2
