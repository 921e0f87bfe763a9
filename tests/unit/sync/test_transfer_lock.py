from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from furymesh.core.errors import AlreadyRunningError, InvalidManifestError, UsageError
from furymesh.sync import (
    LOCK_NAME,
    LOG_NAME,
    FileWriter,
    IncomingFile,
    Status,
    TransferLockManager,
    resume_message,
)
from tests.unit.sync.sessions import BOOT, DATA, DIGEST, LATER_BOOT, listed, stored, write


class Clock:
    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


def log(directory: Path) -> str:
    path = directory / LOG_NAME
    return path.read_text() if path.exists() else ""


def opened(directory: Path, clock: Clock | None = None, boot: bytes = BOOT) -> TransferLockManager:
    return TransferLockManager(directory, clock=clock or Clock(), boot_id=boot)


def begun(directory: Path, *names: str, clock: Clock | None = None) -> TransferLockManager:
    lock = opened(directory, clock)
    lock.create_lock_file("192.0.2.1", listed(*names), len(DATA) * len(names))
    return lock


# --- the file -----------------------------------------------------------------------


def test_the_file_has_the_documented_form(tmp_path: Path) -> None:
    lock = opened(tmp_path)
    session = lock.create_lock_file("192.0.2.1", listed("a/b.txt", "c"), 2000)
    assert str(uuid.UUID(session)) == session
    value = stored(tmp_path)
    value.pop("boot_id")
    assert value == {
        "version": "1.0",
        "session_id": session,
        "timestamp": "2023-11-14T22:13:20Z",
        "sender_ip": "192.0.2.1",
        "total_files": 2,
        "total_size": 2000,
        "files": {
            name: {
                "status": "pending",
                "size": 1000,
                "original_hash": DIGEST,
                "transferred_bytes": 0,
                "partial_hash": "",
                "last_modified": "2024-01-01T11:59:00Z",
            }
            for name in ("a/b.txt", "c")
        },
    }
    assert (tmp_path / LOCK_NAME).stat().st_mode & 0o777 == 0o600
    lock.cleanup_on_completion()
    assert os.listdir(tmp_path) == []


def test_progress_is_written_after_150_updates_or_two_seconds(tmp_path: Path) -> None:
    clock = Clock()
    with begun(tmp_path, "a", clock=clock) as lock:
        for number in range(1, 150):
            lock.update_file_status("a", "in_progress", number)
        assert stored(tmp_path)["files"]["a"]["transferred_bytes"] == 0
        lock.update_file_status("a", "in_progress", 150, DIGEST)
        assert stored(tmp_path)["files"]["a"]["transferred_bytes"] == 150
        assert stored(tmp_path)["files"]["a"]["partial_hash"] == DIGEST
        for jump in (2.0, -100.0):
            lock.update_file_status("a", "in_progress", 160)
            clock.now += jump
            lock.update_file_status("a", "in_progress", 170 + int(jump))
            assert stored(tmp_path)["files"]["a"]["transferred_bytes"] == 170 + jump
        lock.update_file_status("a", "failed", 3)
    assert stored(tmp_path)["files"]["a"]["status"] == "failed"


def test_thousands_of_files_are_written_a_few_times_only(tmp_path: Path) -> None:
    names = [str(number) for number in range(4800)]
    with begun(tmp_path, *names) as lock:
        inodes = set()
        for name in names:
            lock.update_file_status(name, "failed", 0)
            inodes.add((tmp_path / LOCK_NAME).stat().st_mtime_ns)
    assert 10 <= len(inodes) <= 17


@pytest.mark.parametrize(
    ("name", "status", "size"),
    [("a", "done", 0), ("a", "failed", -1), ("a", "failed", 1001), ("b", "failed", 0)],
)
def test_updates_that_cannot_be_are_refused(
    tmp_path: Path, name: str, status: str, size: int
) -> None:
    with begun(tmp_path, "a") as lock, pytest.raises(UsageError):
        lock.update_file_status(name, status, size)


def test_hashes_and_sizes_that_cannot_be_are_refused(tmp_path: Path) -> None:
    with begun(tmp_path, "a") as lock:
        for digest in ('", "x": "', "0" * 63, "A" * 64):
            with pytest.raises(UsageError):
                lock.update_file_status("a", "in_progress", 1, digest)
        with pytest.raises(UsageError):
            lock.create_lock_file("", listed("a"), -1)


