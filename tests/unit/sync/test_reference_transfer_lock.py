"""TransferLockManager as it is documented: a test for each behaviour, listed in docs/sync.md."""

from __future__ import annotations

import hashlib
import json
import os
import re
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from furymesh.sync import (
    LOCK_NAME,
    LOG_NAME,
    FileWriter,
    ResumePlan,
    Status,
    TransferLockManager,
    resume_message,
)
from tests.unit.sync.sessions import DATA, DIGEST, listed, stored, write

NAMES = ("path/to/file1.txt", "file2.txt", "file3.txt")


def begin(directory: Path, *names: str, **options: Any) -> TransferLockManager:
    lock = TransferLockManager(str(directory), **options)
    lock.create_lock_file("100.101.29.44", listed(*names), len(DATA) * len(names))
    return lock


# --- the class and its file -----------------------------------------------------------


def test_constants_and_attributes_are_as_documented(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert TransferLockManager.LOCK_FILE_NAME == ".transfer_lock.json"
    assert TransferLockManager.LOCK_VERSION == "1.0"
    monkeypatch.chdir(tmp_path)
    for lock in (TransferLockManager(), TransferLockManager(working_dir=str(tmp_path))):
        assert lock.working_dir == tmp_path
        assert lock.lock_file_path == tmp_path / ".transfer_lock.json"
        assert lock.lock_data is None


def test_create_lock_file_returns_the_uuid_of_the_session(tmp_path: Path) -> None:
    with TransferLockManager(tmp_path) as lock:
        sessions = {lock.create_lock_file("", listed("a"), 1000) for _ in range(2)}
        assert len(sessions) == 2
        assert all(str(uuid.UUID(session)) == session for session in sessions)
        assert stored(tmp_path)["session_id"] in sessions


def test_the_format_is_as_documented(tmp_path: Path) -> None:
    """Every documented field is there and of its type; two are added."""
    with begin(tmp_path, *NAMES) as lock:
        write(lock, "file2.txt", 500)
        lock.flush()
        value = stored(tmp_path)
    assert value["version"] == "1.0"
    assert str(uuid.UUID(value["session_id"])) == value["session_id"]
    when = datetime.strptime(value["timestamp"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    assert abs((datetime.now(UTC) - when).total_seconds()) < 60
    assert value["sender_ip"] == "100.101.29.44"
    assert (value["total_files"], value["total_size"]) == (3, 3000)
    assert value["files"].keys() == set(NAMES)
    assert value["files"]["file2.txt"] == {
        "status": "in_progress",
        "size": 1000,
        "original_hash": DIGEST,
        "transferred_bytes": 500,
        "partial_hash": hashlib.sha256(DATA[:500]).hexdigest(),
        "last_modified": "2024-01-01T11:59:00Z",
    }
    documented = {"version", "session_id", "timestamp", "sender_ip", "total_files", "total_size"}
    assert value.keys() - documented == {"files", "boot_id"}


def test_a_lock_in_the_documented_form_is_taken_up(tmp_path: Path) -> None:
    """As another program writes it: without the fields that are furymesh's own."""
    value = {
        "version": "1.0",
        "session_id": "0f8fad5b-d9cb-469f-a165-70867728950e",
        "timestamp": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "sender_ip": "100.101.29.44",
        "total_files": 1,
        "total_size": 1000,
        "files": {
            "file2.txt": {
                "status": "in_progress",
                "size": 1000,
                "original_hash": DIGEST,
                "transferred_bytes": 400,
                "partial_hash": hashlib.sha256(DATA[:400]).hexdigest(),
                "last_modified": "2024-01-01T11:59:00Z",
            }
        },
    }
    (tmp_path / LOCK_NAME).write_text(json.dumps(value))
    (tmp_path / "file2.txt.part").write_bytes(DATA[:600])
    with TransferLockManager(tmp_path) as lock:
        assert lock.load_existing_lock()
        plan = lock.get_resume_plan(listed("file2.txt"))
        assert plan["resume_files"] == [("file2.txt", 400)], "no boot is known: what is vouched for"
        write(lock, "file2.txt")
    assert (tmp_path / "file2.txt").read_bytes() == DATA


@pytest.mark.parametrize("status", ["pending", "in_progress", "completed", "failed"])
def test_update_file_status_takes_the_four_statuses(tmp_path: Path, status: str) -> None:
    with begin(tmp_path, "a") as lock:
        lock.update_file_status("a", status, 10, DIGEST)
        lock.flush()
        entry = stored(tmp_path)["files"]["a"]
    assert (entry["status"], entry["transferred_bytes"]) == (status, 10)
    assert entry["partial_hash"] == DIGEST


def test_updates_are_batched_by_150_or_two_seconds(tmp_path: Path) -> None:
    now = 1_700_000_000.0
    with begin(tmp_path, "a", clock=lambda: now) as lock:
        for size in range(1, 150):
            lock.update_file_status("a", "failed", size)
        assert stored(tmp_path)["files"]["a"]["transferred_bytes"] == 0
        lock.update_file_status("a", "failed", 150)
        assert stored(tmp_path)["files"]["a"]["transferred_bytes"] == 150
        now += 1.9
        lock.update_file_status("a", "failed", 151)
        assert stored(tmp_path)["files"]["a"]["transferred_bytes"] == 150
        now += 0.1
        lock.update_file_status("a", "failed", 152)
        assert stored(tmp_path)["files"]["a"]["transferred_bytes"] == 152


def test_updates_are_atomic(tmp_path: Path) -> None:
    """Who has the old file open sees the old one, whole; nothing is left beside the new."""
    with begin(tmp_path, "a") as lock, open(tmp_path / LOCK_NAME, encoding="utf-8") as old:
        lock.update_file_status("a", "failed", 5)
        lock.flush()
        assert json.load(old)["files"]["a"]["transferred_bytes"] == 0
        assert stored(tmp_path)["files"]["a"]["transferred_bytes"] == 5
        assert os.listdir(tmp_path) == [LOCK_NAME]


def test_cleanup_on_completion_removes_the_lock(tmp_path: Path) -> None:
    lock = begin(tmp_path, "a")
    write(lock, "a")
    lock.cleanup_on_completion()
    assert os.listdir(tmp_path) == ["a"]
    lock.cleanup_on_completion()  # what is gone is gone


def test_cleanup_on_completion_leaves_no_parts_and_temporaries(tmp_path: Path) -> None:
    lock = begin(tmp_path, "a", "deep/b")
    write(lock, "a")
    write(lock, "deep/b", 10)
    (tmp_path / f".{LOCK_NAME}.0123456789abcdef.tmp").touch()
    lock.cleanup_on_completion()
    assert sorted(os.listdir(tmp_path)) == ["a", "deep"]
    assert os.listdir(tmp_path / "deep") == []


# --- loading --------------------------------------------------------------------------


def test_load_existing_lock_says_whether_there_is_one(tmp_path: Path) -> None:
    with TransferLockManager(tmp_path) as lock:
        assert lock.load_existing_lock() is False
    begin(tmp_path, "a").close()
    with TransferLockManager(tmp_path) as lock:
        assert lock.load_existing_lock() is True
        assert lock.lock_data is not None
        assert lock.lock_data.sender_ip == "100.101.29.44"


@pytest.mark.parametrize(("hours", "loaded"), [(23.9, True), (24.1, False)])
def test_locks_are_stale_after_24_hours(tmp_path: Path, hours: float, loaded: bool) -> None:
    now = 1_700_000_000.0
    with begin(tmp_path, "a", clock=lambda: now) as lock:
        write(lock, "a", 10)
    now += hours * 3600
    with TransferLockManager(tmp_path, clock=lambda: now) as lock:
        assert lock.load_existing_lock() is loaded
        assert (tmp_path / "a.part").exists() is loaded, "stale parts go with their lock"
    assert (LOG_NAME in os.listdir(tmp_path)) is not loaded, "it is logged"


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "[]", "null", '"text"', '{"version": "1.0"}', "\0"),
        '{"version": "0.9", "files": {}}',
        '{"version": "1.0", "session_id": "x", "files": {"a": {}}}',
    ],
)
def test_a_corrupted_lock_means_a_fresh_transfer(tmp_path: Path, text: str) -> None:
    (tmp_path / LOCK_NAME).write_text(text)
    with TransferLockManager(tmp_path) as lock:
        assert lock.load_existing_lock() is False
        assert lock.get_resume_plan(listed("a"))["action"] == "fresh_transfer"
        lock.create_lock_file("", listed("a"), 1000)
        write(lock, "a")
    assert (tmp_path / "a").read_bytes() == DATA
    assert "the transfer lock was not used" in (tmp_path / LOG_NAME).read_text()


