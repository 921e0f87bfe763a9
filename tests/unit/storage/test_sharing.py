import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest

from furymesh.core.errors import (
    LocalDataError,
    NotFoundError,
    SourceChangedError,
    UsageError,
)
from furymesh.core.hashing import HashAlgorithm
from furymesh.core.link import Address, Link
from furymesh.core.sealing import Sealer
from furymesh.storage import hashing, sharing
from furymesh.storage.catalog import Catalog
from furymesh.storage.hashing import HashingStopped
from furymesh.storage.scan import scan, settle
from furymesh.storage.sharing import Share, create_share, open_share

CHUNK = 16 * 1024
KEY = bytes(range(32))


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    return Catalog(tmp_path / "data")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "film.mkv"
    path.write_bytes(Random(1).randbytes(5 * CHUNK + 7))
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    for number in range(20):
        path = root / f"d{number % 3}" / f"{number}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(Random(number).randbytes(number * 3000))
    (root / "empty").mkdir()
    (root / "link").symlink_to("d0")
    return root


def share(path: Path, catalog: Catalog, **options: Any) -> Share:
    arguments: dict[str, Any] = {
        "algorithm": HashAlgorithm.BLAKE3,
        "chunk_size": CHUNK,
        "progress": lambda _: None,
        "cancelled": lambda: False,
    }
    return create_share(path, catalog=catalog, **(arguments | options))


@pytest.mark.parametrize("algorithm", HashAlgorithm)
@pytest.mark.parametrize("key", [None, KEY])
@pytest.mark.parametrize("which", ["file", "folder"])
def test_what_was_shared_can_be_served(
    which: str,
    key: bytes | None,
    algorithm: HashAlgorithm,
    catalog: Catalog,
    request: pytest.FixtureRequest,
) -> None:
    path = request.getfixturevalue(which)
    counted: list[int] = []
    made = share(path, catalog, algorithm=algorithm, sealed_key=key, progress=counted.append)
    assert not made.cached
    assert made.name == path.name
    assert made.size == sum(p.stat().st_size for p in [path, *path.rglob("*")] if p.is_file())
    assert made.skipped == (("link",) if which == "folder" else ())
    assert sum(counted) == made.manifest.header.geometry.size
    entry = catalog.get(made.file_id)
    assert entry is not None
    assert entry.key == key
    manifest, content = open_share(catalog, entry)
    slab = memoryview(bytearray(CHUNK))
    for chunk in range(manifest.header.geometry.chunk_count):
        length = content.read_chunk_into(chunk, slab)
        assert manifest.matches(chunk, slab[:length])
    content.close()
    assert manifest.layout(Sealer(key) if key else None).plain_size == made.size


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK])
def test_the_id_does_not_depend_on_name_place_or_node(tmp_path: Path, size: int) -> None:
    data = Random(size).randbytes(size)
    ids = set()
    for name in ("a", "other name.bin", "deep/er/b"):
        path = tmp_path / "files" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        made = share(path, Catalog(tmp_path / f"node {len(name)}"), name=f"hint {name}")
        assert not made.cached
        ids.add(made.file_id)
    assert len(ids) == 1


def test_folders_with_equal_trees_have_equal_ids(folder: Path, tmp_path: Path) -> None:
    first = share(folder, Catalog(tmp_path / "one"))
    folder.rename(tmp_path / "renamed")
    second = share(tmp_path / "renamed", Catalog(tmp_path / "two"))
    assert first.file_id == second.file_id
    (tmp_path / "renamed/d0/0.bin").chmod(0o755)
    assert share(tmp_path / "renamed", Catalog(tmp_path / "two")).file_id != first.file_id


def no_hashing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> bytes:
        raise AssertionError("hashed again")

    monkeypatch.setattr(sharing, "hash_content", refuse)


