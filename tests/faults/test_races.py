"""Two processes on one download: one works, the other says who does; the dead block nobody."""

from __future__ import annotations

import time
from pathlib import Path
from random import Random
from statistics import median

import pytest

from tests.e2e.mesh import DEADLINE, Mesh, write_blob
from tests.faults.disk import SEED, Commands, Origin, Started, User, check_finished
from tests.reliability import Record
from tests.waiting import block_until

SIZE = 4 * 1024 * 1024
CHUNK = 16 * 1024
RATE = "500K"  # bytes a second: no download ends by itself before its race is over
REFUSAL_SECONDS = 1.0  # from the start of both; most of them, for a machine may be busy
BUSY_SECONDS = 5.0  # all of them
HEAD_START = 0.03  # seconds that one process may be ahead of the other, at most


def ended_as_loser(started: Started) -> bool:
    return "already being downloaded" in started.err


def working(started: Started) -> bool:
    return any(event["event"] == "started" for event in started.events)


@pytest.mark.promise(17)
@pytest.mark.parametrize("races", [6, pytest.param(200, marks=pytest.mark.slow)])
def test_one_of_two_wins_and_the_other_names_it(
    commands: Commands, mesh: Mesh, tmp_path: Path, races: int, record_property: Record
) -> None:
    rng = Random(SEED)
    origin = Origin.of(mesh, write_blob(tmp_path / "film", SIZE, seed=SEED), CHUNK)
    shared = origin.shared
    limit = ("--max-download", RATE)
    user, journaled, seconds = User(tmp_path / "user"), 0, list[float]()
    for race in range(races):
        if journaled > shared.chunks // 2:  # before it is complete: another download
            user, journaled = User(tmp_path / f"user-{race}"), 0
        get = origin.get(user, *limit)
        # Resuming needs resume data, which a new download does not have.
        other = get
        if journaled and rng.random() < 0.5:
            other = user.argv("resume", "--json", "--file-id", shared.file_id.hex(), *limit)
        begun = time.monotonic()
        one = commands.start(user.files, get)
        assert not one.ended_within(rng.uniform(0.0, HEAD_START)), (race, one.err)
        two = commands.start(user.files, other)
        both = (one, two)
        block_until(lambda both=both: any(map(ended_as_loser, both)), DEADLINE)  # type: ignore[misc]
        loser = next(process for process in both if ended_as_loser(process))
        holder = two if loser is one else one
        refused = loser.end().done
        seconds.append(time.monotonic() - begun)
        assert refused.code == 5, (race, refused)
        assert f"by process {holder.pid} " in refused.complaint(5), (race, holder.pid, refused.err)
        # Nobody waits for a process that was killed, and nothing it journaled is lost.
        block_until(lambda holder=holder: working(holder), DEADLINE)  # type: ignore[misc]
        first = next(event for event in holder.events if event["event"] == "started")
        assert first["chunks_done"] >= journaled, (race, first, journaled)
        holder.kill()
        assert holder.end().killed
        kept = user.kept(shared.file_id)
        assert kept is not None, race
        journaled = kept.chunks_done
    usual, slowest = median(seconds), max(seconds)
    assert usual < REFUSAL_SECONDS, f"a refusal takes {usual:.2f} s"
    assert slowest < BUSY_SECONDS, f"a refusal took {slowest:.2f} s"
    last = commands.run(user.files, origin.get(user))
    assert last.done.code == 0, last.done
    check_finished(user, origin.source)
    record_property("cases", races)
    record_property("result", f"one winner each; refused in {usual:.2f} s, at most {slowest:.2f} s")
