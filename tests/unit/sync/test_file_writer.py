from __future__ import annotations

import contextlib
import hashlib
import os
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from furymesh.core.errors import (
    DiskFullError,
    EnvironmentFault,
    InvalidManifestError,
    UsageError,
    VerificationError,
)
from furymesh.sync import (
    FileWriter,
    Folder,
    GroupCommit,
    IncomingFile,
    Status,
    TransferLockManager,
)
from furymesh.sync.folder import MAX_LOG_SIZE
from furymesh.sync.group_commit import FEW_FILES
from furymesh.sync.names import LOG_NAME

DATA = bytes(range(256)) * 40
DIGEST = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Folder]:
    (tmp_path / "in").mkdir()
    made = Folder(tmp_path / "in", clock=lambda: 0.0)
    yield made
    made.close()


def log(folder: Folder) -> str:
    path = folder.path / LOG_NAME
    return path.read_text() if path.exists() else ""


def names(folder: Folder) -> list[str]:
    return sorted(name for name in os.listdir(folder.path) if name != LOG_NAME)


def receive(folder: Folder, name: str = "a.txt", overwrite_mode: bool = False) -> FileWriter:
    writer = FileWriter(
        name, len(DATA), 0, None, overwrite_mode, folder=folder, expected_hash=DIGEST
    )
    writer.open_for_writing()
    assert writer.write_chunk(DATA) == len(DATA)
    return writer


# --- writing ----------------------------------------------------------------------


def test_a_file_gets_its_name_with_its_last_byte(folder: Folder) -> None:
    writer = FileWriter("deep/er/a.txt", len(DATA), 0, folder=folder)
    writer.open_for_writing()
    for at in range(0, len(DATA), 1000):
        assert not writer.is_complete
        assert writer.write_chunk(DATA[at : at + 1000]) == len(DATA[at : at + 1000])
        assert writer.get_hash() == hashlib.sha256(DATA[: at + 1000]).hexdigest()
        if at == 1000:
            assert writer.part_file == folder.path / "deep/er/a.txt.part"
            assert writer.part_file.stat().st_size == writer.written == 2000
    assert writer.is_complete
    assert writer.error is None
    assert writer.saved_as == folder.path / "deep/er/a.txt"
    assert writer.saved_as.read_bytes() == DATA
    assert os.listdir(folder.path / "deep/er") == ["a.txt"]
    assert log(folder) == ""


def test_what_goes_beyond_the_size_is_left_for_the_next_file(folder: Folder) -> None:
    writer = FileWriter("a", 10, 0, folder=folder)
    writer.open_for_writing()
    assert writer.write_chunk(DATA) == 10
    assert writer.write_chunk(DATA) == 0
    assert (folder.path / "a").read_bytes() == DATA[:10]


def test_an_empty_file_is_there_at_once(folder: Folder) -> None:
    writer = FileWriter("a", 0, 0, folder=folder)
    writer.open_for_writing()
    assert writer.is_complete
    assert (folder.path / "a").read_bytes() == b""


def test_data_is_needed_where_it_is_missing_in_the_stream(folder: Folder) -> None:
    writer = FileWriter("a", 10, 100, folder=folder)
    writer.open_for_writing()
    assert [writer.needs_data(at) for at in (99, 100, 109, 110)] == [False, True, True, False]
    writer.write_chunk(DATA[:4])
    assert [writer.needs_data(at) for at in (103, 104)] == [False, True]
    writer.write_chunk(DATA[4:10])
    assert not writer.needs_data(104)


def test_without_a_folder_it_is_the_working_directory_and_nothing_stays_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = os.listdir("/proc/self/fd")
    writer = FileWriter("deep/a", 10, 0)
    writer.open_for_writing()
    writer.write_chunk(DATA[:5])
    assert len(os.listdir("/proc/self/fd")) == len(before)
    monkeypatch.chdir("/")
    writer.write_chunk(DATA[5:10])
    assert (tmp_path / "deep/a").read_bytes() == DATA[:10]


def test_thousands_of_unfinished_files_need_few_descriptors(folder: Folder) -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 48, limits[1]))
    try:
        writers = [FileWriter(f"{n % 100}/{n}", 2, 0, folder=folder) for n in range(1000)]
        for half in (b"x", b"y"):
            for writer in writers:
                writer.open_for_writing() if half == b"x" else None
                assert writer.write_chunk(half) == 1, writer.error
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert all(writer.is_complete for writer in writers)


# --- names --------------------------------------------------------------------------


def test_a_name_that_is_taken_gets_a_number(folder: Folder) -> None:
    (folder.path / "a_1.txt").mkdir()
    (folder.path / "a_2.txt").symlink_to("nowhere")
    saved = [receive(folder).saved_as for _ in range(3)]
    assert saved == [folder.path / name for name in ("a.txt", "a_3.txt", "a_4.txt")]


