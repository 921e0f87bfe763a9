import contextlib
import errno
import fcntl
import os
import stat
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from furymesh.core.errors import DiskFullError, EnvironmentFault
from furymesh.storage.files import (
    atomic_write,
    fsync_dir,
    make_directories_beneath,
    make_private_directory,
    open_beneath,
    open_directory_beneath,
    open_root,
    read_bytes,
    sweep_temporaries,
    translating,
)


@pytest.fixture
def root(tmp_path: Path) -> Iterator[int]:
    fd = open_root(tmp_path)
    yield fd
    os.close(fd)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_full_disks_are_told_apart(code: int) -> None:
    message = r"cannot write /x/\\x1b: the disk is full; free some"
    with pytest.raises(DiskFullError, match=message), translating("/x/\x1b", "write"):
        raise OSError(code, os.strerror(code))


def test_other_failures_name_path_and_advice() -> None:
    message = "cannot read a: permission denied; check"
    with pytest.raises(EnvironmentFault, match=message) as caught, translating(Path("a"), "read"):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    assert not isinstance(caught.value, DiskFullError)
    assert isinstance(caught.value.__cause__, PermissionError)
    with pytest.raises(EnvironmentFault, match=r"cannot read a: odd$"), translating("a", "read"):
        raise OSError("odd")


# --- beneath a root -----------------------------------------------------------


def test_walks_to_a_file(tmp_path: Path, root: int) -> None:
    make_directories_beneath(root, ("a", "b"))
    make_directories_beneath(root, ("a", "b"))
    fd = open_beneath(root, ("a", "b", "c"), os.O_WRONLY | os.O_CREAT, 0o640)
    os.write(fd, b"x")
    assert not os.get_inheritable(fd)
    os.close(fd)
    assert (tmp_path / "a/b/c").read_bytes() == b"x"
    assert stat.S_IMODE((tmp_path / "a/b/c").stat().st_mode) == 0o640


def link_to_file(at: Path, outside: Path) -> None:
    at.symlink_to(outside / "secret")


def link_to_directory(at: Path, outside: Path) -> None:
    at.symlink_to(outside)


@pytest.mark.parametrize("components", [("link",), ("d", "link")], ids="/".join)
@pytest.mark.parametrize("place", [link_to_file, link_to_directory])
@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_WRONLY | os.O_CREAT | os.O_TRUNC])
def test_never_follows_a_link(
    tmp_path: Path,
    components: tuple[str, ...],
    place: Callable[[Path, Path], None],
    flags: int,
) -> None:
    inside, outside = tmp_path / "in", tmp_path / "out"
    (inside / "d").mkdir(parents=True)
    outside.mkdir()
    (outside / "secret").write_bytes(b"secret")
    place(inside.joinpath(*components), outside)
    fd = open_root(inside)
    try:
        for path in (components, (*components, "secret")):
            with pytest.raises(OSError, match=r"\w") as caught:
                open_beneath(fd, path, flags)
            assert caught.value.errno in (errno.ELOOP, errno.ENOTDIR)
        with pytest.raises(OSError, match=r"\w"):
            make_directories_beneath(fd, (*components, "new"))
    finally:
        os.close(fd)
    assert [path.name for path in outside.iterdir()] == ["secret"]
    assert (outside / "secret").read_bytes() == b"secret"


def test_reading_takes_the_room_of_the_file_and_not_of_the_limit(tmp_path: Path) -> None:
    (tmp_path / "small").write_bytes(b"abc")
    tracemalloc.start()
    try:
        assert read_bytes(tmp_path / "small", 1 << 30) == b"abc"
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
    with pytest.raises(EnvironmentFault, match="larger than 2 bytes"):
        read_bytes(tmp_path / "small", 2)


def test_refuses_what_is_not_a_file_without_waiting_for_it(tmp_path: Path, root: int) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "dir").mkdir()
    for name, code in [("pipe", errno.EINVAL), ("dir", errno.EISDIR)]:
        with pytest.raises(OSError, match=r"\w") as caught:
            open_beneath(root, (name,), os.O_RDONLY)
        assert caught.value.errno == code


def test_no_descriptor_leaks_when_a_walk_fails(tmp_path: Path, root: int) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").touch()
    before = len(os.listdir("/proc/self/fd"))
    for path in [("pipe",), ("file", "x"), ("none", "x"), ("none",), ("pipe", "x", "y")]:
        with contextlib.suppress(OSError):
            os.close(open_beneath(root, path, os.O_RDONLY))
        with pytest.raises(OSError, match=r"\w"):
            open_directory_beneath(root, path)
    assert len(os.listdir("/proc/self/fd")) == before


