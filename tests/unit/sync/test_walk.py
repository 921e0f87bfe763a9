from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from pathlib import Path

import pytest

from furymesh.core.paths import MAX_COMPONENTS
from furymesh.storage.scan import Facts
from furymesh.sync.excludes import Excludes
from furymesh.sync.walk import Found, Walk
from tests.proc import descriptors
from tests.unit.sync.trees import make

NOBODY = 65534


class Look:
    """What one look through a folder found."""

    def __init__(self, root: Path, patterns: Sequence[str] = (), uid: int | None = None) -> None:
        """As user `uid`, if that can be chosen."""
        fd = os.open(root, os.O_RDONLY)
        me = os.geteuid()
        try:
            self.directories: list[str] = []
            self.walk = Walk(fd, Excludes(patterns), entered=self.directories.append)
            if uid is not None and me == 0:
                os.seteuid(uid)
            self.found = list(self.walk)
        finally:
            os.seteuid(me)
            os.close(fd)

    @property
    def paths(self) -> list[str]:
        return [found.path for found in self.found]

    @property
    def lines(self) -> list[str]:
        return self.walk.troubles.lines() + self.walk.troubles.notes()


def test_every_file_in_a_fixed_order_with_its_facts(tmp_path: Path) -> None:
    make(tmp_path, "b", "a/z", "a/b/c", "a/b/d", "é", "c/x", ".hidden")
    (tmp_path / "a/z").chmod(0o4750)
    (tmp_path / "empty/inner").mkdir(parents=True)
    before = descriptors()
    look = Look(tmp_path)
    assert look.paths == [".hidden", "b", "é", "a/z", "a/b/c", "a/b/d", "c/x"]
    assert look.directories == ["a", "a/b", "c", "empty", "empty/inner"]
    assert look.walk.empty == ["empty/inner/"]
    assert look.found[3] == Found("a/z", Facts.of((tmp_path / "a/z").stat()), 0o750)
    assert look.walk.complete
    assert look.lines == []
    assert descriptors() == before


def test_links_and_special_files_are_not_followed_and_reported_once(tmp_path: Path) -> None:
    outside, root = tmp_path / "outside", tmp_path / "root"
    make(outside, "secret")
    make(root, "file")
    (root / "folder").symlink_to(outside)
    (root / "link").symlink_to(outside / "secret")
    os.mkfifo(root / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.relpath(root / "sock"))
        look = Look(root)
    assert look.paths == ["file"]
    assert look.lines == [
        "left out, a link is not followed: folder, link",
        "left out, not a file but a pipe: pipe",
        "left out, not a file but a socket: sock",
    ]
    assert look.walk.troubles.count == 0
    assert look.walk.complete


def test_a_folder_that_becomes_a_link_meanwhile_leads_nowhere(tmp_path: Path) -> None:
    outside, root = tmp_path / "outside", tmp_path / "root"
    make(outside, "secret")
    make(root, "d/x", "z")
    fd = os.open(root, os.O_RDONLY)
    walk = Walk(fd)
    paths = []
    for found in walk:
        paths.append(found.path)
        (root / "d").rename(tmp_path / "moved")
        (root / "d").symlink_to(outside)
    os.close(fd)
    assert paths == ["z"]
    assert not walk.complete


def test_what_vanishes_meanwhile_is_no_trouble(tmp_path: Path) -> None:
    make(tmp_path, "a", "b", "d/x")
    fd = os.open(tmp_path, os.O_RDONLY)
    walk = Walk(fd)
    paths = []
    for found in walk:
        paths.append(found.path)
        (tmp_path / "b").unlink(missing_ok=True)
        (tmp_path / "d/x").unlink(missing_ok=True)
        if (tmp_path / "d").exists():
            (tmp_path / "d").rmdir()
    os.close(fd)
    assert paths == ["a"]
    assert walk.complete
    assert walk.troubles.count == 0


