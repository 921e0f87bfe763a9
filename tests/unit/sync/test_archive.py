from __future__ import annotations

import hashlib
import mmap
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from furymesh.core.errors import (
    EnvironmentFault,
    InvalidManifestError,
    NotFoundError,
    SourceChangedError,
    UsageError,
)
from furymesh.storage.hashing import HashingStopped
from furymesh.sync.archive import Archive
from furymesh.sync.entries import HASH_FIRST, FileInfo
from furymesh.sync.excludes import Excludes
from furymesh.sync.source import hash_source, new_slab
from tests.proc import descriptors
from tests.unit.sync.trees import LONG_AGO_NS, make, put, tick


@pytest.fixture
def root(tmp_path: Path) -> Path:
    made = tmp_path / "archive"
    made.mkdir()
    return made


@pytest.fixture
def archive(root: Path, tmp_path: Path) -> Iterator[Archive]:
    with Archive(root, tmp_path / "data") as made:
        yield made


def scan(archive: Archive, size: int = 1000) -> dict[str, FileInfo]:
    return {info.path: info for page in archive.pages(size) for info in page}


def known(archive: Archive) -> list[str]:
    """The files whose hash is known without reading."""
    return sorted(path for path, info in scan(archive).items() if info.sha256)


# --- looking ------------------------------------------------------------------


def test_what_cannot_be_an_archive_is_said_in_one_line(tmp_path: Path) -> None:
    make(tmp_path, "file")
    with pytest.raises(NotFoundError, match="there is no folder at"):
        Archive(tmp_path / "none", tmp_path / "data")
    with pytest.raises(UsageError, match="is not a folder"):
        Archive(tmp_path / "file", tmp_path / "data")


def test_pages_hold_every_file_once(archive: Archive, root: Path) -> None:
    make(root, *(f"d{n % 7}/f{n}" for n in range(50)))
    pages = list(archive.pages(20))
    assert [len(page) for page in pages] == [20, 20, 10]
    assert len({info.path for page in pages for info in page}) == 50
    assert archive.complete
    assert pages == list(archive.pages(20))


def test_files_are_described_by_what_the_disk_says(archive: Archive, root: Path) -> None:
    put(root / "a", b"12345")
    (root / "a").chmod(0o4751)
    assert scan(archive) == {"a": FileInfo("a", 5, LONG_AGO_NS, 0o751)}


def test_what_is_left_out_is_told_afresh_by_each_scan(archive: Archive, root: Path) -> None:
    make(root, "a")
    (root / "link").symlink_to("a")
    for _ in range(2):
        scan(archive)
        assert archive.troubles.notes() == ["left out, a link is not followed: link"]


def test_hashes_are_known_again_by_facts_whatever_the_file_is_called(
    root: Path, tmp_path: Path
) -> None:
    make(root, "a", "d/b", "d/c")
    with Archive(root, tmp_path / "data") as first:
        assert known(first) == []
        infos = first.hash(["a", "d/b", "d/c"])
        assert sorted(info.path for info in infos) == ["a", "d/b", "d/c"]
        assert all(i.sha256 == hashlib.sha256(i.path.encode()).digest() for i in infos)
    (root / "d").rename(root / "renamed")
    with Archive(root, tmp_path / "data") as again:
        assert known(again) == ["a", "renamed/b", "renamed/c"]
        (root / "a").write_text("A")
        assert known(again) == ["renamed/b", "renamed/c"]


def test_a_scan_given_up_forgets_no_hash(root: Path, tmp_path: Path) -> None:
    make(root, "a", "b", "c")
    with Archive(root, tmp_path / "data") as first:
        first.hash(["a", "b", "c"])
        pages = first.pages(1)
        next(pages)
        del pages
        assert not first.complete
    with Archive(root, tmp_path / "data") as again:
        assert known(again) == ["a", "b", "c"]


def test_a_damaged_index_costs_hashing_and_nothing_else(root: Path, tmp_path: Path) -> None:
    make(root, "a")
    with Archive(root, tmp_path / "data") as first:
        first.hash(["a"])
    (path,) = (tmp_path / "data" / "sync").glob("*.index")
    path.write_bytes(path.read_bytes()[:-1])
    with Archive(root, tmp_path / "data") as again:
        assert known(again) == []
        again.hash(["a"])
        assert known(again) == ["a"]


def test_an_index_that_cannot_be_written_is_no_end(root: Path, tmp_path: Path) -> None:
    make(root, "a")
    (tmp_path / "data").write_text("a file is in the way")
    with Archive(root, tmp_path / "data") as archive:
        assert len(archive.hash(["a"])) == 1
        with pytest.raises(EnvironmentFault):
            archive.save()


