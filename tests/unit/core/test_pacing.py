"""Rates, round trips and the window that follows from them."""

from __future__ import annotations

import pytest

from furymesh.core.pacing import (
    DEFAULT_RTT,
    MAX_WINDOW,
    MIN_WINDOW,
    NOISE_SECONDS,
    RTT_MEMORY,
    Pace,
)

KIB = 1024


def deliver(pace: Pace, rate: float, seconds: float, piece: int, start: float = 0.0) -> float:
    """Pieces at a steady rate; returns the time at the end."""
    now = start
    while now < start + seconds:
        now += piece / rate
        pace.delivered(now, piece)
    return now


def test_a_new_peer_gets_the_smallest_window() -> None:
    pace = Pace(0.0)
    assert pace.window == MIN_WINDOW
    assert pace.rtt == DEFAULT_RTT
    assert pace.seconds_for(1000) is None


def test_the_rate_settles_on_what_arrives() -> None:
    pace = Pace(0.0)
    pace.round_trip(0.0, 0.01)
    now = deliver(pace, 10e6, 1.0, 64 * KIB)
    assert pace.rate == pytest.approx(10e6, rel=0.01)
    assert pace.seconds_for(10_000_000) == pytest.approx(1.01, rel=0.02)
    deliver(pace, 2e6, 2.0, 64 * KIB, now)
    assert pace.rate == pytest.approx(2e6, rel=0.02)


def test_idle_time_is_not_counted() -> None:
    pace = Pace(0.0)
    pace.round_trip(0.0, 0.001)
    now = deliver(pace, 10e6, 1.0, 64 * KIB) + 60
    pace.start(now)
    deliver(pace, 10e6, 0.2, 64 * KIB, now)
    assert pace.rate == pytest.approx(10e6, rel=0.02)


def test_a_rate_is_known_though_no_chunk_takes_as_long_as_a_sample() -> None:
    pace = Pace(0.0)
    pace.round_trip(0.0, 0.001)
    now = 0.0
    for _ in range(50):
        pace.start(now)
        now += 0.02
        pace.delivered(now, 256 * KIB)
        now += 0.5  # nothing was owed
    assert pace.rate == pytest.approx(256 * KIB / 0.02, rel=0.01)


def test_the_smallest_recent_round_trip_counts() -> None:
    pace = Pace(0.0)
    pace.round_trip(0.0, 0.2)
    pace.round_trip(1.0, 0.02)
    pace.round_trip(2.0, 0.3)
    assert pace.rtt == 0.02
    pace.round_trip(1.0 + RTT_MEMORY + 0.1, 0.3)
    assert pace.rtt == 0.3


def test_the_window_covers_two_round_trips_and_the_piece_that_is_coming() -> None:
    pace = Pace(0.0)
    pace.round_trip(0.0, 0.2)
    deliver(pace, 12.5e6, 5.0, 256 * KIB)
    needed = 12.5e6 * (2 * 0.2 + NOISE_SECONDS)
    assert pace.window == pytest.approx(needed + 256 * KIB, rel=0.02)
    deliver(pace, 1e9, 60.0, 4096 * KIB, 10.0)
    assert pace.window == MAX_WINDOW


def test_a_thin_flow_over_a_short_path_asks_for_one_chunk_at_a_time() -> None:
    """One of many requesters of a busy peer: asking ahead would only bind the chunk early."""
    pace = Pace(0.0)
    pace.round_trip(0.0, 0.002)
    deliver(pace, 1.5e6, 5.0, 256 * KIB)
    assert pace.window == MIN_WINDOW


def test_the_window_keeps_ahead_of_a_rate_that_doubles_each_round_trip() -> None:
    """TCP's slow start: a sender that runs dry meanwhile would not grow on."""
    pace = Pace(0.0)
    round_trip = 0.2
    pace.round_trip(0.0, round_trip)
    arrived = 14_600.0  # bytes in the first round trip
    now = 0.0
    for _ in range(9):
        for part in range(20):
            now += round_trip / 20
            pace.delivered(now, int(arrived * (2 ** ((part + 1) / 20) - 2 ** (part / 20))))
        arrived *= 2
        # What comes until a chunk asked for now can come.
        assert pace.window >= min(arrived, MAX_WINDOW)