# --- the plan -------------------------------------------------------------------------


def test_get_resume_plan_of_a_fresh_transfer(tmp_path: Path) -> None:
    with TransferLockManager(tmp_path) as lock:
        plan = lock.get_resume_plan(listed(*NAMES))
    assert plan == ResumePlan(
        action="fresh_transfer", completed_files=[], resume_files=[], fresh_files=[*NAMES]
    )
    assert resume_message(plan) == "Starting fresh transfer"


def test_get_resume_plan_of_a_transfer_to_resume(tmp_path: Path) -> None:
    with begin(tmp_path, *NAMES) as lock:
        write(lock, NAMES[0])
        write(lock, NAMES[1], 300)
    with TransferLockManager(tmp_path) as lock:
        assert lock.load_existing_lock()
        plan = lock.get_resume_plan(listed(*NAMES))
    assert plan == {
        "action": "resume",
        "completed_files": [NAMES[0]],
        "resume_files": [(NAMES[1], 300)],
        "fresh_files": [NAMES[2]],
    }
    assert resume_message(plan) == "Resuming 1 completed, 1 partial, 1 fresh files"


def test_the_plan_is_the_session_from_then_on(tmp_path: Path) -> None:
    """Totals and entries are of the files that come now; parts of others go."""
    with begin(tmp_path, *NAMES) as lock:
        write(lock, NAMES[0])
        write(lock, NAMES[1], 300)
        lock.get_resume_plan(listed(NAMES[0], "new"))
        value = stored(tmp_path)
        assert value["files"].keys() == {NAMES[0], "new"}
        assert (value["total_files"], value["total_size"]) == (2, 2000)
        assert not (tmp_path / f"{NAMES[1]}.part").exists()


