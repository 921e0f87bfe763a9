"""Part files and folders on a real disk."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path
from random import Random
from typing import Any

import pytest

from furymesh.core.bitfield import chunks_of, mask_of
from furymesh.core.errors import (
    AlreadyRunningError,
    DiskFullError,
    EnvironmentFault,
    IllegalStateError,
    NotFoundError,
    WrongKeyError,
)
from furymesh.core.geometry import Geometry
from furymesh.core.layout import Entry, EntryKind, Layout
from furymesh.core.sealing import Sealer, cipher_size, plain_range
from furymesh.storage.part import PartStore, missing_chunks

CHUNK = 16 * 1024
PLAIN = Random(1).randbytes(3 * CHUNK + 1000)
GEOMETRY = Geometry(len(PLAIN), CHUNK)
SINGLE = Layout.of_file(len(PLAIN))


def folder() -> Layout:
    """Small files, empty ones, and one that spans chunks; 3 chunks and a bit in all."""
    sizes = [0, 10, 4000, 1, 0, 2 * CHUNK, 7, 3000, 0]
    sizes.append(len(PLAIN) - sum(sizes))
    entries = [Entry(f"d{n % 3}/f{n}", EntryKind.FILE, size) for n, size in enumerate(sizes)]
    return Layout([*entries, Entry("empty", EntryKind.DIRECTORY, 0)])


def chunk_of(data: bytes, chunk: int, geometry: Geometry = GEOMETRY) -> bytes:
    return data[geometry.offset(chunk) :][: geometry.length(chunk)]


def fill(store: PartStore, data: bytes = PLAIN, geometry: Geometry = GEOMETRY) -> None:
    for chunk in reversed(range(geometry.chunk_count)):
        store.write_chunk(chunk, chunk_of(data, chunk, geometry))


def read(store: PartStore, chunk: int, geometry: Geometry = GEOMETRY) -> bytes:
    view = memoryview(bytearray(geometry.chunk_size))
    return bytes(view[: store.read_chunk_into(chunk, view)])


def content(part: Path, layout: Layout) -> bytes:
    if layout.single:
        return part.read_bytes()
    return b"".join((part / file.path).read_bytes() for file in layout.files)


def chunks(mask: int) -> list[int]:
    return list(chunks_of(mask))


@pytest.fixture(params=["file", "folder"])
def layout(request: pytest.FixtureRequest) -> Layout:
    return SINGLE if request.param == "file" else folder()


def open_part(part: Path, layout: Layout = SINGLE, **options: Any) -> PartStore:
    return PartStore.open(part, layout, GEOMETRY, **({"create": True} | options))


def test_chunks_in_any_order_make_the_content(tmp_path: Path, layout: Layout) -> None:
    part = tmp_path / "x.part"
    with open_part(part, layout) as store:
        assert len(content(part, layout)) == len(PLAIN), "full size from the start"
        fill(store)
        assert [read(store, n) for n in range(4)] == [chunk_of(PLAIN, n) for n in range(4)]
        store.sync()
    assert content(part, layout) == PLAIN


def test_a_part_is_taken_up_again(tmp_path: Path, layout: Layout) -> None:
    part = tmp_path / "x.part"
    with open_part(part, layout) as store:
        store.write_chunk(1, chunk_of(PLAIN, 1))
    with open_part(part, layout, create=False) as store:
        assert read(store, 1) == chunk_of(PLAIN, 1)
        assert read(store, 0) == bytes(CHUNK)
        fill(store)
    assert content(part, layout) == PLAIN


def test_a_chunk_of_a_single_file_is_one_pwrite(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[int, int]] = []
    really_write = os.pwrite

    def pwrite(fd: int, data: memoryview, offset: int) -> int:
        calls.append((len(data), offset))
        return really_write(fd, data, offset)

    with open_part(tmp_path / "x.part") as store:
        monkeypatch.setattr("furymesh.storage.part.os.pwrite", pwrite)
        store.write_chunk(2, chunk_of(PLAIN, 2))
    assert calls == [(CHUNK, 2 * CHUNK)]


def test_short_writes_and_reads_are_continued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layout: Layout
) -> None:
    really_write, really_read = os.pwrite, os.preadv
    with open_part(tmp_path / "x.part", layout) as store:
        monkeypatch.setattr(
            "furymesh.storage.part.os.pwrite",
            lambda fd, data, offset: really_write(fd, data[:1000], offset),
        )
        monkeypatch.setattr(
            "furymesh.storage.part.os.preadv",
            lambda fd, views, offset: really_read(fd, [views[0][:1000]], offset),
        )
        fill(store)
        assert b"".join(read(store, n) for n in range(4)) == PLAIN


def test_many_threads_write_one_part(tmp_path: Path, layout: Layout) -> None:
    part = tmp_path / "x.part"
    with open_part(part, layout) as store:
        threads = [
            threading.Thread(target=store.write_chunk, args=(n, chunk_of(PLAIN, n)))
            for n in range(4)
        ]
        for thread in threads:
            thread.start()
        store.sync()
        for thread in threads:
            thread.join()
    assert content(part, layout) == PLAIN


def test_a_chunk_across_many_small_files(tmp_path: Path) -> None:
    small = Layout(
        [Entry(f"{n % 7}/{n // 7 % 5}/{n}", EntryKind.FILE, n % 50) for n in range(1000)]
    )
    geometry = Geometry(small.plain_size, CHUNK)
    data = Random(2).randbytes(small.plain_size)
    part = tmp_path / "x.part"
    with PartStore.open(part, small, geometry, create=True) as store:
        fill(store, data, geometry)
        store.sync()
        assert b"".join(read(store, n, geometry) for n in range(geometry.chunk_count)) == data
    assert content(part, small) == data


def test_an_empty_download_has_an_empty_part(tmp_path: Path) -> None:
    part = tmp_path / "x.part"
    with PartStore.open(part, Layout.of_file(0), Geometry(0, CHUNK), create=True) as store:
        store.sync()
    assert part.read_bytes() == b""


def test_the_inode_of_a_part_survives_its_renaming(tmp_path: Path, layout: Layout) -> None:
    part, final = tmp_path / "x.part", tmp_path / "x"
    with open_part(part, layout) as store:
        fill(store)
        part.rename(final)
        assert store.inode == final.stat().st_ino
        assert read(store, 1) == chunk_of(PLAIN, 1), "a seed goes on reading"


# --- encrypted ----------------------------------------------------------------

SEALER = Sealer(b"k" * 32)
SEALED = Geometry(cipher_size(len(PLAIN), CHUNK), CHUNK)


def sealed_chunk(chunk: int) -> bytes:
    offset, length = plain_range(SEALED, chunk)
    return SEALER.seal(chunk, PLAIN[offset : offset + length])


def test_sealed_chunks_lie_on_disk_in_plain_and_read_back_sealed(
    tmp_path: Path, layout: Layout
) -> None:
    part = tmp_path / "x.part"
    with PartStore.open(part, layout, SEALED, SEALER, create=True) as store:
        for chunk in range(SEALED.chunk_count):
            store.write_chunk(chunk, sealed_chunk(chunk))
        for chunk in range(SEALED.chunk_count):
            assert read(store, chunk, SEALED) == sealed_chunk(chunk)
        with pytest.raises(WrongKeyError):
            store.write_chunk(0, sealed_chunk(1))
        # Cut short behind its back, it has no sealed form any more.
        if layout.single:
            os.truncate(part, CHUNK)
            assert store.read_chunk_into(1, memoryview(bytearray(CHUNK))) == 0
            os.truncate(part, len(PLAIN))
    assert len(content(part, layout)) == len(PLAIN)


def test_a_mirror_without_the_key_keeps_the_sealed_stream(tmp_path: Path) -> None:
    part = tmp_path / "x.part"
    layout = Layout.of_file(SEALED.size)
    with PartStore.open(part, layout, SEALED, create=True) as store:
        for chunk in range(SEALED.chunk_count):
            store.write_chunk(chunk, sealed_chunk(chunk))
    assert part.read_bytes() == b"".join(map(sealed_chunk, range(SEALED.chunk_count)))


def test_a_layout_of_another_size_is_our_bug(tmp_path: Path) -> None:
    with pytest.raises(IllegalStateError):
        PartStore.open(tmp_path / "x.part", SINGLE, SEALED, create=True)
    with open_part(tmp_path / "x.part") as store, pytest.raises(IllegalStateError):
        store.write_chunk(0, b"short")


# --- tampering ----------------------------------------------------------------


def test_a_missing_part_is_found_missing(tmp_path: Path, layout: Layout) -> None:
    part = tmp_path / "x.part"
    with pytest.raises(NotFoundError, match="afresh"):
        open_part(part, layout, create=False)
    assert not part.exists()
    assert missing_chunks(part, layout, GEOMETRY, sealed=False) == GEOMETRY.all_chunks


def test_a_part_cut_short_lacks_the_chunks_beyond(tmp_path: Path) -> None:
    part = tmp_path / "x.part"
    with open_part(part) as store:
        fill(store)
    assert missing_chunks(part, SINGLE, GEOMETRY, sealed=False) == 0
    os.truncate(part, 2 * CHUNK - 1)
    assert chunks(missing_chunks(part, SINGLE, GEOMETRY, sealed=False)) == [1, 2, 3]
    with open_part(part, create=False) as store:
        assert read(store, 0) == chunk_of(PLAIN, 0)
        store.write_chunk(1, chunk_of(PLAIN, 1))
    assert part.stat().st_size == len(PLAIN)


def test_a_part_grown_too_long_is_cut_back(tmp_path: Path, layout: Layout) -> None:
    part = tmp_path / "x.part"
    with open_part(part, layout) as store:
        fill(store)
    victim = part if layout.single else part / "d1/f1"
    with victim.open("ab") as file:
        file.write(b"more")
    assert missing_chunks(part, layout, GEOMETRY, sealed=False) == 0
    open_part(part, layout, create=False).close()
    assert content(part, layout) == PLAIN


def test_a_file_missing_from_a_folder_costs_only_its_chunks(tmp_path: Path) -> None:
    layout, part = folder(), tmp_path / "x.part"
    with open_part(part, layout) as store:
        fill(store)
    (part / "d1/f1").unlink()
    assert chunks(missing_chunks(part, layout, GEOMETRY, sealed=False)) == [0]
    with open_part(part, layout, create=False) as store:
        store.write_chunk(0, chunk_of(PLAIN, 0))
    assert content(part, layout) == PLAIN


@pytest.mark.parametrize("kind", ["link", "pipe", "directory"])
def test_something_else_in_place_of_a_file_is_refused(
    tmp_path: Path, layout: Layout, kind: str
) -> None:
    part, outside = tmp_path / "x.part", tmp_path / "outside"
    outside.write_bytes(PLAIN)
    place = part if layout.single else part / "d1/f1"
    place.parent.mkdir(parents=True, exist_ok=True)
    match kind:
        case "link":
            place.symlink_to(outside)
        case "pipe":
            os.mkfifo(place)
        case _:
            place.mkdir()
    assert missing_chunks(part, layout, GEOMETRY, sealed=False) & 1
    for create in (False, True):
        with pytest.raises(EnvironmentFault):
            open_part(part, layout, create=create)
    assert outside.read_bytes() == PLAIN


@pytest.mark.parametrize("linked", ["x.part", "x.part/d1"])
def test_linked_directories_lead_nowhere(tmp_path: Path, linked: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    link = tmp_path / linked
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(outside)
    with pytest.raises(EnvironmentFault):
        open_part(tmp_path / "x.part", folder())
    assert os.listdir(outside) == []


def test_a_missing_output_directory_is_one_plain_error(tmp_path: Path, layout: Layout) -> None:
    with pytest.raises(EnvironmentFault, match="cannot open"):
        open_part(tmp_path / "missing" / "x.part", layout)


# --- one at a time, and synced ------------------------------------------------


def test_a_part_is_open_once(tmp_path: Path, layout: Layout) -> None:
    part = tmp_path / "x.part"
    store = open_part(part, layout)
    with pytest.raises(AlreadyRunningError, match="already being downloaded"):
        open_part(part, layout)
    store.close()
    store.close()
    open_part(part, layout).close()


def test_only_what_was_written_is_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []

    def fdatasync(fd: int) -> None:
        synced.append(Path(os.readlink(f"/proc/self/fd/{fd}")).name)

    layout, part = folder(), tmp_path / "x.part"
    open_part(part, layout).close()
    monkeypatch.setattr("furymesh.storage.part.os.fdatasync", fdatasync)
    with open_part(part, layout, create=False, unsynced=mask_of([1])) as store:
        store.sync()
        assert synced == ["f5"]
        store.sync()
        assert synced == ["f5"]
        store.write_chunk(0, chunk_of(PLAIN, 0))
        store.sync()
        assert synced[1:] == ["f1", "f2", "f3", "f5"]
    synced.clear()
    with open_part(part, layout, create=False) as store:
        store.sync()
        assert synced == [f"f{n}" for n in range(10)]


def test_after_a_failed_sync_nothing_is_taken_for_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(fd: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with open_part(tmp_path / "x.part") as store:
        store.write_chunk(0, chunk_of(PLAIN, 0))
        monkeypatch.setattr("furymesh.storage.part.os.fdatasync", fail)
        with pytest.raises(EnvironmentFault, match="input/output error"):
            store.sync()
        monkeypatch.undo()
        for refused in (
            store.sync,
            lambda: store.write_chunk(0, chunk_of(PLAIN, 0)),
            lambda: store.start_over(mask_of([0])),  # that only helps against a full disk
        ):
            with pytest.raises(EnvironmentFault, match="failed to save"):
                refused()


def test_what_a_full_disk_did_not_save_counts_as_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(fd: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with open_part(tmp_path / "x.part", unsynced=mask_of([3])) as store:
        store.sync()
        store.write_chunk(0, chunk_of(PLAIN, 0))
        store.sync()
        store.write_chunk(1, chunk_of(PLAIN, 1))
        assert store.unsaved == 0
        monkeypatch.setattr("furymesh.storage.part.os.fdatasync", full)
        with pytest.raises(DiskFullError, match="cannot sync"):
            store.sync()
        monkeypatch.undo()
        for refused in (store.sync, lambda: store.write_chunk(2, chunk_of(PLAIN, 2))):
            with pytest.raises(DiskFullError):
                refused()
        assert store.unsaved == mask_of([1])
        with pytest.raises(DiskFullError):
            store.start_over(0)  # it failed after the caller had looked
        store.start_over(mask_of([1]))
        assert store.unsaved == 0
        store.write_chunk(1, chunk_of(PLAIN, 1))
        store.sync()


def test_a_full_disk_is_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int, data: memoryview, offset: int) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with open_part(tmp_path / "x.part") as store:
        monkeypatch.setattr("furymesh.storage.part.os.pwrite", full)
        with pytest.raises(DiskFullError, match="free some space"):
            store.write_chunk(0, chunk_of(PLAIN, 0))
        monkeypatch.undo()
        store.write_chunk(0, chunk_of(PLAIN, 0))
        assert read(store, 0) == chunk_of(PLAIN, 0)


def test_a_failed_open_leaks_nothing(tmp_path: Path, layout: Layout) -> None:
    part = tmp_path / "x.part"
    before = os.listdir("/proc/self/fd")
    for _ in range(3):
        with pytest.raises(NotFoundError):
            open_part(part, layout, create=False)
    with open_part(part, layout) as store:
        fill(store)
        with pytest.raises(AlreadyRunningError):
            open_part(part, layout)
    assert os.listdir("/proc/self/fd") == before