# --- whole files --------------------------------------------------------------


def test_atomic_write_replaces_and_is_private(tmp_path: Path) -> None:
    path = tmp_path / "state"
    for data in (b"one", b"", b"three" * 1000):
        atomic_write(path, data)
        assert path.read_bytes() == data
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == ["state"]


def test_atomic_write_replaces_a_link_and_not_its_target(tmp_path: Path) -> None:
    (tmp_path / "target").write_bytes(b"old")
    (tmp_path / "state").symlink_to("target")
    atomic_write(tmp_path / "state", b"new")
    assert (tmp_path / "target").read_bytes() == b"old"
    assert not (tmp_path / "state").is_symlink()


@pytest.mark.parametrize("call", ["write", "fsync", "rename"])
def test_atomic_write_keeps_the_old_file_when_the_disk_fills(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    path = tmp_path / "state"
    atomic_write(path, b"old")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, call, full)
    with pytest.raises(DiskFullError):
        atomic_write(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["state"]


def die_writing(path: Path) -> None:
    """`atomic_write` in a process that ends before the rename."""
    pid = os.fork()
    if not pid:
        try:
            os.rename = lambda *_: os._exit(9)
            atomic_write(path, b"new")
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9


def test_what_a_dead_process_was_writing_is_swept_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    atomic_write(tmp_path / "state", b"old")
    (tmp_path / ".hidden").touch()
    die_writing(tmp_path / "state")
    die_writing(tmp_path / "other")
    assert len(os.listdir(tmp_path)) == 4
    sweep_temporaries(tmp_path, "other")
    assert len(os.listdir(tmp_path)) == 3
    rename = os.rename

    def swept_meanwhile(source: Path, target: Path) -> None:
        sweep_temporaries(tmp_path)
        rename(source, target)

    monkeypatch.setattr(os, "rename", swept_meanwhile)
    atomic_write(tmp_path / "state", b"new")
    assert sorted(os.listdir(tmp_path)) == [".hidden", "state"]
    assert (tmp_path / "state").read_bytes() == b"new"
    sweep_temporaries(tmp_path / "none")


def test_atomic_write_succeeds_when_swept_before_its_file_is_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flock, swept = fcntl.flock, list[int]()

    def sweep_first(fd: int, how: int) -> None:
        if not swept:
            swept.append(fd)
            sweep_temporaries(tmp_path)
            assert os.listdir(tmp_path) == []
        flock(fd, how)

    monkeypatch.setattr(fcntl, "flock", sweep_first)
    atomic_write(tmp_path / "state", b"new")
    assert os.listdir(tmp_path) == ["state"]


def test_atomic_write_survives_short_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:3]))
    atomic_write(tmp_path / "state", b"0123456789")
    assert (tmp_path / "state").read_bytes() == b"0123456789"


def test_read_bytes(tmp_path: Path) -> None:
    path = tmp_path / "state"
    assert read_bytes(path, 10) is None
    assert read_bytes(tmp_path / "none" / "state", 10) is None
    path.write_bytes(b"0123456789")
    assert read_bytes(path, 10) == b"0123456789"
    with pytest.raises(EnvironmentFault, match="larger than 9 bytes"):
        read_bytes(path, 9)
    (tmp_path / "link").symlink_to(path)
    for bad in (tmp_path / "link", tmp_path, path / "below"):
        with pytest.raises(EnvironmentFault):
            read_bytes(bad, 10)


def test_private_directories(tmp_path: Path) -> None:
    make_private_directory(tmp_path / "a" / "b")
    make_private_directory(tmp_path / "a" / "b")
    for path in (tmp_path / "a", tmp_path / "a" / "b"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "x"):
        with pytest.raises(EnvironmentFault, match="cannot create"):
            make_private_directory(path)


def test_directories_that_are_not_there(tmp_path: Path) -> None:
    for function in (fsync_dir, open_root):
        with pytest.raises(EnvironmentFault, match="check that it exists"):
            function(tmp_path / "none")


def test_new_directories_are_durable_up_the_chain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(os.fstat(fd).st_ino))
    make_private_directory(tmp_path / "a" / "b" / "c")
    parents = (tmp_path, tmp_path / "a", tmp_path / "a" / "b")
    assert synced == [parent.stat().st_ino for parent in parents]