def test_get_resume_bytes_is_where_a_writer_goes_on(tmp_path: Path) -> None:
    with begin(tmp_path, *NAMES) as lock:
        assert lock.get_resume_bytes(NAMES[0]) == 0
        write(lock, NAMES[0], 300)
        assert lock.get_resume_bytes(NAMES[0]) == 300
        write(lock, NAMES[0])
        assert lock.get_resume_bytes(NAMES[0]) == 0


# --- sources --------------------------------------------------------------------------


def test_verify_source_files_unchanged_names_what_changed_and_marks_it(tmp_path: Path) -> None:
    sources = {name: str(tmp_path / name) for name in ("same", "changed", "missing")}
    for name in ("same", "changed"):
        Path(sources[name]).write_bytes(DATA)
    folder = tmp_path / "in"
    folder.mkdir()
    with begin(folder, *sources) as lock:
        for name in sources:
            write(lock, name)
        Path(sources["changed"]).write_bytes(DATA[::-1])
        assert lock.verify_source_files_unchanged(sources) == ["changed", "missing"]
        lock.flush()
        statuses = {name: entry["status"] for name, entry in stored(folder)["files"].items()}
    assert statuses == {"same": "completed", "changed": "pending", "missing": "pending"}
    assert re.search("changed has changed.*sent again", (folder / LOG_NAME).read_text())


# --- with writers ---------------------------------------------------------------------


def test_a_file_goes_from_pending_over_in_progress_to_completed(tmp_path: Path) -> None:
    seen = []
    with begin(tmp_path, "a") as lock:
        writer = FileWriter("a", len(DATA), 0, lock)
        for at in range(0, len(DATA) + 1, 500):
            state = lock.get_state("a")
            assert state is not None
            seen.append(state.status)
            writer.write_chunk(DATA[at : at + 500])
    assert seen == [Status.PENDING, Status.IN_PROGRESS, Status.COMPLETED]
    entry = stored(tmp_path)["files"]["a"]
    assert (entry["status"], entry["transferred_bytes"]) == ("completed", 1000)
    assert entry["original_hash"] == entry["partial_hash"] == DIGEST


def test_a_whole_workflow_resumes_by_itself(tmp_path: Path) -> None:
    """The documented flow, ended in every second file of the way."""
    sent = 0
    for stop in (1, 3, None):
        with TransferLockManager(tmp_path) as lock:
            done: list[str] = []
            if lock.load_existing_lock():
                done = lock.get_resume_plan(listed(*NAMES))["completed_files"]
            else:
                lock.create_lock_file("100.101.29.44", listed(*NAMES), 3000)
            writers = [FileWriter(name, 1000, 0, lock) for name in NAMES if name not in done]
            for index, writer in enumerate(writers):
                writer.open_for_writing(lock.get_resume_bytes(writer.filename))
                while writer.needs_data(writer.written):
                    sent += writer.write_chunk(DATA[writer.written : writer.written + 250])
                    if index + 1 == stop and writer.written >= 500:
                        break
                if index + 1 == stop:
                    break
            else:
                lock.cleanup_on_completion()
    assert sent == 3000, "no byte twice"
    assert all((tmp_path / name).read_bytes() == DATA for name in NAMES)
    assert not (tmp_path / LOCK_NAME).exists()