def test_the_data_directory_stays_at_home(root: Path) -> None:
    make(root, "a", "home/data/identity.key", "home/datax")
    with Archive(root, root / "home/data", Excludes(["*.o"])) as archive:
        for _ in range(2):
            assert sorted(scan(archive)) == ["a", "home/datax"]
            archive.save()
        assert archive.gone(["home/data/identity.key", "home/data/old"]) == []
    with Archive(root / "home", root, Excludes(["*.o"])) as archive:
        assert sorted(scan(archive)) == ["data/identity.key", "datax"]
    with pytest.raises(UsageError, match="own data directory"):
        Archive(root, root)


# --- hashing ------------------------------------------------------------------


def test_hashing_tells_how_far_it_is_and_stops_when_told(archive: Archive, root: Path) -> None:
    for number in range(4):
        put(root / f"f{number}", bytes(3 * 1024 * 1024))
    told: list[int] = []
    archive.hash([f"f{number}" for number in range(4)], told.append)
    assert sum(told) == 4 * 3 * 1024 * 1024
    with pytest.raises(HashingStopped):
        archive.hash([f"f{number}" for number in range(4)], cancelled=lambda: True)
    assert not [thread for thread in threading.enumerate() if "furymesh-hash" in thread.name]


def test_a_file_hashed_in_the_tick_of_its_change_is_hashed_when_that_shows(
    archive: Archive, root: Path
) -> None:
    """The same size and, within one tick of the clock, the same times."""
    wrong = 0
    for number in range(20):
        path = root / "a"
        path.write_bytes(b"%04d" % number)
        (info,) = archive.hash(["a"])
        with open(path, "r+b") as file:  # at once: without waiting, in the same tick
            file.write(b"%04d" % (number + 5000))
        again = scan(archive)["a"]
        wrong += bool(again.sha256) and again.sha256 != hashlib.sha256(path.read_bytes()).digest()
        assert info.size == 4
    assert wrong == 0


def test_a_small_file_read_in_the_tick_of_its_change_is_not_trusted(
    archive: Archive, root: Path
) -> None:
    put(root / "a", b"one", old=False)
    _, data = archive.read_small("a")
    assert data == b"one"
    assert known(archive) == []
    tick()
    archive.read_small("a")
    assert known(archive) == ["a"]


def test_a_file_that_somebody_has_open_for_writing_is_hashed_each_time(
    archive: Archive, root: Path
) -> None:
    put(root / "a", bytes(4096))
    tick()
    with open(root / "a", "r+b") as file, mmap.mmap(file.fileno(), 4096) as mapped:
        mapped[0] = 1
        archive.hash(["a"])
        mapped[0] = 2  # leaves no trace in the times
        assert known(archive) == []
    tick()
    archive.hash(["a"])
    assert known(archive) == ["a"]


def test_a_file_that_changes_all_the_time_is_given_up(archive: Archive, root: Path) -> None:
    path = root / "a"
    put(path, bytes(3 * 1024 * 1024))
    reads = 0

    def disturb(size: int) -> None:
        nonlocal reads
        reads += 1
        with open(path, "r+b") as file:
            file.write(b"%08d" % reads)

    with pytest.raises(SourceChangedError) as raised:
        hash_source(archive.folder, "a", new_slab(), disturb, lambda: False)
    assert reads == 9  # three times, three pieces
    archive.note_trouble("a", raised.value)
    assert archive.troubles.lines() == ["not sent, changes while it is read: a"]
    disturbed = 0

    def disturb_once(size: int) -> None:
        nonlocal disturbed
        disturbed += 1
        if disturbed == 1:
            disturb(size)

    hashed = hash_source(archive.folder, "a", new_slab(), disturb_once, lambda: False)
    assert hashed.info.sha256 == hashlib.sha256(path.read_bytes()).digest()


def test_files_that_cannot_be_read_are_reported_and_those_that_are_gone_are_not(
    archive: Archive, root: Path
) -> None:
    make(root, "a", "b/c")
    (root / "link").symlink_to("a")
    assert [info.path for info in archive.hash(["a", "gone", "b", "link", "a/x"])] == ["a"]
    assert len(archive.troubles.lines()) == 2
    assert all(line.startswith("not sent, cannot be read (") for line in archive.troubles.lines())


def test_nothing_to_hash(archive: Archive) -> None:
    assert archive.hash([]) == []


# --- reading ------------------------------------------------------------------


def test_a_small_file_comes_whole_with_its_hash_which_is_kept(archive: Archive, root: Path) -> None:
    put(root / "d/a", b"12345")
    tick()
    info, data = archive.read_small("d/a")
    assert data == b"12345"
    assert info == FileInfo("d/a", 5, LONG_AGO_NS, info.mode, hashlib.sha256(data).digest())
    assert known(archive) == ["d/a"]


