"""The measuring tools themselves: content, alternation, verdicts, processes."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.bench.data import make_source
from tests.bench.measure import Outcome, alternate
from tests.bench.process import BenchError, Crew

CHUNK = 256 * 1024


def test_content_has_no_two_equal_chunks_and_depends_on_the_seed(tmp_path: Path) -> None:
    source = make_source(tmp_path / "a", 5 * 2**20 + 7)
    data = source.path.read_bytes()
    chunks = [data[offset : offset + CHUNK] for offset in range(0, len(data), CHUNK)]
    assert len(data) == source.size == 5 * 2**20 + 7
    assert len(set(chunks)) == len(chunks)
    assert make_source(tmp_path / "b", source.size).digest == source.digest
    assert make_source(tmp_path / "c", source.size, seed=1).digest != source.digest
    source.check(tmp_path / "b")
    with pytest.raises(BenchError, match="differs"):
        source.check(tmp_path / "c")
    with pytest.raises(BenchError, match="missing"):
        source.check(tmp_path / "d")


def test_programs_take_turns_and_one_that_fails_is_left_out() -> None:
    turns: list[str] = []

    def run(name: str) -> int:
        turns.append(name)
        if name == "b" and turns.count("b") == 2:
            raise BenchError("gone")
        return len(turns)

    results, notes = alternate(["a", "b"], 3, run)
    assert turns == ["a", "b", "a", "b", "a"]
    assert results == {"a": [1, 3, 5], "b": [2]}
    assert notes == ["b: gone"]


def test_a_verdict_needs_both_sides() -> None:
    row = Outcome("1", "rate", "GB/s", "", "≥ 3", {"ours": [3.0, 9.0, 6.0], "theirs": [2.0]})
    assert row.ratio("ours", "theirs") == 3.0
    assert row.judge(row.ratio("ours", "theirs"), lambda score: score >= 3).met is True
    assert row.judge(row.ratio("ours", "absent"), lambda score: score >= 3).met is None


def test_a_child_speaks_counts_and_is_gone_afterwards(tmp_path: Path) -> None:
    speaker = (
        "import json, sys; print('noise'); print(json.dumps({'event': 'up'}), flush=True); "
        "sys.stdin.readline(); sum(range(3_000_000)); sys.exit('no more')"
    )
    with Crew(tmp_path) as crew:
        child = crew.spawn([sys.executable, "-c", speaker])
        assert child.expect("up", 20).fields == {"event": "up"}
        assert child.peak_rss > 2**20
        child.release()
        with pytest.raises(BenchError, match="no more"):
            child.ended(20)
        assert child.cpu_seconds() > 0
        sleeper = crew.spawn(["sleep", "60"])
        with pytest.raises(BenchError, match="said nothing"):
            sleeper.expect("up", 0.2)
    assert not Path(f"/proc/{child.pid}").exists()
    assert not Path(f"/proc/{sleeper.pid}").exists()