def test_overwriting_replaces_files_links_and_directories(folder: Folder, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(b"mine")
    (folder.path / "file").write_bytes(b"old")
    (folder.path / "link").symlink_to(outside)
    (folder.path / "directory/deep").mkdir(parents=True)
    (folder.path / "directory/deep/link").symlink_to(tmp_path)
    for name in ("file", "link", "directory"):
        writer = receive(folder, name, overwrite_mode=True)
        assert writer.is_complete
        assert (folder.path / name).read_bytes() == DATA
        assert not (folder.path / name).is_symlink()
    assert names(folder) == ["directory", "file", "link"]
    assert outside.read_bytes() == b"mine"


def test_what_cannot_be_replaced_stays_and_the_file_gets_a_number(folder: Folder) -> None:
    if os.geteuid() != 0:
        pytest.skip("a mount point needs root")
    (folder.path / "a.txt").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "furymesh-test", folder.path / "a.txt"], check=True)
    try:
        assert receive(folder, overwrite_mode=True).saved_as == folder.path / "a_1.txt"
    finally:
        subprocess.run(["umount", folder.path / "a.txt"], check=True)
    assert "cannot replace" in log(folder)
    assert names(folder) == ["a.txt", "a_1.txt"]


@pytest.mark.parametrize(
    "name",
    [
        *("../a", "/a", "a/../../b", "a//b", "", ".", "a\0", "a\n", "CON", "x" * 256),
        *(".transfer_lock.json", ".Transfer_Lock.JSON", "..transfer_lock.json.00.tmp"),
        *("transfer_warnings.log", "transfer_warnings.log/x", ".furymesh-trash/x"),
        *("a.part", "A.PART", "a.part/b"),
    ],
)
def test_names_that_lead_elsewhere_or_are_ours_are_refused(folder: Folder, name: str) -> None:
    with pytest.raises(InvalidManifestError):
        FileWriter(name, 1, 0, folder=folder)


def test_no_link_is_followed(folder: Folder, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "victim").write_bytes(b"mine")
    (folder.path / "way").symlink_to(outside)
    (folder.path / "a.part").symlink_to(outside / "victim")
    os.link(outside / "victim", folder.path / "b.part")
    (folder.path / LOG_NAME).symlink_to(outside / "victim")
    writer = FileWriter("way/file", 1, 0, folder=folder)
    writer.open_for_writing()
    assert writer.write_chunk(b"x") == 0
    assert isinstance(writer.error, EnvironmentFault)
    for name in ("a", "b"):
        for resume in (0, 2):
            writer = FileWriter(name, 4, 0, folder=folder)
            writer.open_for_writing(resume_bytes=resume if name == "a" else 0)
            assert writer.write_chunk(b"evil"[writer.written :])
    assert (folder.path / "a").read_bytes() == (folder.path / "b").read_bytes() == b"evil"
    assert os.listdir(outside) == ["victim"]
    assert (outside / "victim").read_bytes() == b"mine"


def test_long_names_have_parts_of_their_own(folder: Folder) -> None:
    writers = [FileWriter("x" * 252 + end, 4, 0, folder=folder) for end in "ab"]
    for half in (b"xy", b"zw"):
        for writer in writers:
            assert writer.write_chunk(half) == 2
    assert [(folder.path / ("x" * 252 + end)).read_bytes() for end in "ab"] == [b"xyzw"] * 2


# --- resuming -----------------------------------------------------------------------


@pytest.mark.parametrize("here", [0, 1, 4000, len(DATA)])
def test_a_part_is_gone_on_from(folder: Folder, here: int) -> None:
    (folder.path / "a.txt.part").write_bytes(DATA[:here])
    writer = FileWriter("a.txt", len(DATA), 0, folder=folder, expected_hash=DIGEST)
    writer.open_for_writing(resume_bytes=here)
    assert writer.written in (here, len(DATA))
    if here < len(DATA):
        assert writer.needs_rehash == bool(here)
        assert writer.write_chunk(DATA[here:]) == len(DATA) - here
    assert writer.is_complete
    assert (folder.path / "a.txt").read_bytes() == DATA


@pytest.mark.parametrize("here", [3999, 4001])
def test_a_part_of_another_size_is_begun_afresh(folder: Folder, here: int) -> None:
    part = folder.path / "a.txt.part"
    part.write_bytes(DATA[:here])
    writer = FileWriter("a.txt", len(DATA), 0, folder=folder)
    writer.open_for_writing(resume_bytes=4000)
    assert writer.written == 0
    assert writer.error is None
    assert not part.exists()
    assert f"its part has {here} bytes instead of 4000: it begins afresh" in log(folder)
    assert writer.write_chunk(DATA) == len(DATA)
    assert (folder.path / "a.txt").read_bytes() == DATA


