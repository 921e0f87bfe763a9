"""Transfers of very many files, and of too many."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from furymesh.core.errors import EnvironmentFault, UsageError
from furymesh.sync import (
    LOCK_NAME,
    MAX_FILES,
    FileWriter,
    IncomingFile,
    TransferLockManager,
    lock_file,
)
from furymesh.sync.lock_format import MAX_LOCK_SIZE

DIGEST = "0" * 64


def many(
    count: int, name: str = "directory {}/some file of a usual name {}.bin"
) -> Iterator[IncomingFile]:
    for number in range(count):
        yield {
            "filename": name.format(number % 100, number),
            "size": 1024,
            "original_hash": DIGEST,
            "last_modified": "2024-01-01T11:59:00Z",
        }


@pytest.mark.parametrize("count", [20_000, pytest.param(100_000, marks=pytest.mark.slow)])
def test_very_many_files_can_be_taken_up_again(tmp_path: Path, count: int) -> None:
    files = list(many(count))
    with TransferLockManager(tmp_path) as lock:
        lock.create_lock_file("", files, 1024 * len(files))
        FileWriter(files[-1]["filename"], 1024, 0, lock).write_chunk(bytes(100))
    assert os.stat(tmp_path / LOCK_NAME).st_size < MAX_LOCK_SIZE
    with TransferLockManager(tmp_path) as lock:
        assert lock.load_existing_lock()
        plan = lock.get_resume_plan(files)
    assert plan["resume_files"] == [(files[-1]["filename"], 100)]
    assert len(plan["fresh_files"]) == len(files) - 1


def test_too_many_files_are_refused_before_anything_is_done(tmp_path: Path) -> None:
    part = tmp_path / "0.part"
    part.touch()
    one_too_many = many(MAX_FILES + 1, "{1}")
    with TransferLockManager(tmp_path) as lock:
        with pytest.raises(UsageError, match=f"more than {MAX_FILES:,} files are too many"):
            lock.create_lock_file("", one_too_many, 0)
        assert not (tmp_path / LOCK_NAME).exists()
        assert part.exists()


def test_a_lock_that_would_be_too_large_to_be_read_again_is_not_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock_file, "MAX_LOCK_SIZE", 1_000_000)
    long = "/".join(["x" * 250] * 4) + "/{1}"
    with TransferLockManager(tmp_path) as lock:
        with pytest.raises(UsageError, match="700 files with names this long are too many"):
            lock.create_lock_file("", many(700, long), 0)
        assert not (tmp_path / LOCK_NAME).exists()
        # Or it grows until then: what is on the disk stays, and can be read.
        lock.create_lock_file("", many(600, long), 0)
        before = (tmp_path / LOCK_NAME).read_bytes()
        lock.add_files(many(900, long))
        with pytest.raises(EnvironmentFault, match="it is too large"):
            lock.flush()
        assert (tmp_path / LOCK_NAME).read_bytes() == before


def test_names_of_any_script_take_their_bytes_and_no_more(tmp_path: Path) -> None:
    name = "каталог/文件 {1}"
    with TransferLockManager(tmp_path) as lock:
        lock.create_lock_file("", many(1, name), 0)
    assert "каталог/文件 0".encode() in (tmp_path / LOCK_NAME).read_bytes()
    with TransferLockManager(tmp_path) as lock:
        assert lock.load_existing_lock()
        assert lock.get_state("каталог/文件 0")
