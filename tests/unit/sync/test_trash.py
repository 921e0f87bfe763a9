from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from furymesh.core.errors import EnvironmentFault
from furymesh.sync.entries import TRASH_NAME
from furymesh.sync.folder import Folder
from furymesh.sync.trash import Trash
from furymesh.sync.walk import Walk
from tests.proc import descriptors
from tests.unit.sync.trees import make, tree

DAY = 24 * 3600.0
NOON = 20_000 * DAY + DAY / 2  # of 2024-10-04


class Clock:
    """The time that the trash is told."""

    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Folder]:
    (tmp_path / "in").mkdir()
    made = Folder(tmp_path / "in")
    yield made
    made.close()


@pytest.fixture
def trash(folder: Folder, clock: Clock) -> Trash:
    return Trash(folder, clock)


def test_a_file_goes_into_the_trash_of_the_day_under_its_own_path(
    folder: Folder, trash: Trash
) -> None:
    make(folder.path, "d/e/a", "d/b")
    inode = (folder.path / "d/e/a").stat().st_ino
    assert trash.move("d/e/a") == ["d/e"]
    assert tree(folder.path) == {f"{TRASH_NAME}/2024-10-04/d/e/a": b"d/e/a", "d/b": b"d/b"}
    assert (folder.path / TRASH_NAME / "2024-10-04/d/e/a").stat().st_ino == inode
    assert trash.move("d/b") == ["d"]
    assert not (folder.path / "d").exists()
    assert trash.move("d/b") == []  # gone already
    assert (folder.path / TRASH_NAME).stat().st_mode & 0o777 == 0o700


def test_what_went_the_same_day_is_not_replaced(folder: Folder, trash: Trash) -> None:
    for content in ("one", "two", "three"):
        (folder.path / "a.txt").write_text(content)
        trash.move("a.txt")
    day = f"{TRASH_NAME}/2024-10-04"
    assert tree(folder.path) == {
        f"{day}/a.txt": b"one",
        f"{day}/a_1.txt": b"two",
        f"{day}/a_2.txt": b"three",
    }


def test_a_name_may_be_a_file_and_a_folder_in_one_day(folder: Folder, trash: Trash) -> None:
    make(folder.path, "a")
    trash.move("a")
    make(folder.path, "a/b")
    trash.move("a/b")
    make(folder.path, "a")
    trash.move("a")
    assert sorted(tree(folder.path)) == [
        f"{TRASH_NAME}/2024-10-04/a",
        f"{TRASH_NAME}/2024-10-04/a_1",
        f"{TRASH_NAME}/2024-10-04_1/a/b",
    ]


def test_folders_with_something_left_in_them_stay(folder: Folder, trash: Trash) -> None:
    make(folder.path, "d/a")
    (folder.path / "d/link").symlink_to("a")
    assert trash.move("d/a") == []
    assert (folder.path / "d/link").is_symlink()


def test_only_files_are_moved(folder: Folder, trash: Trash, tmp_path: Path) -> None:
    make(tmp_path, "outside/secret")
    (folder.path / "link").symlink_to(tmp_path / "outside")
    (folder.path / "folder").mkdir()
    assert trash.move("link") == []
    assert trash.move("folder") == []
    assert trash.move("link/secret") == []
    assert (tmp_path / "outside/secret").exists()
    assert not (folder.path / TRASH_NAME).exists()


@pytest.mark.parametrize("where", [TRASH_NAME, f"{TRASH_NAME}/2024-10-04"])
def test_a_trash_that_is_a_link_takes_nothing_outside(
    folder: Folder, trash: Trash, tmp_path: Path, where: str
) -> None:
    (tmp_path / "outside").mkdir()
    (folder.path / where).parent.mkdir(exist_ok=True)
    (folder.path / where).symlink_to(tmp_path / "outside")
    make(folder.path, "a")
    try:
        trash.move("a")
    except EnvironmentFault:
        assert (folder.path / "a").exists()
    assert os.listdir(tmp_path / "outside") == []


def test_old_days_are_swept_and_nothing_else(folder: Folder, trash: Trash, clock: Clock) -> None:
    for name in ("one", "two"):
        make(folder.path, f"d/{name}")
        trash.move(f"d/{name}")
        clock.now += 20 * DAY
    odd = ("notes.txt", "2000-01-01 is a file", "2000-99-99/x", "1999-01-01")
    make(folder.path / TRASH_NAME, *odd)
    (folder.path / TRASH_NAME / "2000-01-02").symlink_to(folder.path)
    assert trash.sweep() == 1
    left = tree(folder.path / TRASH_NAME)
    assert "2024-10-24/d/two" in left
    assert "2024-10-04/d/one" not in left
    assert set(odd) <= left.keys()
    assert trash.sweep(keep_days=10) == 1
    clock.now = 0.0  # a clock that was set back sweeps nothing
    assert trash.sweep() == 0


def test_an_empty_trash_goes(folder: Folder, trash: Trash, clock: Clock) -> None:
    assert trash.sweep() == 0
    make(folder.path, "a")
    trash.move("a")
    clock.now += 31 * DAY
    assert trash.sweep() == 1
    assert os.listdir(folder.path) == []


def test_sweeping_follows_no_link(
    folder: Folder, trash: Trash, clock: Clock, tmp_path: Path
) -> None:
    make(tmp_path, "outside/kept")
    make(folder.path, "a")
    trash.move("a")
    (folder.path / TRASH_NAME / "2024-10-04/link").symlink_to(tmp_path / "outside")
    clock.now += 31 * DAY
    assert trash.sweep() == 1
    assert (tmp_path / "outside/kept").exists()


def test_the_trash_is_not_of_the_client(folder: Folder, trash: Trash) -> None:
    make(folder.path, "a", "b")
    trash.move("a")
    assert [found.path for found in Walk(folder.root_fd)] == ["b"]


def test_nothing_stays_open(folder: Folder, trash: Trash) -> None:
    make(folder.path, "d/a", "d/b", "c")
    _ = folder.root_fd
    before = descriptors()
    for path in ("d/a", "d/b", "c"):
        trash.move(path)
    trash.sweep()
    folder.forget_directories()
    assert descriptors() == before