def test_a_part_that_is_not_what_the_lock_vouches_for_is_begun_afresh(tmp_path: Path) -> None:
    with TransferLockManager(tmp_path) as lock:
        lock.create_lock_file("", [{"filename": "a", "size": len(DATA)}], len(DATA))
        lock.update_file_status("a", "in_progress", 10, hashlib.sha256(DATA[:10]).hexdigest())
        for content, taken in ((DATA[:9] + b"x" + DATA[10:20], 0), (DATA[:20], 5)):
            (tmp_path / "a.part").write_bytes(content)
            writer = FileWriter("a", len(DATA), 0, lock)
            writer.open_for_writing(resume_bytes=20)
            assert writer.needs_rehash
            assert writer.write_chunk(DATA[20:25]) == taken
            assert writer.written == (25 if taken else 0)
            lock.update_file_status("a", "in_progress", 10, hashlib.sha256(DATA[:10]).hexdigest())


def test_wrong_content_is_asked_for_three_times_again_and_then_given_up(tmp_path: Path) -> None:
    with TransferLockManager(tmp_path) as lock:
        size = len(DATA)
        lock.create_lock_file("", [{"filename": "a", "size": size, "original_hash": DIGEST}], size)
        writer = FileWriter("a", size, 0, lock)
        for _ in range(3):
            writer.open_for_writing()
            writer.write_chunk(bytes(size))
            assert isinstance(writer.error, VerificationError)
            assert writer.needs_data(0)
            state = lock.get_state("a")
            assert state is not None
            assert state.status is Status.PENDING
        writer.write_chunk(bytes(size))
        assert not writer.needs_data(0)
        assert writer.write_chunk(DATA) == 0
        state = lock.get_state("a")
        assert state is not None
        assert state.status is Status.FAILED
        assert os.listdir(tmp_path) == unordered(tmp_path, [".transfer_lock.json", LOG_NAME])
    retried = FileWriter("a", size, 0, expected_hash=DIGEST, folder=Folder(tmp_path))
    retried.write_chunk(bytes(size))
    assert retried.write_chunk(DATA) == size
    assert retried.is_complete


def unordered(path: Path, expected: list[str]) -> list[str]:
    assert set(os.listdir(path)) == set(expected)
    return os.listdir(path)


def test_bytes_that_changed_in_the_part_are_noticed(folder: Folder) -> None:
    writer = FileWriter("a", 10, 0, folder=folder)
    writer.write_chunk(DATA[:5])
    writer.part_file.write_bytes(b"other")
    writer.write_chunk(DATA[5:10])
    assert not writer.is_complete
    assert writer.written == 0
    assert names(folder) == []


def test_a_part_that_was_removed_is_begun_afresh(folder: Folder) -> None:
    writer = FileWriter("deep/a", 10, 0, folder=folder)
    writer.write_chunk(DATA[:5])
    writer.part_file.unlink()
    writer.part_file.parent.rmdir()
    assert writer.write_chunk(DATA[5:10]) == 0
    assert writer.written == 0
    assert writer.write_chunk(DATA[:10]) == 10
    assert writer.is_complete


# --- disks --------------------------------------------------------------------------


def test_on_a_full_disk_nothing_counts_that_did_not_fit(small_disk: Path) -> None:
    folder = Folder(small_disk)
    filler = small_disk / "filler"
    writer = FileWriter("a", 40_000, 0, folder=folder)
    data = bytes(range(250)) * 160
    assert writer.write_chunk(data[:4000]) == 4000
    with open(filler, "wb") as file, contextlib.suppress(OSError):
        while True:
            os.write(file.fileno(), bytes(1000))
    assert writer.write_chunk(data[4000:]) == 0
    assert type(writer.error) is DiskFullError
    assert str(writer.error).endswith("the disk is full; free some space, then run this again")
    assert writer.written == 4000
    filler.unlink()
    assert writer.write_chunk(data[4000:]) == 36_000
    assert (small_disk / "a").read_bytes() == data
    folder.close()


def test_on_a_disk_that_cannot_be_written_each_call_says_so(small_disk: Path) -> None:
    folder = Folder(small_disk)
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    writer = FileWriter("deep/a", 4, 0, folder=folder)
    writer.open_for_writing()
    assert "read-only" in str(writer.error)
    assert writer.write_chunk(b"1234") == 0
    assert writer.written == 0
    subprocess.run(["mount", "-o", "remount,rw", small_disk], check=True)
    assert writer.write_chunk(b"1234") == 4
    assert writer.is_complete
    folder.close()


def test_a_folder_that_is_gone_is_an_error_of_the_writer(tmp_path: Path) -> None:
    writer = FileWriter("a", 4, 0, folder=Folder(tmp_path / "none"))
    writer.open_for_writing()
    assert writer.write_chunk(b"1234") == 0
    assert isinstance(writer.error, EnvironmentFault)


