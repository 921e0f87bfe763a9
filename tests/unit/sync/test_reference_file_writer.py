"""FileWriter as it is documented: a test for each behaviour, listed in docs/sync.md."""

from __future__ import annotations

import hashlib
import os
import subprocess
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from furymesh.core.errors import DiskFullError, InvalidManifestError
from furymesh.sync import (
    LOG_NAME,
    FileWriter,
    Folder,
    IncomingFile,
    Status,
    TransferLockManager,
)
from furymesh.sync.lock_format import FileState

DATA = bytes(range(256)) * 16
DIGEST = hashlib.sha256(DATA).hexdigest()
HALF = len(DATA) // 2
NOBODY = 65534


@pytest.fixture(autouse=True)
def working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The documented calls name no folder: they work in the current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def lock() -> Iterator[TransferLockManager]:
    """Of a session with a document of which the digest is known."""
    with TransferLockManager() as made:
        file = IncomingFile(filename="document.pdf", size=len(DATA), original_hash=DIGEST)
        made.create_lock_file("192.0.2.1", [file], len(DATA))
        yield made


def state(lock: TransferLockManager) -> FileState:
    found = lock.get_state("document.pdf")
    assert found is not None
    return found


def arrive(name: str = "document.pdf", overwrite_mode: bool = False) -> FileWriter:
    writer = FileWriter(name, size=len(DATA), offset=0, overwrite_mode=overwrite_mode)
    writer.open_for_writing()
    writer.write_chunk(DATA)
    return writer


def warnings() -> str:
    return Path(LOG_NAME).read_text() if Path(LOG_NAME).exists() else ""


# --- the class ----------------------------------------------------------------------


def test_constructor_takes_and_keeps_what_is_documented(lock: TransferLockManager) -> None:
    writer = FileWriter("document.pdf", len(DATA), 7, lock, True)
    assert (writer.filename, writer.size, writer.offset) == ("document.pdf", len(DATA), 7)
    assert writer.written == 0
    assert writer.hasher.hexdigest() == hashlib.sha256().hexdigest()
    assert writer.part_file == Path("document.pdf.part").absolute()
    assert writer.is_complete is False
    assert writer.lock_manager is lock
    assert writer.needs_rehash is False
    assert writer.overwrite_mode is True
    writer = FileWriter("document.pdf", size=1, offset=0)
    assert (writer.lock_manager, writer.overwrite_mode) == (None, False)


def test_open_for_writing_creates_parent_directories() -> None:
    FileWriter("some/where/deep/document.pdf", 1, 0).open_for_writing()
    assert Path("some/where/deep").is_dir()


def test_open_for_writing_with_the_expected_size_needs_a_rehash() -> None:
    Path("document.pdf.part").write_bytes(DATA[:HALF])
    writer = FileWriter("document.pdf", len(DATA), 0)
    writer.open_for_writing(resume_bytes=HALF)
    assert (writer.written, writer.needs_rehash) == (HALF, True)


@pytest.mark.parametrize("here", [None, b"", DATA[: HALF - 1], DATA[: HALF + 1]])
def test_open_for_writing_with_another_size_starts_fresh(here: bytes | None) -> None:
    if here is not None:
        Path("document.pdf.part").write_bytes(here)
    writer = FileWriter("document.pdf", len(DATA), 0)
    writer.open_for_writing(resume_bytes=HALF)
    assert (writer.written, writer.needs_rehash) == (0, False)
    assert not writer.part_file.exists()


def test_open_for_writing_completes_what_is_fully_transferred() -> None:
    Path("document.pdf.part").write_bytes(DATA)
    writer = FileWriter("document.pdf", len(DATA), 0)
    writer.open_for_writing(resume_bytes=len(DATA))
    assert writer.is_complete
    assert Path("document.pdf").read_bytes() == DATA