def test_any_address_and_time_can_be_read_again(tmp_path: Path) -> None:
    file = listed('quote " é')[0] | {"last_modified": '"\\ é'}
    with opened(tmp_path) as lock:
        lock.create_lock_file("\x1b[2J" * 99, [file], 1000)
    with opened(tmp_path) as lock:
        assert lock.load_existing_lock()
        state = lock.get_state('quote " é')
        assert state is not None
        assert state.last_modified == '"\\ é'


@pytest.mark.parametrize(
    "names", [("../a",), ("a", "a/b"), ("a", "A"), ("a", "a.part"), (LOCK_NAME,), ("a", "a")]
)
def test_files_that_cannot_be_received_together_are_refused(
    tmp_path: Path, names: tuple[str, ...]
) -> None:
    lock = opened(tmp_path)
    with pytest.raises(InvalidManifestError):
        lock.create_lock_file("", listed(*names), 0)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "file",
    [
        *({}, {"filename": "a"}, {"filename": 1, "size": 1}, {"filename": "a", "size": -1}),
        *({"filename": "a", "size": True}, {"filename": "a", "size": 1, "original_hash": "xyz"}),
        {"filename": "a", "size": 1, "last_modified": "x" * 65},
    ],
)
def test_descriptions_that_cannot_be_are_refused(tmp_path: Path, file: Any) -> None:
    with pytest.raises(UsageError):
        opened(tmp_path).create_lock_file("", [file], 0)


def test_one_process_at_a_time_works_in_a_folder(tmp_path: Path) -> None:
    program = (
        "import sys; from furymesh.sync import TransferLockManager;"
        "print(TransferLockManager(sys.argv[1]).load_existing_lock())"
    )

    def other() -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", program, str(tmp_path)]
        return subprocess.run(command, capture_output=True, text=True)

    lock = begun(tmp_path, "a")
    assert "AlreadyRunningError" in other().stderr
    with pytest.raises(AlreadyRunningError):
        opened(tmp_path).load_existing_lock()
    lock.close()
    assert other().stdout == "False\n", "its time is long past"


# --- resuming -----------------------------------------------------------------------


def test_a_session_goes_on_where_it_was(tmp_path: Path) -> None:
    with begun(tmp_path, "done", "half", "new") as lock:
        session = lock.lock_data
        write(lock, "done")
        write(lock, "half", 400)
    with opened(tmp_path) as lock:
        assert lock.load_existing_lock()
        assert lock.lock_data is not None
        assert session is not None
        assert lock.lock_data.session_id == session.session_id
        plan = lock.get_resume_plan(listed("done", "half", "new", "newer"))
        assert plan == {
            "action": "resume",
            "completed_files": ["done"],
            "resume_files": [("half", 400)],
            "fresh_files": ["new", "newer"],
        }
        assert resume_message(plan) == "Resuming 1 completed, 1 partial, 2 fresh files"
        assert lock.get_resume_bytes("half") == 400
        assert lock.get_resume_bytes("done") == 0
        for name in ("half", "new", "newer"):
            assert write(lock, name).is_complete
        assert all(file["status"] for file in stored(tmp_path)["files"].values())
        lock.cleanup_on_completion()
    assert sorted(os.listdir(tmp_path)) == ["done", "half", "new", "newer"]
    assert {(tmp_path / name).read_bytes() for name in os.listdir(tmp_path)} == {DATA}


def test_a_fresh_transfer_says_so_and_removes_old_parts(tmp_path: Path) -> None:
    (tmp_path / "a.part").write_bytes(DATA[:10])
    with opened(tmp_path) as lock:
        assert not lock.load_existing_lock()
        plan = lock.get_resume_plan(listed("a"))
        assert resume_message(plan) == "Starting fresh transfer"
        assert plan["fresh_files"] == ["a"]
        lock.create_lock_file("", listed("a"), 1000)
        assert not (tmp_path / "a.part").exists()
        assert lock.get_resume_bytes("a") == 0