def test_the_log_has_a_line_for_each_trouble_and_an_end(folder: Folder) -> None:
    (folder.path / "a").write_bytes(b"")
    writer = FileWriter("a/b", 4, 0, folder=folder)
    writer.write_chunk(b"1234")
    assert log(folder).startswith("1970-01-01T00:00:00Z cannot write ")
    folder.warn("two\nlines \x1b[2J")
    assert log(folder).splitlines()[-1].endswith(r"two\nlines \x1b[2J")
    os.truncate(folder.path / LOG_NAME, MAX_LOG_SIZE)
    folder.warn("more")
    assert (folder.path / LOG_NAME).stat().st_size == MAX_LOG_SIZE


@pytest.mark.parametrize(("size", "offset"), [(-1, 0), (0, -1)])
def test_sizes_that_cannot_be_are_refused(folder: Folder, size: int, offset: int) -> None:
    with pytest.raises(UsageError):
        FileWriter("a", size, offset, folder=folder)


def test_a_file_is_not_complete_before_its_last_byte(folder: Folder) -> None:
    writer = FileWriter("a", 4, 0, folder=folder)
    writer.write_chunk(b"123")
    with pytest.raises(UsageError, match="lacks 1 bytes"):
        writer.complete_file()


# --- many at once -------------------------------------------------------------------


def test_files_of_a_group_get_their_names_together(tmp_path: Path) -> None:
    digest = hashlib.sha256(DATA[:10]).hexdigest()
    listed: list[IncomingFile] = [
        {"filename": f"{n % 3}/{n}", "size": 10, "original_hash": digest} for n in range(20)
    ]
    with TransferLockManager(tmp_path) as lock:
        lock.create_lock_file("", listed, 200)
        with GroupCommit(lock.folder) as group:
            writers = [FileWriter(f"{n % 3}/{n}", 10, 0, lock, commit=group) for n in range(20)]
            for writer in writers:
                writer.open_for_writing()
                assert writer.write_chunk(DATA[:10]) == 10
                assert not writer.is_complete
                assert writer.part_file.exists()
                assert lock.get_resume_bytes(writer.filename) == 10
        for writer in writers:
            assert writer.is_complete
            assert writer.saved_as is not None
            assert writer.saved_as.read_bytes() == DATA[:10]
            state = lock.get_state(writer.filename)
            assert state is not None
            assert state.status is Status.COMPLETED


def test_a_group_commits_when_it_is_large(folder: Folder) -> None:
    group = GroupCommit(folder)
    writers = [FileWriter(str(n), 1, 0, folder=folder, commit=group) for n in range(501)]
    for writer in writers:
        writer.write_chunk(b"x")
    assert [writer.is_complete for writer in writers] == [True] * 500 + [False]
    group.commit()
    assert writers[-1].is_complete


@pytest.mark.parametrize("count", [2, 2 * FEW_FILES])  # synced one by one, and together
def test_what_a_group_cannot_name_says_so_and_the_rest_is_named(folder: Folder, count: int) -> None:
    group = GroupCommit(folder)
    writers = [FileWriter(str(n), 1, 0, folder=folder, commit=group) for n in range(count)]
    for writer in writers:
        writer.write_chunk(b"x")
    (folder.path / "0.part").unlink()
    group.commit()
    assert [writer.is_complete for writer in writers] == [False] + [True] * (count - 1)
    assert isinstance(writers[0].error, EnvironmentFault)
    assert names(folder) == [str(n) for n in range(1, count)]


def test_a_file_that_began_afresh_waits_only_once(folder: Folder) -> None:
    group = GroupCommit(folder)
    writers = [FileWriter(str(n), 1, 0, folder=folder, commit=group) for n in range(9)]
    for writer in writers:
        writer.write_chunk(b"x")
    for writer in writers[:2]:
        writer.reset_for_retry()
    writers[0].write_chunk(b"y")
    group.commit()
    assert [writer.is_complete for writer in writers] == [True, False] + [True] * 7
    assert writers[1].error is None
    assert names(folder) == list("02345678")
    assert (folder.path / "0").read_bytes() == b"y"


def test_time_and_mode_are_given_before_the_name(folder: Folder) -> None:
    for name, group in (("alone", None), ("grouped", GroupCommit(folder))):
        writer = FileWriter(
            name, 4, 0, folder=folder, commit=group, mode=0o104551, mtime_ns=1_234_567_890_123
        )
        writer.write_chunk(b"1234")
        if group:
            part = os.stat(writer.part_file)
            group.commit()
            assert part.st_mtime_ns == 1_234_567_890_123
        status = os.stat(folder.path / name)
        assert status.st_mtime_ns == 1_234_567_890_123
        assert status.st_mode & 0o7777 == 0o551