def test_write_chunk_returns_the_bytes_written_and_has_them_on_disk_at_once() -> None:
    writer = FileWriter("document.pdf", len(DATA), 0)
    writer.open_for_writing()
    for at in range(0, len(DATA), 1000):
        assert writer.write_chunk(DATA[at : at + 1000]) == len(DATA[at : at + 1000])
        where = writer.part_file if writer.written < len(DATA) else Path("document.pdf")
        assert where.read_bytes() == DATA[: at + 1000]


def test_write_chunk_keeps_no_file_open() -> None:
    writer = FileWriter("document.pdf", len(DATA), 0)
    before = os.listdir("/proc/self/fd")
    writer.open_for_writing()
    writer.write_chunk(DATA[:HALF])
    assert len(os.listdir("/proc/self/fd")) == len(before)


def test_write_chunk_buffers_nothing() -> None:
    """Memory stays that of a chunk, whatever the size of the file."""
    chunk = bytes(64 * 1024)
    writer = FileWriter("document.pdf", 1 << 40, 0)
    writer.write_chunk(chunk)
    tracemalloc.start()
    try:
        for _ in range(100):
            writer.write_chunk(chunk)
        assert tracemalloc.get_traced_memory()[1] < len(chunk)
    finally:
        tracemalloc.stop()


def test_write_chunk_hashes_as_it_writes() -> None:
    writer = FileWriter("document.pdf", len(DATA), 0)
    writer.write_chunk(DATA[:1000])
    assert writer.get_hash() == hashlib.sha256(DATA[:1000]).hexdigest()


def test_write_chunk_appends_to_what_was_resumed() -> None:
    Path("document.pdf.part").write_bytes(DATA[:HALF])
    writer = FileWriter("document.pdf", len(DATA), 0)
    writer.open_for_writing(resume_bytes=HALF)
    assert writer.write_chunk(DATA[HALF:]) == HALF
    assert Path("document.pdf").read_bytes() == DATA


def test_write_chunk_replaces_an_old_part_when_it_begins_fresh() -> None:
    Path("document.pdf.part").write_bytes(bytes(9000))
    writer = FileWriter("document.pdf", len(DATA), 0)
    writer.open_for_writing()
    writer.write_chunk(DATA[:10])
    assert writer.part_file.read_bytes() == DATA[:10]


def test_write_chunk_completes_the_file_when_its_size_is_reached() -> None:
    writer = FileWriter("document.pdf", len(DATA), 0)
    writer.write_chunk(DATA[:-1])
    before = writer.is_complete
    writer.write_chunk(DATA[-1:])
    assert (before, writer.is_complete) == (False, True)
    assert os.listdir() == ["document.pdf"]


def test_write_chunk_tells_the_lock(lock: TransferLockManager) -> None:
    writer = FileWriter("document.pdf", len(DATA), 0, lock)
    assert state(lock).status is Status.PENDING
    writer.write_chunk(DATA[:HALF])
    assert (state(lock).status, state(lock).transferred_bytes) == (Status.IN_PROGRESS, HALF)
    assert state(lock).partial_hash == hashlib.sha256(DATA[:HALF]).hexdigest()
    writer.write_chunk(DATA[HALF:])
    assert (state(lock).status, state(lock).transferred_bytes) == (Status.COMPLETED, len(DATA))


def test_complete_file_stores_the_final_hash_in_the_lock() -> None:
    """Also where the sender has announced none."""
    with TransferLockManager() as lock:
        lock.create_lock_file("", [{"filename": "document.pdf", "size": len(DATA)}], len(DATA))
        FileWriter("document.pdf", len(DATA), 0, lock).write_chunk(DATA)
        assert state(lock).original_hash == state(lock).partial_hash == DIGEST


def test_complete_file_adds_a_number_to_a_name_that_is_taken() -> None:
    saved = [arrive().saved_as for _ in range(3)]
    assert [path.name for path in saved if path] == [
        *("document.pdf", "document_1.pdf", "document_2.pdf")
    ]