@pytest.mark.parametrize("which", ["file", "folder"])
def test_unchanged_content_is_not_hashed_again(
    which: str,
    catalog: Catalog,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = request.getfixturevalue(which)
    first = share(path, catalog)
    no_hashing(monkeypatch)
    again = share(path, catalog, name="other", private=True)
    assert again.cached
    assert again.file_id == first.file_id
    entry = catalog.get(first.file_id)
    assert entry is not None
    assert (entry.name, entry.private) == ("other", True)


def test_a_file_is_known_under_another_name(
    file: Path, catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "hard link"
    other.hardlink_to(file)
    first = share(file, catalog)
    no_hashing(monkeypatch)
    again = share(other, catalog)
    assert again.cached
    assert again.file_id == first.file_id
    assert again.path == other


def test_an_encrypted_share_keeps_its_key(
    file: Path, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = share(file, catalog)
    sealed = share(file, catalog, sealed_key=KEY)
    assert not sealed.cached
    assert sealed.file_id != plain.file_id
    no_hashing(monkeypatch)
    again = share(file, catalog, sealed_key=bytes(32))
    assert again.cached
    assert again.key == KEY
    assert again.file_id == sealed.file_id
    assert share(file, catalog).key is None


def append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"x")


def rewrite_with_old_times(path: Path) -> None:
    status = path.stat()
    path.write_bytes(bytes(status.st_size))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize("change", [append, rewrite_with_old_times])
def test_changed_content_is_hashed_again(
    file: Path, catalog: Catalog, change: Callable[[Path], None]
) -> None:
    first = share(file, catalog)
    change(file)  # at once: the share has waited until this must show
    second = share(file, catalog)
    assert not second.cached
    assert second.file_id != first.file_id


@pytest.mark.parametrize("change", [append, rewrite_with_old_times, Path.unlink])
@pytest.mark.parametrize("which", ["file", "folder"])
def test_changed_while_hashing(
    which: str,
    change: Callable[[Path], None],
    catalog: Catalog,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = request.getfixturevalue(which)
    hash_content = hashing.hash_content

    def meddle(*arguments: Any) -> bytes:
        digests = hash_content(*arguments)
        # Facts move with the next tick of the kernel's clock at the latest.
        settle(scan(path).facts)
        change(path if which == "file" else path / "d2/8.bin")
        return digests

    monkeypatch.setattr(sharing, "hash_content", meddle)
    with pytest.raises((SourceChangedError, NotFoundError)) as caught:
        share(path, catalog)
    assert "changed while it was hashed" in str(caught.value) or change is Path.unlink
    assert catalog.ids() == ()
    assert catalog.manifests.ids() == ()


def test_files_added_while_hashing(
    folder: Path, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    hash_content = hashing.hash_content

    def meddle(*arguments: Any) -> bytes:
        (folder / "new").mkdir()
        return hash_content(*arguments)

    monkeypatch.setattr(sharing, "hash_content", meddle)
    with pytest.raises(SourceChangedError, match="while it was hashed"):
        share(folder, catalog)


def test_stopped_hashing_leaves_nothing(file: Path, catalog: Catalog) -> None:
    with pytest.raises(HashingStopped):
        share(file, catalog, cancelled=lambda: True)
    assert catalog.ids() == ()


def test_names_and_links(file: Path, catalog: Catalog) -> None:
    assert share(file, catalog, name="../a\x1b.bin").name == "a_.bin"
    made = share(file, catalog, sealed_key=KEY)
    peers = (Address("h", 1),)
    assert made.link(peers) == Link(made.file_id, "film.mkv", peers, KEY)
    assert repr(KEY) not in repr(made)


def test_refusals(tmp_path: Path, file: Path, catalog: Catalog) -> None:
    with pytest.raises(NotFoundError):
        share(tmp_path / "none", catalog)
    with pytest.raises(UsageError, match="power of two"):
        share(file, catalog, chunk_size=1000)
    with pytest.raises(UsageError, match="32 bytes"):
        share(file, catalog, sealed_key=b"short")


def test_a_share_with_a_damaged_manifest_is_not_opened(file: Path, catalog: Catalog) -> None:
    made = share(file, catalog)
    entry = catalog.get(made.file_id)
    assert entry is not None
    catalog.manifests.delete(made.file_id)
    with pytest.raises(LocalDataError, match="share it again"):
        open_share(catalog, entry)


def test_an_entry_that_does_not_fit_its_manifest_is_not_opened(
    file: Path, catalog: Catalog
) -> None:
    made = share(file, catalog)
    entry = catalog.get(made.file_id)
    assert entry is not None
    with pytest.raises(LocalDataError, match="catalog entry"):
        open_share(catalog, dataclasses.replace(entry, facts=()))


def test_default_chunk_size(file: Path, catalog: Catalog) -> None:
    made = share(file, catalog, chunk_size=None)
    assert made.manifest.header.geometry.chunk_size == 256 * 1024
