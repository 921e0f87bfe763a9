"""Resume data on real files: recording, reboots, threads."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from furymesh.core.bitfield import mask_of
from furymesh.core.errors import EnvironmentFault, IllegalStateError
from furymesh.core.journal import RECORD_SIZE
from furymesh.storage.resume import ResumeData, peek
from tests.unit.storage.resume_lab import (
    BOOT,
    CHUNKS,
    FILE_ID,
    OTHER,
    chunks,
    create,
    load,
    meta,
    synced,
)


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
        again.lose_all(1 << 3)
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
        resume.lose_all(1 << 2)
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
        lambda: resume.lose_all(1 << 1),
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
