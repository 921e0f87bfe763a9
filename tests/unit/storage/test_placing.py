"""Moving a part to another disk."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from furymesh.core.errors import DiskFullError, EnvironmentFault, UsageError
from furymesh.core.ids import FileId
from furymesh.core.snapshot import ResumeMeta
from furymesh.storage.lock import lock_open_file
from furymesh.storage.order import Order, Settings
from furymesh.storage.part_names import part_path
from furymesh.storage.placing import final_path, place_part

FILE_ID = FileId(b"\x11" * 32)


@pytest.fixture
def disks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Two directories between which a rename fails as it does between two disks."""
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    rename = os.rename

    def between(source: os.PathLike[str], target: os.PathLike[str]) -> None:
        if Path(source).parent != Path(target).parent:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        rename(source, target)

    monkeypatch.setattr(os, "rename", between)
    return part_path(here / "film", FILE_ID), there / "film"


def stored(part: Path) -> ResumeMeta:
    return ResumeMeta(FILE_ID, "film", str(part.parent / "film"), str(part), 0.0)


def test_part_that_is_in_place_is_not_replaced_by_another(tmp_path: Path) -> None:
    part = part_path(tmp_path / "film", FILE_ID)
    part.write_bytes(b"in place")
    old = part_path(tmp_path / "old", FILE_ID)
    old.write_bytes(b"another")
    assert place_part(tmp_path / "film", FILE_ID, stored(old)) == part
    assert part.read_bytes() == b"in place"
    assert old.read_bytes() == b"another"


@pytest.mark.parametrize(
    ("known", "hint", "sealed", "name"),
    [
        (None, "clip", False, "clip"),
        (None, "clip", True, "clip.sealed"),
        (None, "../", False, "1" * 16),
        ("film", "clip", False, "film"),
        ("nul\0/film", "clip", False, "film"),
    ],
)
def test_the_name_is_the_best_there_is(
    tmp_path: Path, known: str | None, hint: str, sealed: bool, name: str
) -> None:
    """`known`: a path in resume data, where nothing lies."""
    meta = None if known is None else stored(tmp_path / known)
    settings = Settings(tmp_path, tmp_path, tmp_path / "downloads")
    path = final_path(Order(FILE_ID), settings, meta, hint, sealed=sealed)
    assert path == tmp_path / "downloads" / name


@pytest.mark.parametrize("linked", [False, True])
def test_a_pipe_is_no_place_for_a_download(tmp_path: Path, linked: bool) -> None:
    settings = Settings(tmp_path, tmp_path, tmp_path)
    target = tmp_path / "pipe"
    os.mkfifo(target)
    if linked:
        (tmp_path / "link").symlink_to(target)
        target = tmp_path / "link"
    with pytest.raises(UsageError, match="neither a file nor a folder"):
        final_path(Order(FILE_ID, output=target), settings, None, "", sealed=False)


def test_copy_is_on_the_disk_before_it_has_the_name(
    disks: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    old, final = disks
    new = part_path(final, FILE_ID)
    old.mkdir()
    (old / "a").write_bytes(b"one")
    (old / "b").mkdir()
    (old / "b" / "c").write_bytes(b"two")
    synced: set[int] = set()

    def fsync(fd: int) -> None:
        if not new.exists():
            synced.add(os.fstat(fd).st_ino)

    monkeypatch.setattr(os, "fsync", fsync)
    assert place_part(final, FILE_ID, stored(old)) == new
    assert not old.exists()
    assert (new / "b" / "c").read_bytes() == b"two"
    assert {path.stat().st_ino for path in (new, *new.rglob("*"))} <= synced
    assert os.listdir(final.parent) == [new.name]


@pytest.mark.parametrize("folder", [False, True], ids=["file", "folder"])
def test_copy_that_fails_leaves_nothing_and_is_made_again(
    disks: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, folder: bool
) -> None:
    old, final = disks
    name = "a" if folder else "."
    if folder:
        old.mkdir()
    (old / name).write_bytes(b"content")

    def no_sync(fd: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as failing:
        failing.setattr(os, "fsync", no_sync)
        with pytest.raises(DiskFullError):
            place_part(final, FILE_ID, stored(old))
    assert (old / name).read_bytes() == b"content"
    assert os.listdir(final.parent) == [], "a full disk stays full of what is of no use"
    part = place_part(final, FILE_ID, stored(old))
    assert (part / name).read_bytes() == b"content"
    assert os.listdir(final.parent) == [part.name]
    assert not old.exists()


def die_moving(old: Path, final: Path) -> None:
    """`place_part` in a process that ends when the copy is to be synced."""
    pid = os.fork()
    if not pid:
        try:
            os.fsync = lambda fd: os._exit(9)
            place_part(final, FILE_ID, stored(old))
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9


@pytest.mark.parametrize("folder", [False, True])
@pytest.mark.parametrize("name", ["film", "é" * 127], ids=["short", "long"])
def test_copy_that_a_dead_process_made_is_removed_by_the_next_run_there(
    disks: tuple[Path, Path], folder: bool, name: str
) -> None:
    old, final = disks[0], disks[1].with_name(name)
    if folder:
        old.mkdir()
        (old / "a").write_bytes(b"content")
    else:
        old.write_bytes(b"content")
    die_moving(old, final)
    (copy,) = final.parent.iterdir()
    other = final.with_name("another name")
    with open_and_locked(copy):
        assert place_part(other, FILE_ID, None) == part_path(other, FILE_ID)
        assert copy.exists(), "somebody is making it"
    place_part(other, FileId(b"\x12" * 32), None)
    assert copy.exists(), "it is of another download"
    place_part(other, FILE_ID, None)
    assert not copy.exists()
    assert old.exists()


@contextlib.contextmanager
def open_and_locked(path: Path) -> Iterator[None]:
    fd = os.open(path, os.O_RDONLY)
    lock_open_file(fd, path, what="used")
    yield
    os.close(fd)


@pytest.mark.parametrize("folder", [False, True], ids=["file", "folder"])
def test_a_full_disk_is_told_as_such_and_the_part_stays(
    small_disk: Path, tmp_path: Path, folder: bool
) -> None:
    old = part_path(tmp_path / "film", FILE_ID)
    content = old
    if folder:
        old.mkdir()
        content = old / "a"
    content.write_bytes(bytes(100 * 1024))
    with pytest.raises(DiskFullError, match=r"move the part to .*: the disk is full"):
        place_part(small_disk / "film", FILE_ID, stored(old))
    assert content.stat().st_size == 100 * 1024
    assert not part_path(small_disk / "film", FILE_ID).exists()


def test_what_a_link_inside_a_part_leads_to_is_not_copied(
    disks: tuple[Path, Path], tmp_path: Path
) -> None:
    old, final = disks
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "a").write_bytes(b"not part of it")
    old.mkdir()
    (old / "b").symlink_to(tmp_path / "secrets")
    for target in ("secrets", "secrets/a"):
        (old / "b").unlink()
        (old / "b").symlink_to(tmp_path / target)
        with pytest.raises(EnvironmentFault, match="links"):
            place_part(final, FILE_ID, stored(old))
        assert (old / "b").is_symlink()
        assert not part_path(final, FILE_ID).exists()