def test_a_killed_process_loses_nothing_that_it_wrote(tmp_path: Path) -> None:
    """Names given and parts written after the lock was."""
    lock = begun(tmp_path, "a.txt", "b")
    (tmp_path / "a.txt").write_bytes(b"older")
    old = (tmp_path / LOCK_NAME).read_bytes()
    write(lock, "a.txt")
    write(lock, "b", 600)
    lock.close()
    (tmp_path / LOCK_NAME).write_bytes(old)
    with opened(tmp_path) as lock:
        assert lock.load_existing_lock()
        plan = lock.get_resume_plan(listed("a.txt", "b"))
        assert (plan["completed_files"], plan["resume_files"]) == (["a.txt"], [("b", 600)])
        state = lock.get_state("a.txt")
        assert state is not None
        assert state.saved_as == "a_1.txt"


def test_after_a_reboot_only_what_was_synced_counts(tmp_path: Path) -> None:
    lock = begun(tmp_path, "a", "b")
    writer = write(lock, "a", 400)
    lock.flush()
    old = (tmp_path / LOCK_NAME).read_bytes()
    writer.write_chunk(DATA[400:600])
    write(lock, "b", 600)
    lock.close()
    (tmp_path / LOCK_NAME).write_bytes(old)
    (tmp_path / "a.part").write_bytes(DATA[:400] + bytes(200))
    for _ in range(2):  # whoever comes after the reboot is of its boot
        with opened(tmp_path, boot=LATER_BOOT) as lock:
            assert lock.load_existing_lock()
            plan = lock.get_resume_plan(listed("a", "b"))
            assert plan["resume_files"] == [("a", 400)]
            assert plan["fresh_files"] == ["b"]
    with opened(tmp_path, boot=LATER_BOOT) as lock:
        assert lock.load_existing_lock()
        assert write(lock, "a").is_complete


@pytest.mark.parametrize(
    "change",
    [
        {"size": 999},
        {"original_hash": "0" * 64},
        {"original_hash": "", "last_modified": "2025-01-01T00:00:00Z"},
    ],
)
def test_a_changed_source_is_sent_afresh(tmp_path: Path, change: Any) -> None:
    with begun(tmp_path, "a", "b") as lock:
        write(lock, "a")
        write(lock, "b", 500)
        incoming: Any = [file | change for file in listed("a", "b")]
        assert lock.get_resume_plan(incoming)["fresh_files"] == ["a", "b"]


def test_without_digests_size_and_time_tell_that_a_file_is_the_same(tmp_path: Path) -> None:
    incoming: list[IncomingFile] = [
        {"filename": "a", "size": len(DATA), "last_modified": "then"},
        {"filename": "b", "size": len(DATA)},
    ]
    with opened(tmp_path) as lock:
        lock.create_lock_file("", incoming, 2000)
        write(lock, "a")
        write(lock, "b")
        plan = lock.get_resume_plan(incoming)
        assert (plan["completed_files"], plan["fresh_files"]) == (["a"], ["b"])


def test_without_digests_only_bytes_count_that_are_vouched_for(tmp_path: Path) -> None:
    incoming: list[IncomingFile] = [{"filename": "a", "size": 1000, "last_modified": "then"}]
    with opened(tmp_path) as lock:
        lock.create_lock_file("", incoming, 1000)
        write(lock, "a", 400)
        with open(tmp_path / "a.part", "ab") as part:
            part.write(b"by somebody")
        assert lock.get_resume_bytes("a") == 400
        assert lock.get_resume_plan(incoming)["resume_files"] == [("a", 400)]
        assert (tmp_path / "a.part").stat().st_size == 400
        lock.update_file_status("a", "in_progress", 400)  # and no digest of them
        assert lock.get_resume_plan(incoming)["fresh_files"] == ["a"]


def test_a_digest_that_is_announced_later_is_the_one_to_match(tmp_path: Path) -> None:
    unknown: IncomingFile = {"filename": "a", "size": len(DATA), "last_modified": "then"}
    with opened(tmp_path) as lock:
        lock.create_lock_file("", [unknown], 1000)
        write(lock, "a", 500)
        plan = lock.get_resume_plan([unknown | {"original_hash": DIGEST}])
        assert plan["resume_files"] == [("a", 500)]
        writer = FileWriter("a", len(DATA), 0, lock)
        writer.open_for_writing(500)
        writer.write_chunk(bytes(500))
        assert writer.retries == 1


