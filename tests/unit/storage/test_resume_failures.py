"""Resume data when the disk fails or is full, and when the process is killed."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from furymesh.core.errors import DiskFullError, EnvironmentFault
from furymesh.storage.resume import peek, resume_path
from tests.unit.storage.resume_lab import BOOT, FILE_ID, OTHER, chunks, create, load, synced


def failing(code: int) -> Callable[..., Any]:
    def fail(*_: object) -> Any:
        raise OSError(code, os.strerror(code))

    return fail


def test_after_a_failed_sync_nothing_unsynced_is_claimed(tmp_path: Path) -> None:
    def sync() -> None:
        raise EnvironmentFault("the disk is dying")

    with create(tmp_path) as resume:
        resume.add(1)
        resume.mark_epoch(synced)
        resume.add(2)
        with pytest.raises(EnvironmentFault, match="dying"):
            resume.mark_epoch(sync)
        assert chunks(resume.have) == [1]
        with pytest.raises(EnvironmentFault, match="start the download again"):
            resume.add(3)
    with load(tmp_path) as again:
        assert chunks(again.have) == [1]
        assert again.doubtful == 0


def full() -> None:
    raise DiskFullError("the disk is full")


def test_after_a_full_disk_it_goes_on_without_what_was_not_saved(tmp_path: Path) -> None:
    with create(tmp_path) as resume:
        resume.add(1)
        resume.mark_epoch(synced)
        resume.add(2)
        with pytest.raises(DiskFullError):
            resume.mark_epoch(full)
        assert chunks(peek(resume.path, boot_id=BOOT).have) == [1]
        resume.add(3)
        resume.mark_epoch(synced)
        assert chunks(peek(resume.path, boot_id=OTHER).have) == [1, 3]


def test_without_room_to_say_so_nothing_unsaved_is_claimed_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with create(tmp_path) as resume:
        resume.add(1)
        resume.compact(synced)
        resume.add(2)
        monkeypatch.setattr("furymesh.storage.journal_file.os.rename", failing(errno.ENOSPC))
        with pytest.raises(DiskFullError):
            resume.mark_epoch(full)
        assert chunks(peek(resume.path, boot_id=BOOT).have) == [1]
        resume.add(3)
        assert chunks(peek(resume.path, boot_id=BOOT).have) == [1, 3]
        monkeypatch.undo()
        resume.mark_epoch(synced)
        assert chunks(peek(resume.path, boot_id=OTHER).have) == [1, 3]


def test_records_whose_sync_failed_are_written_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with create(tmp_path) as resume:
        resume.add(1)
        monkeypatch.setattr("furymesh.storage.journal_file.os.fdatasync", failing(errno.ENOSPC))
        with pytest.raises(DiskFullError):
            resume.mark_epoch(synced)
        monkeypatch.undo()
        before = resume.path.stat().st_ino
        resume.mark_epoch(synced)
        assert resume.path.stat().st_ino != before
        assert chunks(peek(resume.path, boot_id=OTHER).have) == [1]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_record_that_does_not_fit_leaves_no_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    really_write = os.pwrite
    calls: list[int] = []

    def half_then_full(fd: int, data: bytes, offset: int) -> int:
        calls.append(len(data))
        if len(calls) == 1:
            return really_write(fd, bytes(data)[:5], offset)
        return int(failing(code)())

    with create(tmp_path) as resume:
        resume.add(1)
        before = resume.path.read_bytes()
        monkeypatch.setattr("furymesh.storage.journal_file.os.pwrite", half_then_full)
        with pytest.raises(DiskFullError, match="free some space"):
            resume.add(2)
        monkeypatch.undo()
        assert resume.path.read_bytes() == before
        assert chunks(resume.have) == [1]
        resume.add(2)
    assert chunks(peek(resume_path(tmp_path, FILE_ID), boot_id=BOOT).have) == [1, 2]


def test_a_record_half_written_on_a_disk_that_cannot_truncate_is_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with create(tmp_path) as resume:
        end = resume.path.stat().st_size

        def torn(fd: int, data: bytes, offset: int) -> int:
            assert offset == end
            with resume.path.open("ab") as file:
                file.write(b"torn")
            return int(failing(errno.EIO)())

        monkeypatch.setattr("furymesh.storage.journal_file.os.pwrite", torn)
        monkeypatch.setattr("furymesh.storage.journal_file.os.ftruncate", failing(errno.EIO))
        with pytest.raises(EnvironmentFault):
            resume.add(1)
        monkeypatch.undo()
        resume.add(2)
    found = load(tmp_path)
    assert chunks(found.have) == [2]
    assert not found.damaged
    found.close()


@pytest.mark.parametrize("call", ["open", "pwrite", "fdatasync", "rename"])
@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC, errno.EROFS, errno.EMFILE])
def test_a_compaction_that_fails_anywhere_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, code: int
) -> None:
    with create(tmp_path) as resume:
        resume.add(1)
        resume.mark_epoch(synced)
        before = resume.path.read_bytes()
        monkeypatch.setattr(f"furymesh.storage.journal_file.os.{call}", failing(code))
        expected = DiskFullError if code == errno.ENOSPC else EnvironmentFault
        with pytest.raises(expected):
            resume.compact(synced)
        with pytest.raises(expected):
            resume.update_meta(name="other")
        monkeypatch.undo()
        assert resume.path.read_bytes() == before
        assert os.listdir(tmp_path) == [resume.path.name]
        assert resume.meta.name == "film.mkv"
        resume.add(2)
        resume.compact(synced)
        assert chunks(peek(resume.path, boot_id=OTHER).have) == [1, 2]


def fill(disk: Path) -> Path:
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(1024))
    assert shutil.disk_usage(disk).free == 0
    return filler


def test_a_full_disk_never_costs_what_was_recorded(small_disk: Path) -> None:
    total = 1000
    with create(small_disk, chunks_total=total) as resume:
        filler = fill(small_disk)
        added = []
        with contextlib.suppress(DiskFullError):
            for chunk in range(total):
                resume.add(chunk)
                added.append(chunk)
        assert 0 < len(added) < total, "only the page that was there already had room"
        with pytest.raises(DiskFullError):
            resume.compact(synced)
        with pytest.raises(DiskFullError):
            resume.update_meta(name="x")
        with pytest.raises(DiskFullError):
            load(small_disk)
        assert chunks(peek(resume.path, boot_id=BOOT).have) == added
        filler.unlink()
        for chunk in range(len(added), total):
            resume.add(chunk)
        resume.compact(synced)
        assert peek(resume.path, boot_id=OTHER).chunks_done == total


# --- kills --------------------------------------------------------------------

_CALLS = ("open", "pwrite", "fdatasync", "fsync", "rename", "unlink")


def scenario(directory: Path, tell: Callable[[str], None]) -> None:
    """A short download that says what it is about to do and what is done."""
    resume = create(directory)
    for step in range(3):
        for chunk in (3 * step, 3 * step + 1, 3 * step + 2):
            tell(f"add {chunk}")
            resume.add(chunk)
            tell(f"added {chunk}")
        if step == 1:
            resume.compact(synced)
            tell("synced")
            tell("lose 1")
            resume.lose_all(1 << 1)
            tell("lost 1")
        else:
            resume.mark_epoch(synced)
            tell("synced")
    resume.add(20)
    os._exit(0)


def run_and_kill(directory: Path, kill_at: int) -> tuple[list[str], bool]:
    """Run the scenario in a child that is killed just before its n-th disk call."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        count = 0
        output = open(writer, "w", encoding="ascii")  # noqa: SIM115

        def counted(name: str) -> Callable[..., Any]:
            really = getattr(os, name)

            def call(*args: Any, **kwargs: Any) -> Any:
                nonlocal count
                count += 1
                if count == kill_at:
                    os.kill(os.getpid(), signal.SIGKILL)
                return really(*args, **kwargs)

            return call

        for name in _CALLS:
            setattr(os, name, counted(name))
        try:
            scenario(directory, lambda line: print(line, file=output, flush=True))
        finally:
            os._exit(1)  # whatever went wrong must not go on as a second pytest
    os.close(writer)
    with open(reader, encoding="ascii") as pipe:
        said = pipe.read().splitlines()
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return said, os.WIFSIGNALED(status)


def test_killed_before_any_disk_call_the_state_is_right(tmp_path: Path) -> None:
    kills = 0
    while True:
        directory = tmp_path / str(kills)
        directory.mkdir()
        said, killed = run_and_kill(directory, kills + 1)
        kills += 1
        if not resume_path(directory, FILE_ID).exists():
            assert "added 0" not in said
            assert killed
            continue
        begun, done, durable = set(), set(), set()
        for word, *rest in (line.split() for line in said):
            match word:
                case "add":
                    begun.add(int(rest[0]))
                case "added":
                    done.add(int(rest[0]))
                case "synced":
                    durable |= done
                case "lose":
                    done.discard(int(rest[0]))
                    durable.discard(int(rest[0]))
                case "lost":
                    begun.discard(int(rest[0]))
        found = peek(resume_path(directory, FILE_ID), boot_id=OTHER)
        assert durable <= set(chunks(found.have))
        with load(directory) as resume:
            assert not resume.damaged
            assert resume.doubtful == 0
            if killed:
                assert done <= set(chunks(resume.have)) <= begun
            assert os.listdir(directory) == [resume.path.name]
        if not killed:
            break
    assert kills > 30, "the scenario makes more disk calls than that"
