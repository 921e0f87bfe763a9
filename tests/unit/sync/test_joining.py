"""Files that join a session under way."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from furymesh.core.errors import InvalidManifestError, UsageError
from furymesh.sync import LOCK_NAME, FileWriter, TransferLockManager
from tests.unit.sync.sessions import BOOT, DATA, LATER_BOOT, listed, stored, write


def test_files_join_page_by_page(tmp_path: Path) -> None:
    with TransferLockManager(tmp_path) as lock:
        assert lock.add_files(listed("a", "b"), "192.0.2.1")["fresh_files"] == ["a", "b"]
        session = stored(tmp_path)["session_id"]
        first = write(lock, "a", 300)
        assert lock.add_files(listed("c"))["action"] == "fresh_transfer"
        first.write_chunk(DATA[300:])
        assert first.is_complete, "who was there is not disturbed"
        write(lock, "c")
    value = stored(tmp_path)
    assert (value["session_id"], value["sender_ip"]) == (session, "192.0.2.1")
    assert (value["total_files"], value["total_size"]) == (3, 3000)
    assert {name: file["status"] for name, file in value["files"].items()} == {
        "a": "completed",
        "b": "pending",
        "c": "completed",
    }


def test_what_is_here_of_those_that_join_is_found(tmp_path: Path) -> None:
    with TransferLockManager(tmp_path) as lock:
        lock.add_files(listed("done", "half", "other"))
        write(lock, "done")
        write(lock, "half", 400)
        write(lock, "other", 500)
    with TransferLockManager(tmp_path) as lock:
        assert lock.load_existing_lock()
        assert lock.add_files(listed("half", "done")) == {
            "action": "resume",
            "completed_files": ["done"],
            "resume_files": [("half", 400)],
            "fresh_files": [],
        }
        assert lock.get_resume_bytes("other") == 500, "not announced yet"
        changed = listed("other")[0] | {"original_hash": "0" * 64}
        assert lock.add_files([changed])["fresh_files"] == ["other"]
        assert not (tmp_path / "other.part").exists()
        assert write(lock, "half").is_complete
        lock.cleanup_on_completion()
    assert sorted(os.listdir(tmp_path)) == ["done", "half"]


def test_after_a_reboot_only_what_was_synced_counts_of_any(tmp_path: Path) -> None:
    with TransferLockManager(tmp_path, boot_id=BOOT) as lock:
        lock.add_files(listed("a", "b"))
        writers = [write(lock, name, 400) for name in "ab"]
        lock.flush()
        old = (tmp_path / LOCK_NAME).read_bytes()
        for writer in writers:
            writer.write_chunk(DATA[400:600])
    (tmp_path / LOCK_NAME).write_bytes(old)
    for name in "ab":
        (tmp_path / f"{name}.part").write_bytes(DATA[:400] + bytes(200))
    lock = TransferLockManager(tmp_path, boot_id=LATER_BOOT)
    assert lock.load_existing_lock()
    assert lock.add_files(listed("a"))["resume_files"] == [("a", 400)]
    write(lock, "a", 500)
    lock.flush()
    write(lock, "a", 600)
    lock.folder.close()  # it is killed
    with TransferLockManager(tmp_path, boot_id=LATER_BOOT) as lock:
        assert lock.load_existing_lock()
        assert lock.add_files(listed("a"))["resume_files"] == [("a", 600)]
        assert lock.add_files(listed("b"))["resume_files"] == [("b", 400)]
        assert write(lock, "a").is_complete
        assert write(lock, "b").is_complete


def test_files_that_cannot_be_received_do_not_join(tmp_path: Path) -> None:
    with TransferLockManager(tmp_path) as lock:
        lock.add_files(listed("a"))
        for names in (("../b",), ("b", "B"), ("b", "b/c"), (LOCK_NAME,)):
            with pytest.raises(InvalidManifestError):
                lock.add_files(listed(*names))
        with pytest.raises(UsageError):
            lock.add_files([{"filename": "b", "size": -1}])
        lock.flush()
        assert stored(tmp_path)["files"].keys() == {"a"}


def test_a_writer_of_another_size_than_the_lock_is_refused_at_once(tmp_path: Path) -> None:
    with TransferLockManager(tmp_path) as lock:
        lock.add_files(listed("a"))
        for size in (999, 1001):
            with pytest.raises(UsageError, match="has 1000 bytes in the lock"):
                FileWriter("a", size, 0, lock)
