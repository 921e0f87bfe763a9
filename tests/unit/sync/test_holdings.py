from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from furymesh.storage.hashing import HashingStopped
from furymesh.sync.copying import copy_held
from furymesh.sync.entries import FileInfo, kept_mode
from furymesh.sync.folder import Folder
from furymesh.sync.group_commit import GroupCommit
from furymesh.sync.holdings import Holdings
from tests.proc import descriptors
from tests.unit.sync.trees import LONG_AGO_NS, make, put, tree


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Folder]:
    (tmp_path / "in").mkdir()
    made = Folder(tmp_path / "in", distinct_parts=True)
    yield made
    made.close()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


def noted(folder: Folder, data: Path, *files: FileInfo) -> Holdings:
    """Holdings that have the hash of files on the disk, as after receiving them."""
    held = Holdings(folder, data)
    for info in files:
        held.note(info, (folder.path / info.path).stat())
    held.save()
    return held


def described(folder: Folder, path: str, content: bytes) -> FileInfo:
    digest = put(folder.path / path, content)
    mode = kept_mode((folder.path / path).stat().st_mode)
    return FileInfo(path, len(content), LONG_AGO_NS, mode, digest)


# --- looking ------------------------------------------------------------------


def test_what_is_held_is_found_by_path_by_content_and_by_size(folder: Folder, data: Path) -> None:
    info = described(folder, "d/a", b"12345")
    noted(folder, data, info)
    put(folder.path / "b", b"54321")
    held = Holdings(folder, data)
    assert sorted(held) == ["b", "d/a"]
    assert len(held) == 2
    assert held.get("d/a") == info
    assert held.get("b") == FileInfo("b", 5, LONG_AGO_NS, info.mode)
    assert held.with_hash(info.sha256) == "d/a"
    assert list(held.unhashed_of_size(5)) == ["b"]
    assert held.had_size(5)
    assert not held.had_size(6)
    assert held.is_directory("d")
    assert not held.is_directory("d/a")
    assert held.complete
    assert held.get("none") is None
    assert held.with_hash(bytes(32)) is None