def test_complete_file_in_overwrite_mode_replaces_files_and_directories() -> None:
    Path("document.pdf").write_bytes(b"old")
    Path("directory/deep").mkdir(parents=True)
    for name in ("document.pdf", "directory"):
        arrive(name, overwrite_mode=True)
        assert Path(name).read_bytes() == DATA
    assert sorted(os.listdir()) == ["directory", "document.pdf"]


def test_complete_file_in_overwrite_mode_falls_back_to_a_number() -> None:
    if os.geteuid() != 0:
        pytest.skip("a mount point needs root")
    Path("document.pdf").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "furymesh-test", "document.pdf"], check=True)
    try:
        writer = arrive(overwrite_mode=True)
    finally:
        subprocess.run(["umount", "document.pdf"], check=True)
    assert writer.saved_as == Path("document_1.pdf").absolute()
    assert "cannot replace" in warnings()


def test_an_unfinished_file_never_has_its_final_name() -> None:
    writer = FileWriter("document.pdf", len(DATA), 0)
    for at in range(0, len(DATA) - 1000, 1000):
        writer.write_chunk(DATA[at : at + 1000])
        assert os.listdir() == ["document.pdf.part"]


# --- resuming -----------------------------------------------------------------------


def half_way(lock: TransferLockManager) -> FileWriter:
    FileWriter("document.pdf", len(DATA), 0, lock).write_chunk(DATA[:HALF])
    writer = FileWriter("document.pdf", size=len(DATA), offset=0, lock_manager=lock)
    writer.open_for_writing(resume_bytes=lock.get_resume_bytes("document.pdf"))
    return writer


def test_existing_data_is_hashed_when_the_first_chunk_comes(lock: TransferLockManager) -> None:
    writer = half_way(lock)
    before = writer.needs_rehash, writer.get_hash()
    assert before == (True, hashlib.sha256().hexdigest())
    writer.write_chunk(DATA[HALF : HALF + 1])
    assert not writer.needs_rehash
    assert writer.get_hash() == hashlib.sha256(DATA[: HALF + 1]).hexdigest()
    assert state(lock).partial_hash == writer.get_hash()


@pytest.mark.parametrize("damage", ["changed", "cut", "gone"])
def test_existing_data_that_is_damaged_is_transferred_again(
    lock: TransferLockManager, damage: str
) -> None:
    writer = half_way(lock)
    if damage == "gone":
        writer.part_file.unlink()
    else:
        writer.part_file.write_bytes(b"x" * (HALF if damage == "changed" else 1))
    assert writer.write_chunk(DATA[HALF:]) == 0
    assert writer.written == 0
    assert not writer.part_file.exists()
    assert writer.write_chunk(DATA) == len(DATA)
    assert Path("document.pdf").read_bytes() == DATA


def test_reset_for_retry_begins_with_nothing(lock: TransferLockManager) -> None:
    writer = half_way(lock)
    writer.write_chunk(DATA[HALF : HALF + 1])
    writer.reset_for_retry()
    assert writer.written == 0
    assert writer.get_hash() == hashlib.sha256().hexdigest()
    assert not writer.part_file.exists()
    assert (state(lock).status, state(lock).transferred_bytes) == (Status.PENDING, 0)
    assert writer.write_chunk(DATA) == len(DATA)
    assert writer.is_complete


def test_a_wrong_hash_is_retried_three_times(lock: TransferLockManager) -> None:
    writer = FileWriter("document.pdf", len(DATA), 0, lock)
    for _ in range(4):
        assert writer.needs_data(0)
        writer.write_chunk(bytes(len(DATA)))
        assert not writer.is_complete
    assert not writer.needs_data(0)
    assert state(lock).status is Status.FAILED
    assert not Path("document.pdf").exists()
    assert not writer.part_file.exists()