def test_a_finished_file_that_was_changed_or_removed_is_sent_afresh(tmp_path: Path) -> None:
    with begun(tmp_path, "same", "changed", "gone") as lock:
        for name in ("same", "changed", "gone"):
            write(lock, name)
        (tmp_path / "changed").write_bytes(bytes(len(DATA)))
        (tmp_path / "gone").unlink()
        os.utime(tmp_path / "same", (1, 1))  # other facts, same content
        plan = lock.get_resume_plan(listed("same", "changed", "gone"))
        assert plan["completed_files"] == ["same"]
        assert plan["fresh_files"] == ["changed", "gone"]


def test_sources_that_changed_are_named_and_marked(tmp_path: Path) -> None:
    sources = tmp_path / "sources"
    sources.mkdir()
    for name, data in (("same", DATA), ("other", DATA[::-1])):
        (sources / name).write_bytes(data)
    os.mkfifo(sources / "pipe")
    names = ("same", "other", "none", "pipe")
    (tmp_path / "in").mkdir()
    with begun(tmp_path / "in", *names) as lock:
        for name in names:
            write(lock, name)
        paths = {name: str(sources / name) for name in names}
        assert lock.verify_source_files_unchanged(paths) == ["other", "none", "pipe"]
        state = lock.get_state("other")
        assert state is not None
        assert state.status is Status.PENDING
        assert log(tmp_path / "in").count("has changed") == 3


