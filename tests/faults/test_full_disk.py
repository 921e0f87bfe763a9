"""A disk that fills up: a download waits for room, and nothing on the disk is emptied."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from random import Random

import pytest

from tests.e2e.conftest import CHUNK, SIZE, Seed
from tests.e2e.mesh import DEADLINE, Mesh, Process, finished, same
from tests.e2e.parts import resume_data
from tests.faults.disk import SEED
from tests.reliability import Record
from tests.waiting import block_until

RATE = "2M"  # bytes a second
SLOW_RATE = "100K"  # so that many pauses come before the end
RESERVE = 1024 * 1024
ALMOST = 4 * CHUNK  # bytes left when the disk is filled: the next chunks take them


def fill(disk: Path, leave: int) -> Path:
    """Take all of the room but `leave` bytes; remove what is returned to give it back."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while (room := free(disk) - leave) > 0:  # others take of it meanwhile
            file.write(bytes(room))
    return ballast


def free(disk: Path) -> int:
    facts = os.statvfs(disk)
    return facts.f_bavail * facts.f_frsize


def check_state(home: Path) -> int:
    """No file of the data directory is empty, and the resume data can be read."""
    for path in home.rglob("*"):
        if path.is_file() and path.suffix != ".lock":
            assert path.stat().st_size, f"{path} is empty"
    return resume_data(home).chunks_done


@pytest.mark.promise(6)
@pytest.mark.parametrize(
    ("points", "rate"),
    [(1, RATE), pytest.param(20, SLOW_RATE, marks=pytest.mark.slow)],
    ids=["1 point", "20 points"],
)
def test_a_full_disk_pauses_and_goes_on_by_itself(
    mesh: Mesh, seed: Seed, small_disk: Path, points: int, rate: str, record_property: Record
) -> None:
    """Everything is on that disk: the part, the resume data, the manifest."""
    rng = Random(SEED)
    home = small_disk / "home"
    config = mesh.config_of(mesh.home("user", "storage: {reserve: '0'}\n"))
    at = sorted(rng.sample(range(1, 100), points))  # of CHUNKS
    options = ["--config", config, "--data-dir", home, "--json", "--peer", seed.address]
    options += ["--output", small_disk, "--max-download", rate, "--no-space-check"]
    user = mesh.start("user", "get", seed.link, *options)
    for number, chunks in enumerate(at, 1):
        user.expect("progress", lambda event, chunks=chunks: event["chunks_done"] >= chunks)  # type: ignore[misc]
        ballast = fill(small_disk, rng.choice([0, ALMOST]))
        case = f"point {number}, at {chunks} chunks, seed {SEED}"
        _expect_count(user, "paused: ", number, case)
        assert check_state(home), case
        ballast.unlink()
        _expect_count(user, "going on", number, case)
    complete = finished(user, 3 * DEADLINE)
    assert same(Path(complete["path"]), seed.source)
    assert complete["bytes_fetched"] == SIZE
    assert "goes on by itself" in user.err
    assert "run this again" not in user.err
    assert not [path for path in small_disk.iterdir() if path.suffix == ".part"]
    record_property("cases", points)
    record_property("result", "paused and went on each time; no file of its state was empty")


def _expect_count(process: Process, text: str, least: int, case: str) -> None:
    try:
        block_until(lambda: process.err.count(text) >= least, DEADLINE)
    except AssertionError as error:
        raise AssertionError(f"{case}: no {text!r}: {process.err[-2000:]}") from error


@pytest.mark.slow
def test_the_reserve_is_left_free_while_a_download_runs(
    mesh: Mesh, seed: Seed, small_disk: Path
) -> None:
    home = mesh.home("user", f"storage: {{reserve: '{RESERVE}'}}\n")
    options = ["--output", small_disk, "--max-download", RATE]
    user = mesh.start_get(home, seed.link, *options, peers=[seed.address])
    user.expect("progress", lambda event: event["chunks_done"] > 10)
    ballast = fill(small_disk, RESERVE + ALMOST)
    user.expect_err("kept in reserve; goes on by itself")
    assert free(small_disk) >= RESERVE
    ballast.unlink()
    complete = finished(user)
    assert same(Path(complete["path"]), seed.source)


def test_a_share_that_does_not_fit_is_refused_unless_told_otherwise(
    mesh: Mesh, seed: Seed, small_disk: Path
) -> None:
    home = mesh.home("user", f"storage: {{reserve: '{RESERVE}'}}\n")
    ballast = fill(small_disk, RESERVE + SIZE // 2)
    options: list[object] = ["--output", small_disk]
    line = mesh.start_get(home, seed.link, *options, peers=[seed.address]).done().complaint(1)
    for part in ("free", "still to come", "in reserve", "--no-space-check"):
        assert part in line
    assert not [path for path in small_disk.iterdir() if path != ballast]
    options.append("--no-space-check")
    user = mesh.start_get(home, seed.link, *options, peers=[seed.address])
    user.expect_err("paused: ")
    user.kill()
    ballast.unlink()
    complete = mesh.resume(home, seed.file_id, "--no-space-check")
    assert complete["bytes_reused"] > 0
    assert same(Path(complete["path"]), seed.source)