def test_needs_data_tells_whose_a_byte_of_the_unified_stream_is() -> None:
    writers = [FileWriter("a", 10, 0), FileWriter("b", 10, 10)]
    writers[0].write_chunk(DATA[:4])
    wanting = [[writer.needs_data(at) for writer in writers] for at in (3, 4, 9, 10, 19, 20)]
    assert wanting == [
        *([False, False], [True, False], [True, False]),
        *([False, True], [False, True], [False, False]),
    ]


def test_close_does_nothing() -> None:
    writer = FileWriter("document.pdf", len(DATA), 0)
    writer.write_chunk(DATA[:HALF])
    writer.close()
    assert writer.write_chunk(DATA[HALF:]) == HALF
    assert writer.is_complete


# --- errors -------------------------------------------------------------------------


def test_an_error_of_writing_is_logged_and_nothing_counts() -> None:
    Path("taken").write_bytes(b"")
    writer = FileWriter("taken/document.pdf", len(DATA), 0)
    writer.open_for_writing()
    assert writer.write_chunk(DATA) == 0
    assert writer.written == 0
    assert "cannot write" in warnings()


def test_what_is_not_permitted_is_logged_and_the_next_file_goes_on() -> None:
    Path("mine").mkdir()
    Path(LOG_NAME).touch()
    Path().chmod(0o555)
    folder = Folder()
    writers = [FileWriter(name, 1, 0, folder=folder) for name in ("document.pdf", "mine/other")]
    root = os.geteuid() == 0 and folder.root_fd
    if root:  # who may do anything
        os.chown("mine", NOBODY, NOBODY)
        os.chown(LOG_NAME, NOBODY, NOBODY)
        os.seteuid(NOBODY)
    try:
        assert [writer.write_chunk(b"x") for writer in writers] == [0, 1]
    finally:
        if root:
            os.seteuid(0)
        Path().chmod(0o755)
        folder.close()
    assert str(writers[0].error).endswith("permission denied; check its permissions")
    assert "permission denied" in warnings()


def test_a_full_disk_is_logged(small_disk: Path) -> None:
    folder = Folder(small_disk)
    folder.warn("the log has room, at least")
    writer = FileWriter("document.pdf", 1 << 20, 0, folder=folder)
    while writer.write_chunk(DATA):
        pass
    assert isinstance(writer.error, DiskFullError)
    assert writer.written == writer.part_file.stat().st_size // len(DATA) * len(DATA)
    assert "the disk is full" in (small_disk / LOG_NAME).read_text()
    folder.close()


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "a/../../b", "..", ""])
def test_paths_that_lead_elsewhere_are_refused(name: str) -> None:
    with pytest.raises(InvalidManifestError):
        FileWriter(name, 1, 0)


# --- the documented examples ----------------------------------------------------------


def test_example_of_basic_usage() -> None:
    chunks = [DATA[at : at + 1000] for at in range(0, len(DATA), 1000)]
    writer = FileWriter("document.pdf", size=len(DATA), offset=0)
    writer.open_for_writing()
    for chunk in chunks:
        assert writer.write_chunk(chunk) == len(chunk)
    assert writer.is_complete
    assert Path("document.pdf").read_bytes() == DATA


def test_example_of_resuming(lock: TransferLockManager) -> None:
    FileWriter("document.pdf", len(DATA), 0, lock).write_chunk(DATA[:HALF])
    lock.close()
    lock_manager = TransferLockManager()
    assert lock_manager.load_existing_lock()
    resume_bytes = lock_manager.get_resume_bytes("document.pdf")
    writer = FileWriter("document.pdf", size=len(DATA), offset=0, lock_manager=lock_manager)
    writer.open_for_writing(resume_bytes=resume_bytes)
    assert resume_bytes == HALF
    assert writer.write_chunk(DATA[resume_bytes:]) == HALF
    assert Path("document.pdf").read_bytes() == DATA
    lock_manager.close()
