"""SIGKILL at random moments of a transfer of many files."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from furymesh.sync.names import LOCK_NAME, LOG_NAME, PART_SUFFIX
from tests.faults.disk import ROOT, SEED
from tests.faults.sync_receiver import CHUNK, source
from tests.reliability import Record


def finished(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name not in (LOCK_NAME, LOG_NAME)
        if not path.name.endswith((PART_SUFFIX, ".tmp"))
    }


def run(folder: Path, seed: int, chunks: int | None) -> tuple[int, int]:
    """Receive, killed once `chunks` have been written; returns the exit code and the bytes."""
    command = [sys.executable, "-m", "tests.faults.sync_receiver", str(folder), str(seed)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        sent = 0
        for number, line in enumerate(process.stdout, 1):
            sent += int(line)
            if number == chunks:
                os.kill(process.pid, signal.SIGKILL)
    return process.returncode, sent


@pytest.mark.parametrize("kills", [12, pytest.param(300, marks=pytest.mark.slow)])
def test_killed_at_random_moments_a_transfer_goes_on_from_every_byte_written(
    tmp_path: Path, kills: int, record_property: Record
) -> None:
    rng, total_kills = Random(SEED), 0
    for session in range(kills):
        seed, folder = SEED + session, tmp_path / str(session)
        folder.mkdir()
        files = source(seed)
        sent = killed = 0
        while total_kills < kills:
            code, count = run(folder, seed, rng.randrange(1, 250))
            sent += count
            here = finished(folder)
            wrong = [name for name, data in here.items() if files.get(name) != data]
            assert not wrong, f"seed {seed}, kill {total_kills}: {wrong[:3]}"
            if code == 0:
                break
            assert code == -signal.SIGKILL, (seed, code)
            killed, total_kills = killed + 1, total_kills + 1
        if total_kills == kills:
            code, count = run(folder, seed, None)
            assert code == 0, seed
            sent += count
        assert finished(folder) == files, seed
        left = {name for name in os.listdir(folder) if name not in (*"0123456", LOG_NAME)}
        assert not left, (seed, left)
        # What was being written when it was killed, or was not told any more.
        size = sum(map(len, files.values()))
        assert abs(sent - size) <= killed * CHUNK, f"seed {seed}: {sent} bytes sent of {size}"
        if total_kills == kills:
            break
    record_property("cases", kills)
    record_property("result", f"{kills} random kills of folder transfers: no byte sent again")
