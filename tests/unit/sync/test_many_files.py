"""What looking through many files costs: time while nothing has changed, and memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

# Of one process that is client and server at once, so half of it is of each.
MEGABYTES_FOR_100_000 = 150


def two_folders(at: Path, count: int) -> tuple[Path, Path]:
    """An archive of tiny files, and the same files in another folder, by second names."""
    archive, served = at / "archive", at / "served"
    for number in range(count // 100):
        (archive / f"folder-{number}").mkdir(parents=True)
        (served / f"folder-{number}").mkdir(parents=True)
        for name in (f"folder-{number}/a-file-{n:08}.txt" for n in range(100)):
            (archive / name).write_text(name)
            os.link(archive / name, served / name)
    return archive, served


def compare(at: Path, *args: str) -> dict[str, float]:
    folders = [str(at / name) for name in ("archive", "served", "data")]
    command = [sys.executable, "-m", "tests.unit.sync.many_files", *folders, *args]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert not done.returncode, done.stderr
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def test_ten_thousand_unchanged_files_are_compared_in_less_than_a_second(tmp_path: Path) -> None:
    two_folders(tmp_path, 10_000)
    first = compare(tmp_path, "first")
    assert first["skip"] == 10_000
    second = compare(tmp_path)
    print(f"10,000 files, nothing changed: {second}")
    assert second["skip"] == 10_000
    # Of both ends; of processor time, because other tests may run beside this one.
    assert second["cpu"] < 1


@pytest.mark.slow
def test_a_hundred_thousand_files_need_bounded_memory(tmp_path: Path) -> None:
    two_folders(tmp_path, 100_000)
    for args in (("first",), ()):
        figures = compare(tmp_path, *args)
        print(f"100,000 files{' for the first time' if args else ', nothing changed'}: {figures}")
        assert figures["skip"] == 100_000
        assert figures["megabytes"] < MEGABYTES_FOR_100_000
