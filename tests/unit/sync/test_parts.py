"""What lies where a part should be, and is none."""

from __future__ import annotations

import contextlib
import os
import resource
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from furymesh.core.errors import EnvironmentFault
from furymesh.sync import LOG_NAME, FileWriter, Folder, IncomingFile, TransferLockManager
from furymesh.sync.names import part_name

NOBODY = 65534


@pytest.fixture(params=[False, True], ids=["plain", "distinct"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Folder]:
    (tmp_path / "in").mkdir()
    made = Folder(tmp_path / "in", distinct_parts=request.param)
    yield made
    made.close()


@pytest.fixture
def part(folder: Folder) -> Path:
    """Where the part of ``a`` lies."""
    return folder.path / part_name("a", folder.distinct_parts)


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    path = tmp_path / "victim"
    path.write_bytes(b"mine")
    return path


def foreign(part: Path, victim: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("giving files away needs root")
    part.write_bytes(b"1234")
    os.chown(part, NOBODY, NOBODY)


def hard_linked(part: Path, victim: Path) -> None:
    os.link(victim, part)


def linked(part: Path, victim: Path) -> None:
    part.symlink_to(victim)


def a_pipe(part: Path, victim: Path) -> None:
    os.mkfifo(part)


@pytest.mark.parametrize("put", [foreign, hard_linked, linked, a_pipe])
@pytest.mark.parametrize("resume", [0, 4])
def test_what_is_no_part_of_ours_is_replaced_and_not_written_to(
    folder: Folder, part: Path, victim: Path, put: Callable[[Path, Path], None], resume: int
) -> None:
    put(part, victim)
    writer = FileWriter("a", 8, 0, folder=folder)
    writer.open_for_writing(resume_bytes=resume)
    assert writer.written == 0
    assert writer.write_chunk(b"12345678") == 8
    assert (folder.path / "a").read_bytes() == b"12345678"
    assert victim.read_bytes() == b"mine"
    assert os.stat(folder.path / "a").st_uid == os.geteuid()


@pytest.mark.parametrize("put", [foreign, hard_linked, linked, a_pipe])
def test_a_part_that_was_swapped_while_it_is_written_is_begun_afresh(
    folder: Folder, part: Path, victim: Path, put: Callable[[Path, Path], None]
) -> None:
    writer = FileWriter("a", 8, 0, folder=folder)
    assert writer.write_chunk(b"1234") == 4
    part.unlink()
    put(part, victim)
    assert writer.write_chunk(b"5678") == 0
    assert (writer.written, writer.retries) == (0, 0)
    assert "lost or changed" in str(writer.error)
    assert writer.write_chunk(b"12345678") == 8
    assert writer.is_complete
    assert writer.error is None
    assert victim.read_bytes() == b"mine"


@pytest.mark.parametrize("put", [hard_linked, linked, a_pipe, foreign])
def test_a_lock_finds_nothing_to_resume_in_what_is_no_part(
    tmp_path: Path, victim: Path, put: Callable[[Path, Path], None]
) -> None:
    (tmp_path / "in").mkdir()
    with TransferLockManager(tmp_path / "in") as lock:
        files: list[IncomingFile] = [{"filename": "a", "size": 8, "original_hash": "0" * 64}]
        lock.create_lock_file("", files, 8)
        put(tmp_path / "in/a.part", victim)
        assert lock.get_resume_bytes("a") == 0
        lock.update_file_status("a", "in_progress", 4)
        lock.flush()
        assert lock.get_resume_plan(files)["fresh_files"] == ["a"]
    assert victim.read_bytes() == b"mine"


def test_a_file_that_was_taken_by_another_user_is_not_counted_as_finished(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("giving files away needs root")
    with TransferLockManager(tmp_path) as lock:
        files: list[IncomingFile] = [{"filename": "a", "size": 4, "last_modified": "then"}]
        lock.create_lock_file("", files, 4)
        FileWriter("a", 4, 0, lock).write_chunk(b"1234")
        assert lock.get_resume_plan(files)["completed_files"] == ["a"]
        os.chown(tmp_path / "a", NOBODY, NOBODY)
        assert lock.get_resume_plan(files)["fresh_files"] == ["a"]


def go_on_as_nobody(directory: Path) -> int:
    """Finish the part in a directory as a user who may not write to everything."""
    if os.geteuid() == 0:
        for path in (directory, directory / "a.part"):
            os.chown(path, NOBODY, NOBODY)
        os.seteuid(NOBODY)
    writer = FileWriter("a", 4, 0, folder=Folder(directory))
    writer.open_for_writing(resume_bytes=4)
    return 0 if writer.is_complete else 1


def test_a_read_only_part_is_gone_on_from() -> None:
    """One that has the mode of its file already, and waited for its name."""
    with tempfile.TemporaryDirectory() as name:  # which others may look into, if they own it
        directory = Path(name)
        (directory / "a.part").write_bytes(b"1234")
        (directory / "a.part").chmod(0o444)
        child = os.fork()
        if not child:
            code = 2
            try:
                code = go_on_as_nobody(directory)
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert (directory / "a").read_bytes() == b"1234"


def test_a_directory_in_the_way_costs_its_file_only(tmp_path: Path) -> None:
    (tmp_path / "a.part/mine").mkdir(parents=True)
    with TransferLockManager(tmp_path) as lock:
        lock.create_lock_file("", [{"filename": name, "size": 1} for name in "ab"], 2)
        a, b = (FileWriter(name, 1, 0, lock) for name in "ab")
        for _ in range(2):
            a.open_for_writing()
            assert a.write_chunk(b"1") == 0
            assert isinstance(a.error, EnvironmentFault)
            assert str(a.error).endswith(
                "/a: a directory lies where its .part file should be; move it away"
            )
        assert b.write_chunk(b"1") == 1
        assert (tmp_path / "a.part/mine").is_dir()
        (tmp_path / "a.part/mine").rmdir()
        (tmp_path / "a.part").rmdir()
        assert a.write_chunk(b"1") == 1
    assert (tmp_path / "a").read_bytes() == b"1"


def test_what_is_left_of_a_directory_that_was_replaced_blocks_nobody(tmp_path: Path) -> None:
    folder = Folder(tmp_path, distinct_parts=True)
    (tmp_path / part_name("a", distinct=True) / "deep").mkdir(parents=True)
    assert FileWriter("a", 1, 0, folder=folder).write_chunk(b"1") == 1
    assert os.listdir(tmp_path) == ["a"]
    folder.close()


def test_the_log_is_not_written_through_another_name(folder: Folder, victim: Path) -> None:
    os.link(victim, folder.path / LOG_NAME)
    folder.warn("something")
    assert victim.read_bytes() == b"mine"


@contextlib.contextmanager
def no_more_descriptors() -> Iterator[None]:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    spare: list[int] = []
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")), limits[1]))
        with contextlib.suppress(OSError):
            while True:
                spare.append(os.dup(0))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for fd in spare:
            os.close(fd)


def test_without_descriptors_nothing_is_given_up(tmp_path: Path) -> None:
    """The moment is bad, and neither the lock nor a part is."""
    files: list[IncomingFile] = [{"filename": "deep/a", "size": 8, "original_hash": "0" * 64}]
    with TransferLockManager(tmp_path) as lock:
        lock.create_lock_file("", files, 8)
        writer = FileWriter("deep/a", 8, 0, lock)
        writer.write_chunk(b"1234")
    with TransferLockManager(tmp_path) as lock:
        assert lock.folder.root_fd
        with no_more_descriptors(), pytest.raises(EnvironmentFault, match="limit of open files"):
            lock.load_existing_lock()
        assert lock.load_existing_lock()
        with no_more_descriptors(), pytest.raises(EnvironmentFault, match="limit of open files"):
            lock.get_resume_plan(files)
        with no_more_descriptors(), pytest.raises(EnvironmentFault, match="limit of open files"):
            lock.get_resume_bytes("deep/a")
        assert lock.get_resume_plan(files)["resume_files"] == [("deep/a", 4)]
        writer = FileWriter("deep/a", 8, 0, lock)
        writer.open_for_writing(4)
        with no_more_descriptors():
            assert writer.write_chunk(b"5678") == 0
            assert (writer.written, writer.needs_rehash) == (4, True)
            lock.update_file_status("deep/a", "in_progress", 4)
            with pytest.raises(EnvironmentFault):
                lock.flush()
            state = lock.get_state("deep/a")
            assert state is not None
            assert state.transferred_bytes == 4
    assert (tmp_path / "deep/a.part").read_bytes() == b"1234"
