"""Resume data on real files: recording, reboots, failures, kills, threads."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import signal
import stat
import threading
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from furymesh.cli.resume_view import detail_lines, summary_record
from furymesh.core.bitfield import chunks_of, mask_of
from furymesh.core.errors import (
    DamagedResumeDataError,
    DiskFullError,
    EnvironmentFault,
    IllegalStateError,
    NotFoundError,
)
from furymesh.core.ids import FileId
from furymesh.core.journal import RECORD_SIZE
from furymesh.storage.resume import (
    Damaged,
    ResumeData,
    ResumeMeta,
    Summary,
    list_all,
    peek,
    resume_path,
)

FILE_ID = FileId(b"\x5a" * 32)
BOOT = b"a boot of sixtee"
OTHER = b"another, sixteen"
CHUNKS = 64


def meta(**changes: Any) -> ResumeMeta:
    known: dict[str, Any] = {
        "file_id": FILE_ID,
        "name": "film.mkv",
        "output": "/tmp/film.mkv",
        "part": "/tmp/film.mkv.5a5a5a5a.part",
        "created_at": 1.0,
        "chunks_total": CHUNKS,
        "key": b"k" * 32,
    }
    return ResumeMeta(**(known | changes))


def create(directory: Path, **changes: Any) -> ResumeData:
    return ResumeData.create(directory, meta(**changes), boot_id=BOOT)


def load(directory: Path, boot: bytes = BOOT) -> ResumeData:
    return ResumeData.load(directory, FILE_ID, boot_id=boot)


def synced() -> None:
    """A sync that works."""


def chunks(mask: int) -> list[int]:
    return list(chunks_of(mask))


# --- recording ----------------------------------------------------------------


def test_files_are_private_from_the_start(tmp_path: Path) -> None:
    with create(tmp_path / "a" / "resume") as resume:
        assert stat.S_IMODE(resume.path.stat().st_mode) == 0o600
        assert stat.S_IMODE(resume.path.parent.stat().st_mode) == 0o700
        resume.compact(synced)
        assert stat.S_IMODE(resume.path.stat().st_mode) == 0o600
        assert os.listdir(resume.path.parent) == [resume.path.name]


def test_adding_is_one_write_of_sixteen_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[int] = []
    really_write = os.pwrite

    def pwrite(fd: int, data: bytes, offset: int) -> int:
        written.append(len(data))
        return really_write(fd, data, offset)

    with create(tmp_path) as resume:
        before = resume.path.stat().st_size
        monkeypatch.setattr("furymesh.storage.journal_file.os.pwrite", pwrite)
        resume.add(3)
        assert written == [RECORD_SIZE]
        assert resume.path.stat().st_size == before + RECORD_SIZE


def test_a_killed_download_keeps_every_record(tmp_path: Path) -> None:
    resume = create(tmp_path)
    for chunk in (5, 1, 63):
        resume.add(chunk)
    # No close, no compaction: as kill -9 leaves it.
    with load(tmp_path) as again:
        assert chunks(again.have) == [1, 5, 63]
        assert chunks(again.volatile) == [1, 5, 63]
        assert again.doubtful == 0
        assert again.meta == meta()
    resume.close()


def test_after_a_reboot_what_was_not_synced_is_doubtful_until_looked_at(tmp_path: Path) -> None:
    with create(tmp_path) as resume:
        resume.add(1)
        resume.mark_epoch(synced)
        resume.add(2)
        resume.add(3)
    with load(tmp_path, OTHER) as again:
        assert chunks(again.have) == [1]
        assert chunks(again.doubtful) == [2, 3]
        again.add(2)
        again.lose(3)
        assert chunks(again.have) == [1, 2]
        assert again.doubtful == 0
    # Killed before a compaction, chunk 3 is looked at once more; that is all.
    with load(tmp_path, OTHER) as again:
        assert chunks(again.have) == [1, 2]
        assert chunks(again.doubtful) == [3]


def test_where_boots_cannot_be_told_apart_each_run_counts_as_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("furymesh.storage.resume_reader._BOOT_ID", tmp_path / "missing")
    with ResumeData.create(tmp_path, meta()) as resume:
        resume.add(1)
    with ResumeData.load(tmp_path, FILE_ID) as again:
        assert chunks(again.doubtful) == [1]


def test_doubts_survive_being_killed_during_the_rehash(tmp_path: Path) -> None:
    with create(tmp_path) as resume:
        resume.add(2)
    for _ in range(2):
        with load(tmp_path, OTHER) as again:
            assert again.have == 0
            assert chunks(again.doubtful) == [2]


def test_an_epoch_does_not_cover_what_is_added_while_it_syncs(tmp_path: Path) -> None:
    with create(tmp_path) as resume:
        resume.add(1)
        resume.mark_epoch(lambda: resume.add(2))
        assert chunks(resume.volatile) == [2]
    with load(tmp_path, OTHER) as again:
        assert chunks(again.have) == [1]
        assert chunks(again.doubtful) == [2]


def test_an_epoch_with_nothing_new_costs_nothing(tmp_path: Path) -> None:
    with create(tmp_path) as resume:
        before = resume.path.stat()
        resume.mark_epoch(lambda: pytest.fail("nothing to sync"))
        assert resume.path.stat().st_size == before.st_size


def test_a_lost_chunk_stays_lost(tmp_path: Path) -> None:
    with create(tmp_path) as resume:
        for chunk in (1, 2, 3, 2):
            resume.add(chunk)
        resume.mark_epoch(synced)
        resume.add(4)
        resume.lose(2)
        resume.lose_all(mask_of([4, 9]))
        assert chunks(resume.have) == [1, 3]
        for boot in (BOOT, OTHER):
            assert chunks(peek(resume.path, boot_id=boot).have) == [1, 3]
        resume.add(2)
        assert chunks(resume.have) == [1, 2, 3]


def test_compaction_folds_the_journal_into_the_snapshot(tmp_path: Path) -> None:
    with create(tmp_path) as resume:
        empty = resume.path.stat().st_size
        for chunk in range(CHUNKS):
            resume.add(chunk)
        resume.compact(synced)
        assert resume.path.stat().st_size == empty
        assert resume.volatile == 0
        assert chunks(peek(resume.path, boot_id=OTHER).have) == list(range(CHUNKS))


def test_metadata_changes_without_touching_the_chunks(tmp_path: Path) -> None:
    with create(tmp_path, chunks_total=None) as resume:
        with pytest.raises(IllegalStateError):
            resume.add(0)
        resume.update_meta(chunks_total=10, header=b"header", peers=("a:1",))
        resume.add(9)
        with pytest.raises(IllegalStateError):
            resume.add(10)
        with pytest.raises(IllegalStateError):
            resume.update_meta(chunks_total=9)
        resume.update_meta(detached=True)
        found = peek(resume.path, boot_id=BOOT)
        assert found.meta == meta(chunks_total=10, header=b"header", peers=("a:1",), detached=True)
        assert chunks(found.have) == [9]
        assert found.chunks_done == 1


def test_what_is_doubted_is_not_relied_on_until_it_is_hashed(tmp_path: Path) -> None:
    with create(tmp_path) as resume:
        resume.add(3)
        resume.add(4)
        resume.doubt(mask_of([1, 3, CHUNKS]))
        assert chunks(resume.doubtful) == [1, 3]
        assert chunks(resume.have) == [4]
        resume.add(3)
        assert chunks(resume.doubtful) == [1]
    with load(tmp_path) as again:
        assert chunks(again.doubtful) == [1]
        assert chunks(again.have) == [3, 4]


def test_deleting_leaves_nothing(tmp_path: Path) -> None:
    resume = create(tmp_path)
    resume.path.with_name(resume.path.name + ".new").touch()
    resume.delete()
    assert os.listdir(tmp_path) == []
    uses: list[Callable[[], None]] = [
        lambda: resume.add(1),
        lambda: resume.lose(1),
        lambda: resume.mark_epoch(synced),
        lambda: resume.update_meta(name="x"),
    ]
    for use in uses:
        with pytest.raises(EnvironmentFault, match="start the download again"):
            use()
    assert os.listdir(tmp_path) == []
    resume.close()


def test_what_a_crash_left_beside_the_file_is_replaced(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    with create(tmp_path) as resume:
        resume.path.with_name(resume.path.name + ".new").symlink_to(victim)
        resume.compact(synced)
    assert victim.read_text() == "precious"


# --- threads ------------------------------------------------------------------


def test_compaction_racing_with_threads_that_add_loses_nothing(tmp_path: Path) -> None:
    total, workers = 4000, 4
    with create(tmp_path, chunks_total=total) as resume:
        running = threading.Barrier(workers + 1)

        def work(first: int) -> None:
            running.wait()
            for chunk in range(first, total, workers):
                resume.add(chunk)

        threads = [threading.Thread(target=work, args=(n,)) for n in range(workers)]
        for thread in threads:
            thread.start()
        running.wait()
        seen = 0
        while any(thread.is_alive() for thread in threads):
            resume.compact(synced)
            now = peek(resume.path, boot_id=BOOT).have
            assert seen & ~now == 0, "a chunk that had been recorded is gone"
            seen = now
        for thread in threads:
            thread.join()
        assert resume.have == (1 << total) - 1
        assert peek(resume.path, boot_id=BOOT).have == (1 << total) - 1


def test_what_is_added_during_a_compaction_is_in_the_new_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with create(tmp_path) as resume:
        really_sync = os.fdatasync

        def add_meanwhile(fd: int) -> None:
            really_sync(fd)
            resume.add(7)

        monkeypatch.setattr("furymesh.storage.journal_file.os.fdatasync", add_meanwhile)
        resume.compact(synced)
        monkeypatch.undo()
        assert chunks(resume.volatile) == [7]
        assert chunks(peek(resume.path, boot_id=BOOT).have) == [7]
        assert chunks(peek(resume.path, boot_id=OTHER).doubtful) == [7]


# --- failures -----------------------------------------------------------------


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
            resume.lose(1)
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


# --- reading ------------------------------------------------------------------


def test_listing_shows_good_and_damaged_and_ignores_the_rest(tmp_path: Path) -> None:
    assert list_all(tmp_path / "missing") == []
    with create(tmp_path) as resume:
        resume.add(1)
        bad = tmp_path / f"{'ee' * 32}.resume"
        bad.write_bytes(b"")
        other = tmp_path / f"{'ff' * 32}.resume"
        other.write_bytes(resume.path.read_bytes())
        (tmp_path / "notes.txt").touch()
        (tmp_path / f"{'5a' * 32}.lock").touch()
        found = list_all(tmp_path, boot_id=BOOT)
    assert [type(item) for item in found] == [Summary, Damaged, Damaged]
    good, empty, foreign = found
    assert isinstance(good, Summary)
    assert isinstance(empty, Damaged)
    assert isinstance(foreign, Damaged)
    assert good.chunks_done == 1
    assert good.updated_at > 1e9
    assert empty.file_id == b"\xee" * 32
    assert "cut short" in empty.reason
    assert "another download" in foreign.reason


def test_what_is_missing_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        load(tmp_path)
    with pytest.raises(NotFoundError):
        peek(tmp_path / "notes.txt")


def test_links_pipes_and_directories_are_not_resume_data(tmp_path: Path) -> None:
    with create(tmp_path / "real") as resume:
        real = resume.path
    path = resume_path(tmp_path, FILE_ID)
    path.symlink_to(real)
    with pytest.raises(EnvironmentFault):
        load(tmp_path)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(DamagedResumeDataError, match="not a file of this user"):
        load(tmp_path)
    path.unlink()
    path.mkdir()
    with pytest.raises((DamagedResumeDataError, EnvironmentFault)):
        load(tmp_path)


def test_resume_data_of_another_user_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create(tmp_path).close()
    stranger = os.geteuid() + 1
    monkeypatch.setattr("furymesh.storage.resume_reader.os.geteuid", lambda: stranger)
    with pytest.raises(DamagedResumeDataError, match="this user"):
        load(tmp_path)


def test_an_absurdly_large_file_is_not_read(tmp_path: Path) -> None:
    create(tmp_path).close()
    os.truncate(resume_path(tmp_path, FILE_ID), 2**40)
    with pytest.raises(DamagedResumeDataError, match="impossibly large"):
        load(tmp_path)


def test_reading_takes_the_room_of_the_file_and_not_of_the_largest_one(tmp_path: Path) -> None:
    create(tmp_path).close()
    tracemalloc.start()
    try:
        peek(resume_path(tmp_path, FILE_ID), boot_id=BOOT)
        assert tracemalloc.get_traced_memory()[1] < 4 * 1024 * 1024
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("seconds", [-(2**33), 2**39])
def test_a_file_of_an_impossible_time_can_be_listed(tmp_path: Path, seconds: int) -> None:
    create(tmp_path).close()
    path = resume_path(tmp_path, FILE_ID)
    os.utime(path, (seconds, seconds))
    summary = peek(path, boot_id=BOOT)
    assert summary_record(summary)["updated_at"][:4] in ("1970", "9999", "2446")  # ext4 ends there
    assert list(detail_lines(summary))


def test_no_message_shows_the_content_key(tmp_path: Path) -> None:
    with create(tmp_path) as resume:
        assert "kkk" not in repr(resume.meta)
        assert "kkk" not in repr(peek(resume.path, boot_id=BOOT))


def test_a_directory_that_cannot_be_made_is_one_plain_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(EnvironmentFault):
        create(tmp_path / "file" / "resume")
    with pytest.raises(EnvironmentFault):
        list_all(tmp_path / "file")