def test_the_part_of_a_source_that_changed_is_not_gone_on_with(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(DATA[::-1])
    (tmp_path / "in").mkdir()
    with begun(tmp_path / "in", "a") as lock:
        write(lock, "a", 300)
        assert lock.verify_source_files_unchanged({"a": str(source)}) == ["a"]
        assert lock.get_resume_bytes("a") == 0
        assert not (tmp_path / "in" / "a.part").exists()


def test_the_folder_may_be_named_by_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    begun(tmp_path / "link", "a").close()
    with opened(tmp_path / "link") as lock:
        assert lock.load_existing_lock()
    assert (tmp_path / "real" / LOCK_NAME).exists()


# --- locks that are of no use ---------------------------------------------------------


def test_a_stale_lock_is_removed(tmp_path: Path) -> None:
    clock = Clock()
    begun(tmp_path, "a", clock=clock).close()
    clock.now += 24.1 * 3600
    with opened(tmp_path, clock) as lock:
        assert not lock.load_existing_lock()
    assert os.listdir(tmp_path) == [LOG_NAME]
    assert "older than 24 hours" in log(tmp_path)


def test_a_clock_that_was_set_back_costs_no_progress(tmp_path: Path) -> None:
    clock = Clock()
    begun(tmp_path, "a", clock=clock).close()
    clock.now -= 10 * 365 * 24 * 3600
    with opened(tmp_path, clock) as lock:
        assert lock.load_existing_lock()


def test_a_lock_lives_for_24_hours_after_its_last_update(tmp_path: Path) -> None:
    clock = Clock()
    with begun(tmp_path, "a", clock=clock) as lock:
        clock.now += 23 * 3600
        lock.update_file_status("a", "failed", 0)
    clock.now += 23 * 3600
    with opened(tmp_path, clock) as lock:
        assert lock.load_existing_lock()


def _entry(**changes: Any) -> Callable[[dict[str, Any]], object]:
    return lambda value: value["files"]["a"].update(changes)


def _top(**changes: Any) -> Callable[[dict[str, Any]], object]:
    return lambda value: value.update(changes)


def _renamed(name: str) -> Callable[[dict[str, Any]], object]:
    return lambda value: value.update(files={name: value["files"]["a"]})


@pytest.mark.parametrize(
    "forge",
    [
        _top(version="2.0"),
        _top(session_id="not a uuid"),
        _top(session_id=7),
        _top(timestamp="yesterday"),
        _top(timestamp=1),
        _top(sender_ip="x" * 65),
        _top(sender_ip="\x1b[2J"),
        _top(total_files=2),
        _top(total_size=-1),
        _top(total_size=1e99),
        _top(files=[]),
        _top(files={"b": None}),
        _entry(status="done"),
        _entry(size=-1),
        _entry(size=1 << 63),
        _entry(size=True),
        _entry(transferred_bytes=1001),
        _entry(transferred_bytes=0.5),
        _entry(original_hash="0" * 63),
        _entry(partial_hash=None),
        *(_entry(saved_as=name) for name in ("../b", "b/c", "..", LOCK_NAME, "b.part", 7, None)),
        _entry(facts=[1]),
        _entry(facts=["x"] * 5),
        _renamed("../a"),
        _renamed("/etc/passwd"),
        _renamed(LOCK_NAME),
        _renamed(f"{LOG_NAME}/a"),
        _renamed(".furymesh-trash/a"),
        _renamed("a.part"),
        _renamed("a\ud800"),
        _renamed("a/" * 70 + "a"),
    ],
)
def test_a_forged_lock_is_not_used(
    tmp_path: Path, forge: Callable[[dict[str, Any]], object]
) -> None:
    begun(tmp_path, "a").close()
    value = stored(tmp_path)
    forge(value)
    (tmp_path / LOCK_NAME).write_text(json.dumps(value))
    with opened(tmp_path) as lock:
        assert not lock.load_existing_lock()
        assert lock.lock_data is None
        assert "was not used" in log(tmp_path)
        lock.create_lock_file("", listed("a"), 1000)
        assert write(lock, "a").is_complete


@pytest.mark.parametrize(
    "raw", [b"", b"{", b"[" * 100_000, b"null", b"\xff", b'{"version": 1' + b"0" * 5000]
)
def test_a_damaged_lock_is_not_used(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / LOCK_NAME).write_bytes(raw)
    with opened(tmp_path) as lock:
        assert not lock.load_existing_lock()


def test_a_huge_lock_is_not_read(tmp_path: Path) -> None:
    (tmp_path / LOCK_NAME).touch()
    os.truncate(tmp_path / LOCK_NAME, 1 << 40)
    with opened(tmp_path) as lock:
        assert not lock.load_existing_lock()
    assert "larger than" in log(tmp_path)


def test_a_linked_lock_is_neither_read_nor_written_through(tmp_path: Path) -> None:
    begun(tmp_path, "a").close()
    outside, folder = tmp_path / "outside.json", tmp_path / "folder"
    (tmp_path / LOCK_NAME).rename(outside)
    folder.mkdir()
    (folder / LOCK_NAME).symlink_to(outside)
    before = outside.read_bytes()
    with opened(folder) as lock:
        assert not lock.load_existing_lock()
        lock.create_lock_file("", listed("b"), 1000)
    assert outside.read_bytes() == before
    assert not (folder / LOCK_NAME).is_symlink()


def test_a_foreign_lock_makes_no_file_of_other_content_count(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    for directory in (one, other):
        directory.mkdir()
        (directory / "b.part").write_bytes(b"")
    with begun(one, "a", "b") as lock:
        write(lock, "a")
        write(lock, "b", 500)
    (other / LOCK_NAME).write_bytes((one / LOCK_NAME).read_bytes())
    (other / "a").write_bytes(bytes(len(DATA)))
    (other / "b.part").write_bytes(bytes(500))
    with opened(other) as lock:
        assert lock.load_existing_lock()
        plan = lock.get_resume_plan(listed("a", "b"))
        assert (plan["completed_files"], plan["resume_files"]) == ([], [("b", 500)])
        writer = write(lock, "b")
        assert (writer.written, writer.is_complete) == (0, False)
        assert writer.write_chunk(DATA) == len(DATA)
        assert writer.is_complete
    assert (other / "b").read_bytes() == DATA


def test_a_disk_that_refuses_the_lock_does_not_stop_the_transfer(tmp_path: Path) -> None:
    with begun(tmp_path, "a") as lock:
        (tmp_path / LOCK_NAME).unlink()
        (tmp_path / LOCK_NAME).mkdir()
        for number in range(151):
            lock.update_file_status("a", "in_progress", number)
        assert "cannot write" in log(tmp_path)
        (tmp_path / LOCK_NAME).rmdir()
    assert stored(tmp_path)["files"]["a"]["transferred_bytes"] == 150