def test_a_folder_that_cannot_be_read_makes_the_look_incomplete(tmp_path: Path) -> None:
    make(tmp_path, "a", "d/x")
    tmp_path.chmod(0o755)
    (tmp_path / "d").chmod(0)
    look = Look(tmp_path, uid=NOBODY)
    (tmp_path / "d").chmod(0o700)
    assert look.paths == ["a"]
    assert not look.walk.complete
    assert look.lines == ["not sent, cannot be looked at (permission denied): d"]


def test_names_that_others_cannot_have_are_left_out(tmp_path: Path) -> None:
    make(tmp_path, "good", "a:b", "con", "dot.", "new\nline")
    os.close(os.open(os.fsencode(tmp_path) + b"/not-utf8-\xff", os.O_CREAT | os.O_WRONLY))
    look = Look(tmp_path)
    assert look.paths == ["good"]
    assert look.walk.troubles.count == 5
    assert all(line.isprintable() for line in look.lines)


def test_of_names_that_some_systems_cannot_tell_apart_the_first_counts(tmp_path: Path) -> None:
    make(tmp_path, "A", "a", "d/é", "d/e\u0301", "D2/x", "d2/y")
    look = Look(tmp_path)
    assert look.paths == ["A", "D2/x", "d/e\u0301"]
    assert look.walk.troubles.count == 3


def test_too_deep_a_tree_is_left_out_below(tmp_path: Path) -> None:
    at = os.open(tmp_path, os.O_RDONLY)
    for _ in range(MAX_COMPONENTS + 3):
        os.close(os.open("f", os.O_CREAT | os.O_WRONLY, dir_fd=at))
        os.mkdir("d", dir_fd=at)
        below = os.open("d", os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = below
    os.close(at)
    look = Look(tmp_path)
    assert len(look.paths) == MAX_COMPONENTS
    assert look.walk.troubles.count == 2


def test_too_long_a_path_is_left_out(tmp_path: Path) -> None:
    at = os.open(tmp_path, os.O_RDONLY)
    for _ in range(17):
        name = "d" * 250
        os.mkdir(name, dir_fd=at)
        below = os.open(name, os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = below
        os.close(os.open("f", os.O_CREAT | os.O_WRONLY, dir_fd=at))
    os.close(at)
    look = Look(tmp_path)
    assert len(look.paths) == 16
    assert "a path longer than 4096 bytes" in look.lines[0]


def test_files_of_the_sync_itself_do_not_travel(tmp_path: Path) -> None:
    own = (".furymesh-trash/2026-01-01/a", ".transfer_lock.json", "transfer_warnings.log")
    make(tmp_path, "a", *own)
    look = Look(tmp_path)
    assert look.paths == ["a"]
    assert look.lines == []


def test_excluded_folders_are_not_entered(tmp_path: Path) -> None:
    make(tmp_path, "a", "b.o", "build/x", "d/build/y", "d/z")
    (tmp_path / "build/link").symlink_to("x")
    look = Look(tmp_path, ["build/", "*.o"])
    assert look.paths == ["a", "d/z"]
    assert look.directories == ["d"]
    assert look.lines == []


def test_a_file_of_another_century_is_left_out(tmp_path: Path) -> None:
    make(tmp_path, "a", "b")
    try:
        os.utime(tmp_path / "b", ns=(2**63, 2**63))
    except OverflowError:
        pytest.skip("no file can be so old here")
    if (tmp_path / "b").stat().st_mtime_ns < 2**63:
        pytest.skip("this file system keeps no such times")
    look = Look(tmp_path)
    assert look.paths == ["a"]
    assert look.lines == ["not sent, its time is centuries away: b"]


def test_a_look_that_is_given_up_leaves_nothing_open(tmp_path: Path) -> None:
    make(tmp_path, "a/b/c/d", "x")
    before = descriptors()
    fd = os.open(tmp_path, os.O_RDONLY)
    files = iter(Walk(fd))
    next(files)
    next(files)
    files.close()  # type: ignore[attr-defined]
    os.close(fd)
    assert descriptors() == before
