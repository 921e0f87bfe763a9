"""Real transfers over long, lossy and broken roads, several laboratories side by side.

The long form, at 100 Mb/s and beside iperf3, is rows 15 and 16 of the benchmarks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.bench.conditions import SETTLED, Transfer, transfer
from tests.bench.data import Source, make_source
from tests.netns.lab import Lab, Shape, mbit
from tests.waiting import block_until, holds

RATE = mbit(40)  # three of these at once leave the processors of a small machine time
GOODPUT = RATE / 8 * 1448 / 1514  # bytes a second above TCP in full frames
LONG, SHORT = 45_000_000, 30_000_000  # bytes: ten seconds at that rate, and six
LIMIT = 60.0  # seconds for one transfer
CUT = 3.0  # seconds
# A cut line is found healed by the kernel's next retry, three seconds later at most.
HEALED = CUT + 3.0 + 0.5
QUEUED = RATE / 8 / 10  # bytes that a cut may come too late for: the shaper holds fewer
LOOK_SECONDS = 0.2  # from one reading of a counter to the next: each is a process

Condition = Callable[[Path], Transfer]

pytestmark = [pytest.mark.netns, pytest.mark.usefixtures("lab_needed")]


def side_by_side(folder: Path, conditions: Sequence[Condition]) -> list[Transfer]:
    with ThreadPoolExecutor(len(conditions)) as threads:
        runs = [
            threads.submit(condition, folder / str(number))
            for number, condition in enumerate(conditions)
        ]
        return [run.result() for run in runs]


def far(source: Source, round_trip: float, congestion: str) -> Condition:
    def run(work: Path) -> Transfer:
        with Lab([Shape(RATE, RATE), Shape(RATE, RATE, round_trip / 2)], congestion) as lab:
            host, sink = lab.hosts
            return transfer(source, host, sink, work, LIMIT)

    return run


def lossy(source: Source, loss: float, congestion: str) -> Condition:
    def run(work: Path) -> Transfer:
        with Lab([Shape(RATE, RATE)] * 2, congestion) as lab:
            for end in lab.hosts:
                end.lose(loss)
            host, sink = lab.hosts
            return transfer(source, host, sink, work, LIMIT)

    return run


def cut(source: Source) -> Condition:
    def run(work: Path) -> Transfer:
        with Lab([Shape(RATE, RATE)] * 2) as lab:
            host, sink = lab.hosts

            def break_it() -> None:
                block_until(lambda: sink.received().payload >= source.size / 3, LIMIT)
                sink.cut()
                before = sink.received().payload
                holds(lambda: sink.received().payload <= before + QUEUED, CUT, LOOK_SECONDS)
                sink.heal()

            with ThreadPoolExecutor(1) as beside:
                broken = beside.submit(break_it)
                transferred = transfer(source, host, sink, work, LIMIT)
                broken.result()
                return transferred

    return run


def test_a_long_road_is_used_from_the_fifth_second_on(tmp_path: Path) -> None:
    source = make_source(tmp_path / "content.bin", LONG)
    roads = [far(source, 0.05, "cubic"), far(source, 0.2, "cubic"), far(source, 0.2, "bbr")]
    for run in side_by_side(tmp_path, roads):
        assert run.goodput(SETTLED) >= 0.9 * GOODPUT
        assert run.links == 1
        assert run.wasted == 0


def test_loss_and_a_cut_line_are_sat_out(tmp_path: Path) -> None:
    source = make_source(tmp_path / "content.bin", SHORT)
    *lossy_runs, cut_run = side_by_side(
        tmp_path, [lossy(source, 0.01, "cubic"), lossy(source, 0.05, "bbr"), cut(source)]
    )
    for run in lossy_runs:
        assert run.longest_pause < 2.0
    assert CUT < cut_run.longest_pause < HEALED
    for run in (*lossy_runs, cut_run):
        assert run.links == 1
        assert run.wasted <= run.size / 100
