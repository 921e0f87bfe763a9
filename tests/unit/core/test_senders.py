"""How many peers are asked under a download limit."""

from __future__ import annotations

import pytest

from furymesh.core.senders import TRIAL_SECONDS, SenderCount

CHUNK = 256 * 1024
MOST = 60


def seconds(count: SenderCount, limit: float | None, reached: bool, times: range) -> list[int]:
    """What it says once a second."""
    return [count.look(float(now), limit, reached, MOST) for now in times]


def test_without_a_limit_all_are_asked() -> None:
    assert seconds(SenderCount(CHUNK), None, False, range(2)) == [MOST, MOST]


@pytest.mark.parametrize(
    ("limit", "asked"), [(20_000, 1), (CHUNK, 2), (1_000_000, 7), (100_000_000, MOST)]
)
def test_under_a_limit_each_has_time_for_a_chunk(limit: float, asked: int) -> None:
    assert set(seconds(SenderCount(CHUNK), limit, True, range(9))) == {asked}


def test_slow_peers_get_company_until_the_limit_is_reached() -> None:
    count = SenderCount(CHUNK)
    assert seconds(count, 20_000, False, range(4)) == [1, 2, 3, 4]
    assert seconds(count, 20_000, True, range(4, 9)) == [4] * 5
    assert seconds(count, 20_000, False, range(9, 60))[-1] == MOST


def test_company_has_time_to_show_what_it_adds() -> None:
    count = SenderCount(CHUNK)
    asked = [count.look(now * TRIAL_SECONDS / 4, 20_000, False, MOST) for now in range(9)]
    assert asked == [1, 1, 1, 1, 2, 2, 2, 2, 3]


def test_a_lifted_limit_is_forgotten() -> None:
    count = SenderCount(CHUNK)
    seconds(count, 20_000, False, range(5))
    assert count.look(5.0, None, False, MOST) == MOST
    assert count.look(6.0, 20_000, True, MOST) == 1
