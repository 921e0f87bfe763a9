import os
import stat
from pathlib import Path

import pytest

from furymesh.core.errors import EnvironmentFault
from furymesh.core.geometry import Geometry
from furymesh.core.hashing import HashAlgorithm
from furymesh.core.ids import FileId
from furymesh.core.layout import Entry, EntryKind
from furymesh.core.manifest import Manifest
from furymesh.storage.manifests import ManifestStore

CHUNK = 16 * 1024


def folder(files: int) -> Manifest:
    entries = [Entry(f"{number:0100}", EntryKind.FILE, CHUNK) for number in range(files)]
    digests = b"".join(number.to_bytes(32, "big") for number in range(files))
    return Manifest.build(
        HashAlgorithm.BLAKE3, Geometry(files * CHUNK, CHUNK), digests, entries=entries
    )


def same(one: Manifest | None, other: Manifest) -> bool:
    return (
        one is not None
        and one.header_bytes == other.header_bytes
        and one.missing_pages == other.missing_pages
        and all(
            one.page(page) == other.page(page)
            for page in range(one.header.page_count)
            if not one.missing_pages >> page & 1
        )
    )


@pytest.mark.parametrize("files", [0, 1, 5000])
def test_round_trip(tmp_path: Path, files: int) -> None:
    store, manifest = ManifestStore(tmp_path / "data"), folder(files)
    assert store.load(manifest.file_id) is None
    assert store.ids() == ()
    store.save(manifest)
    assert same(store.load(manifest.file_id), manifest)
    assert store.ids() == (manifest.file_id,)
    path = tmp_path / "data" / "manifests" / manifest.file_id.hex()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    store.delete(manifest.file_id)
    store.delete(manifest.file_id)
    assert store.load(manifest.file_id) is None


def test_pages_are_added_as_they_come(tmp_path: Path) -> None:
    store, whole = ManifestStore(tmp_path), folder(5000)
    partial = Manifest(whole.header_bytes)
    pages = list(range(whole.header.page_count))
    assert len(pages) > 10
    partial.add_page(3, whole.page(3))
    store.save(partial)
    for page in reversed(pages):
        partial.add_page(page, whole.page(page))
        store.save_page(partial, page)
        assert same(store.load(whole.file_id), partial)
    assert partial.complete


def test_damage_costs_the_page_it_hits(tmp_path: Path) -> None:
    store, manifest = ManifestStore(tmp_path), folder(5000)
    store.save(manifest)
    path = tmp_path / "manifests" / manifest.file_id.hex()
    good = path.read_bytes()
    for page in range(manifest.header.page_count):
        raw = bytearray(good)
        raw[good.index(manifest.page(page)) + 5] ^= 1
        path.write_bytes(raw)
        loaded = store.load(manifest.file_id)
        assert loaded is not None
        assert loaded.missing_pages == 1 << page


def test_cut_or_foreign_files_are_never_trusted(tmp_path: Path) -> None:
    store, manifest = ManifestStore(tmp_path), folder(3)
    store.save(manifest)
    path = tmp_path / "manifests" / manifest.file_id.hex()
    good = path.read_bytes()
    header_end = 4 + len(manifest.header_bytes)
    for length in range(len(good)):
        path.write_bytes(good[:length])
        loaded = store.load(manifest.file_id)
        assert (loaded is None) == (length < header_end)
        assert loaded is None or loaded.missing_pages
    path.write_bytes(b"\xff" * len(good))
    assert store.load(manifest.file_id) is None
    other = FileId(bytes(32))
    path.with_name(other.hex()).write_bytes(good)
    assert store.load(other) is None
    assert set(store.ids()) == {manifest.file_id, other}


def test_other_names_are_none_of_ours(tmp_path: Path) -> None:
    (tmp_path / "manifests").mkdir()
    (tmp_path / "manifests" / "notes.txt").touch()
    assert ManifestStore(tmp_path).ids() == ()


def test_links_are_refused(tmp_path: Path) -> None:
    store, manifest = ManifestStore(tmp_path), folder(3)
    store.save(manifest)
    path = tmp_path / "manifests" / manifest.file_id.hex()
    path.rename(tmp_path / "elsewhere")
    os.symlink(tmp_path / "elsewhere", path)
    with pytest.raises(EnvironmentFault):
        store.load(manifest.file_id)
    with pytest.raises(EnvironmentFault):
        store.save_page(manifest, 0)
