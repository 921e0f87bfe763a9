"""Frames that no honest peer sends, in every state of a link: only that link ends."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio

from tests.hostile.assault import SEED, Scene, attack, every_case
from tests.hostile.conftest import Target

SHORT_CASES = 2  # per message type and state
LONG_CASES = 1000


def test_hostile_frames_end_one_link_at_most(scene: Scene, target: Target) -> None:
    outcomes = trio.run(attack, scene, every_case(SHORT_CASES))
    assert outcomes["closed"] > outcomes["lives"] > 0, outcomes
    target.is_well()


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_thousand_hostile_frames_per_type_and_state(
    scene: Scene, target: Target, record_property: Callable[[str, object], None]
) -> None:
    cases = every_case(LONG_CASES)
    outcomes = trio.run(attack, scene, cases)
    assert outcomes["closed"] > outcomes["lives"] > 0, outcomes
    target.is_well()
    record_property("row", 7)
    record_property("seed", SEED)
    record_property("cases", len(cases))
    closed = outcomes["closed"]
    record_property("result", f"node up throughout, only the sender's link closed ({closed} did)")