def test_no_file_is_opened_to_see_what_is_unchanged(
    folder: Folder, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    infos = [described(folder, f"d{n % 5}/f{n}", b"%d" % n) for n in range(50)]
    noted(folder, data, *infos)
    opened, me = list[str](), threading.current_thread()
    real = os.open

    def watched(path: str, *args: object, **kwargs: object) -> int:
        if threading.current_thread() is me:  # others may end what earlier tests began
            opened.append(os.fspath(path))
        return real(path, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", watched)
    held = Holdings(folder, data)
    assert [held.get(info.path) for info in infos] == infos
    assert not {info.path.rpartition("/")[2] for info in infos} & set(opened)


@pytest.mark.parametrize("change", ["content", "time", "mode", "replaced"])
def test_a_file_that_was_changed_here_is_not_trusted(
    folder: Folder, data: Path, change: str
) -> None:
    info = described(folder, "a", b"12345")
    noted(folder, data, info)
    path = folder.path / "a"
    if change == "content":
        path.write_bytes(b"54321")
        os.utime(path, ns=(LONG_AGO_NS, LONG_AGO_NS))
    elif change == "time":
        os.utime(path, ns=(1, 1))
    elif change == "mode":
        path.chmod(0o600)
    else:
        put(folder.path / "new", b"54321")
        (folder.path / "new").rename(path)
    held = Holdings(folder, data)
    found = held.get("a")
    assert found is not None
    assert found.sha256 == b""
    held.hash(["a"])
    found = held.get("a")
    assert found is not None
    assert found.sha256 == hashlib.sha256(path.read_bytes()).digest()
    assert held.with_hash(found.sha256) == "a"
    assert list(held.unhashed_of_size(5)) == []
    assert Holdings(folder, data).get("a") == found._replace(sha256=b"")  # not saved yet
    held.save()
    assert Holdings(folder, data).get("a") == found


def test_a_write_in_the_tick_in_which_a_file_was_received_is_noticed(
    folder: Folder, data: Path
) -> None:
    wrong = 0
    for number in range(20):
        path = folder.path / "a"
        info = described(folder, "a", b"%04d" % number)
        held = Holdings(folder, data)
        held.note(info, path.stat())
        with open(path, "r+b") as file:
            file.write(b"%04d" % (number + 5000))
        held.save()
        found = Holdings(folder, data).get("a")
        assert found is not None
        wrong += bool(found.sha256)
    assert wrong == 0


def test_a_file_as_young_as_its_arrival_is_hashed_once_more(folder: Folder, data: Path) -> None:
    digest = put(folder.path / "a", b"12345", old=False)
    status = (folder.path / "a").stat()
    held = Holdings(folder, data)
    held.note(FileInfo("a", 5, status.st_mtime_ns, 0o644, digest), status)
    assert held.with_hash(digest) == "a"  # in this session there is no doubt
    held.save()
    again = Holdings(folder, data)
    assert list(again.unhashed_of_size(5)) == ["a"]
    again.hash(["a", "a", "none"])
    again.save()
    assert Holdings(folder, data).with_hash(digest) == "a"


def test_what_is_noted_and_forgotten_leads_nobody_astray(folder: Folder, data: Path) -> None:
    one, two = described(folder, "a", b"one"), described(folder, "b", b"two")
    held = noted(folder, data, one, two)
    three = described(folder, "a", b"three")
    held.note(three, (folder.path / "a").stat())
    assert held.with_hash(one.sha256) is None
    assert held.with_hash(three.sha256) == "a"
    held.forget("b")
    held.forget("b")
    assert held.with_hash(two.sha256) is None
    assert list(held) == ["a"]
    held.note(two._replace(path="new/deep/c"), (folder.path / "a").stat())
    assert held.is_directory("new")
    assert held.is_directory("new/deep")
    held.forget_directory("new/deep")
    assert not held.is_directory("new/deep")
    assert not held.had_size(999)


def test_parts_that_nobody_goes_on_from_are_removed(folder: Folder, data: Path) -> None:
    paths = [f"d/{name}" for name in ("a", "b", "x.part")]
    parts = []
    for path in paths:
        place = folder.place(path)
        parts.append("/".join((*place.parents, place.part)))
        put(folder.path / parts[-1], b"part")
    put(folder.path / "d/user.part", b"of a user")
    held = Holdings(folder, data)
    assert list(held) == ["d/user.part"]
    held.drop_parts(["d/b", "other"])
    assert sorted(tree(folder.path)) == sorted([parts[1], "d/user.part"])
    held.drop_parts([])
    assert sorted(tree(folder.path)) == ["d/user.part"]


def test_what_cannot_be_hashed_is_as_good_as_not_there(folder: Folder, data: Path) -> None:
    make(folder.path, "a", "b")
    held = Holdings(folder, data)
    (folder.path / "a").unlink()
    (folder.path / "b").unlink()
    (folder.path / "b").symlink_to("/etc/passwd")
    held.hash(["a", "b"])
    assert list(held) == []
    assert list(held.unhashed_of_size(1)) == []


def test_hashing_stops_when_told(folder: Folder, data: Path) -> None:
    make(folder.path, "a")
    held = Holdings(folder, data)
    with pytest.raises(HashingStopped):
        held.hash(["a"], lambda: True)


# --- copies, times and modes --------------------------------------------------


def test_a_copy_is_made_here_and_verified(folder: Folder, data: Path) -> None:
    content = os.urandom(3_000_000)
    info = described(folder, "a", content)
    before = descriptors()
    with GroupCommit(folder) as commit:
        writer = copy_held(folder, "a", info._replace(path="deep/er/b"), commit)
        assert writer.error is None
    assert writer.is_complete
    assert tree(folder.path) == {"a": content, "deep/er/b": content}
    folder.close()
    assert descriptors() <= before


def test_a_copy_replaces_what_has_its_name(folder: Folder) -> None:
    info = described(folder, "a", b"new")
    put(folder.path / "b", b"older")
    with GroupCommit(folder) as commit:
        copy_held(folder, "a", info._replace(path="b"), commit)
    assert tree(folder.path) == {"a": b"new", "b": b"new"}


@pytest.mark.parametrize("content", [b"other!", b"short", b"", None])
def test_a_source_that_is_another_by_now_is_never_taken_for_the_file(
    folder: Folder, content: bytes | None
) -> None:
    info = described(folder, "a", b"123456")
    put(folder.path / "b", b"before")
    (folder.path / "a").unlink()
    if content is not None:
        put(folder.path / "a", content)
    with GroupCommit(folder) as commit:
        writer = copy_held(folder, "a", info._replace(path="b"), commit)
    assert writer.error is not None
    assert not writer.is_complete
    assert (folder.path / "b").read_bytes() == b"before"
    assert not [name for name in os.listdir(folder.path) if name.endswith(".part")]


def test_a_longer_source_is_taken_if_its_start_is_the_file(folder: Folder) -> None:
    info = described(folder, "a", b"123456")
    put(folder.path / "a", b"123456789")
    with GroupCommit(folder) as commit:
        writer = copy_held(folder, "a", info._replace(path="b"), commit)
    assert writer.is_complete
    assert (folder.path / "b").read_bytes() == b"123456"


def test_a_link_is_not_copied_from(folder: Folder, tmp_path: Path) -> None:
    digest = put(tmp_path / "secret", b"secret")
    (folder.path / "a").symlink_to(tmp_path / "secret")
    info = FileInfo("b", 6, LONG_AGO_NS, 0o644, digest)
    with GroupCommit(folder) as commit:
        writer = copy_held(folder, "a", info, commit)
    assert writer.error is not None
    assert tree(folder.path).keys() <= {"transfer_warnings.log"}


def test_copying_without_the_help_of_the_kernel(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "copy_file_range", refuse)
    content = os.urandom(2_500_000)
    info = described(folder, "a", content)
    with GroupCommit(folder) as commit:
        copy_held(folder, "a", info._replace(path="b"), commit)
    assert tree(folder.path)["b"] == content


def test_copying_stops_when_told_and_leaves_nothing(folder: Folder) -> None:
    info = described(folder, "a", b"12345")
    with GroupCommit(folder) as commit, pytest.raises(HashingStopped):
        copy_held(folder, "a", info._replace(path="b"), commit, lambda: True)
    assert tree(folder.path) == {"a": b"12345"}


def test_times_and_modes_become_those_of_the_client(folder: Folder, data: Path) -> None:
    info = described(folder, "d/a", b"12345")
    held = noted(folder, data, info)
    for wanted in (
        info._replace(mtime_ns=123_456_789_012_345_678, mode=0o640),
        info._replace(mtime_ns=-5, mode=0o640),
        info,
    ):
        held.touch(wanted)
        found = (folder.path / "d/a").stat()
        assert (found.st_mtime_ns, found.st_mode & 0o7777) == (wanted.mtime_ns, wanted.mode)
        assert held.get("d/a") == wanted


def test_a_file_whose_time_was_set_is_hashed_once_more(folder: Folder, data: Path) -> None:
    info = described(folder, "a", b"12345")
    held = noted(folder, data, info)
    (folder.path / "a").write_bytes(b"54321")  # by somebody, after the look
    held.touch(info._replace(mtime_ns=7))
    held.save()
    assert list(Holdings(folder, data).unhashed_of_size(5)) == ["a"]


def test_times_and_modes_of_what_a_link_leads_to_stay(
    folder: Folder, data: Path, tmp_path: Path
) -> None:
    put(tmp_path / "outside", b"x")
    (tmp_path / "outside").chmod(0o600)
    held = Holdings(folder, data)
    (folder.path / "a").symlink_to(tmp_path / "outside")
    with pytest.raises(OSError, match="symbolic links"):
        held.touch(FileInfo("a", 1, 5, 0o644))
    status = (tmp_path / "outside").stat()
    assert (status.st_mtime_ns, status.st_mode & 0o777) == (LONG_AGO_NS, 0o600)