def test_no_path_leads_out_of_the_archive(archive: Archive, root: Path, tmp_path: Path) -> None:
    put(tmp_path / "secret", b"secret")
    (root / "link").symlink_to(tmp_path / "secret")
    (root / "folder").symlink_to(tmp_path)
    for path in ("../secret", str(tmp_path / "secret"), "x/../../secret", "..", ""):
        with pytest.raises(InvalidManifestError):
            archive.read_small(path)
    for path in ("link", "folder/secret"):
        with pytest.raises((EnvironmentFault, NotFoundError)):
            archive.read_small(path)


def test_a_file_that_has_grown_too_large_is_not_read_whole(archive: Archive, root: Path) -> None:
    put(root / "a", bytes(HASH_FIRST + 1))
    with pytest.raises(SourceChangedError):
        archive.read_small("a")
    with pytest.raises(NotFoundError, match="a/b is gone"):
        archive.read_small("a/b")


def test_a_source_is_read_as_it_was_described(archive: Archive, root: Path) -> None:
    put(root / "a", bytes(range(100)))
    info = scan(archive)["a"]
    before = descriptors()
    with archive.open_source(info) as source:
        view = memoryview(bytearray(64))
        assert source.read_into(view, 0) == 64
        assert source.read_into(view, 64) == 36
        assert bytes(view[:36]) == bytes(range(64, 100))
        source.check_unchanged()
        (root / "a").write_bytes(bytes(100))
        with pytest.raises(SourceChangedError, match="a changes while it is read"):
            source.check_unchanged()
    assert descriptors() == before
    with pytest.raises(SourceChangedError):
        archive.open_source(info)
    assert descriptors() == before


def test_a_folder_that_was_moved_is_looked_up_afresh_after_a_scan(
    archive: Archive, root: Path
) -> None:
    put(root / "d/a", b"old")
    scan(archive)
    assert archive.read_small("d/a")[1] == b"old"
    (root / "d").rename(root / "e")
    put(root / "d/a", b"new")
    scan(archive)
    assert archive.read_small("d/a")[1] == b"new"


def test_one_thread_scans_while_another_reads(archive: Archive, root: Path) -> None:
    names = [f"d{n % 50}/f{n}" for n in range(500)]
    make(root, *names)
    tick()
    read: list[str] = []
    pages = archive.pages(10)
    read_all = threading.Thread(
        target=lambda: read.extend(archive.read_small(name)[1].decode() for name in names)
    )
    first = next(pages)
    read_all.start()
    paths = [info.path for info in first] + [info.path for page in pages for info in page]
    read_all.join()
    assert read == names
    assert sorted(paths) == sorted(names)
    assert len(known(archive)) == 500


# --- what is gone -------------------------------------------------------------


def test_only_what_is_really_gone_may_be_removed(root: Path, tmp_path: Path) -> None:
    make(root, "here", "now-folder/x", "now-file", "moved/x", "skip.o")
    (root / "link").symlink_to(tmp_path)
    (root / "to-other-disk").symlink_to(tmp_path)
    with Archive(root, tmp_path / "data", Excludes(["*.o", "build/"])) as archive:
        asked = [
            *("gone", "gone/x", "now-folder", "now-file/x", "moved/gone"),
            *("here", "link", "to-other-disk/x", "skip.o", "gone.o", "build/x"),
        ]
        assert archive.gone(asked) == []  # nobody has looked yet
        scan(archive)
        assert archive.gone(asked) == asked[:5]
        folders = ["gone/", "gone/in/", "here/", "now-folder/", "link/", "build/", "skip.o/"]
        assert archive.gone(folders) == folders[:3]


def test_a_server_is_told_of_nothing_that_cannot_be_a_file_here(
    archive: Archive, root: Path
) -> None:
    make(root, "here")
    scan(archive)
    asked = ["../gone", "/gone", "a/../../gone", "", ".", "a\0b", "x" * 256, "a//b", "gone"]
    assert archive.gone(asked) == ["gone"]


def test_nothing_is_gone_if_not_everything_could_be_looked_at(
    archive: Archive, root: Path, tmp_path: Path
) -> None:
    make(root, "d/x", "z")
    pages = archive.pages(1)
    assert [info.path for info in next(pages)] == ["z"]
    (root / "d").rename(tmp_path / "moved")
    (root / "d").touch()  # so that it cannot be entered
    assert list(pages) == []
    assert not archive.complete
    assert archive.gone(["other", "d/x"]) == []
    assert archive.troubles.lines() == ["not sent, cannot be looked at (not a directory): d"]
