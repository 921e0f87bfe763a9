"""Moving a part to another disk."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from furymesh.core.errors import EnvironmentFault
from furymesh.core.ids import FileId
from furymesh.core.snapshot import ResumeMeta
from furymesh.storage.part_names import part_path
from furymesh.storage.placing import place_part

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


def test_killed_in_the_middle_of_the_copy_is_moved_again(
    disks: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    old, final = disks
    old.write_bytes(b"content")

    def no_sync(fd: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as failing:
        failing.setattr(os, "fsync", no_sync)
        with pytest.raises(EnvironmentFault):
            place_part(final, FILE_ID, stored(old))
    assert old.read_bytes() == b"content"
    part = place_part(final, FILE_ID, stored(old))
    assert part.read_bytes() == b"content"
    assert os.listdir(final.parent) == [part.name]
    assert not old.exists()
