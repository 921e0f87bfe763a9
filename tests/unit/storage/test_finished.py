from __future__ import annotations

from contextlib import closing
from pathlib import Path
from random import Random

import pytest

from furymesh.core.errors import (
    EnvironmentFault,
    LocalDataError,
    NotFoundError,
    SourceChangedError,
    UsageError,
    WrongKeyError,
)
from furymesh.core.hashing import HashAlgorithm
from furymesh.core.link import Link
from furymesh.storage.catalog import Catalog
from furymesh.storage.check import Check
from furymesh.storage.finished import FinishedReader, adopt, facts_of, layout_on_disk
from furymesh.storage.scan import scan
from furymesh.storage.sharing import Share, create_share, open_share

CHUNK = 16 * 1024
KEY = bytes(range(32))
WRONG = bytes(32)
DATA = Random(5).randbytes(4 * CHUNK + 9)


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    return Catalog(tmp_path / "data")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "film.mkv"
    path.write_bytes(DATA)
    return path


def share(path: Path, catalog: Catalog, key: bytes | None = None) -> Share:
    return create_share(
        path,
        catalog=catalog,
        algorithm=HashAlgorithm.BLAKE3,
        progress=lambda _: None,
        cancelled=lambda: False,
        chunk_size=CHUNK,
        sealed_key=key,
    )


def good_chunks(reader: FinishedReader, made: Share) -> int:
    everything = made.manifest.header.geometry.all_chunks
    try:
        return Check(made.manifest, everything, reader.read).run()
    finally:
        reader.close()


def ciphertext(made: Share, catalog: Catalog, to: Path) -> None:
    """Write the sealed stream of a share as a mirror keeps it."""
    entry = catalog.get(made.file_id)
    assert entry is not None
    _, content = open_share(catalog, entry)
    geometry = made.manifest.header.geometry
    with to.open("wb") as out:
        for chunk in range(geometry.chunk_count):
            view = memoryview(bytearray(geometry.chunk_size))
            out.write(view[: content.read_chunk_into(chunk, view)])
    content.close()


@pytest.mark.parametrize("key", [None, KEY], ids=["plain", "sealed"])
def test_finished_file_verifies(catalog: Catalog, file: Path, key: bytes | None) -> None:
    made = share(file, catalog, key)
    everything = made.manifest.header.geometry.all_chunks
    assert good_chunks(FinishedReader(file, made.manifest, key), made) == everything
    with file.open("r+b") as out:
        out.truncate(2 * CHUNK)
    assert good_chunks(FinishedReader(file, made.manifest, key), made) < everything


def test_mirror_verifies_and_serves_without_the_key(
    catalog: Catalog, file: Path, tmp_path: Path
) -> None:
    made = share(file, catalog, KEY)
    kept = tmp_path / "film.sealed"
    ciphertext(made, catalog, kept)
    everything = made.manifest.header.geometry.all_chunks
    assert good_chunks(FinishedReader(kept, made.manifest, None), made) == everything

    mirror = Catalog(tmp_path / "mirror")
    mirror.manifests.save(made.manifest)
    entry = adopt(mirror, Link(made.file_id), kept)
    manifest, content = open_share(mirror, entry)
    view = memoryview(bytearray(CHUNK))
    length = content.read_chunk_into(1, view)
    content.close()
    assert manifest.matches(1, view[:length])


def test_wrong_key(catalog: Catalog, file: Path) -> None:
    made = share(file, catalog, KEY)
    with pytest.raises(WrongKeyError):
        FinishedReader(file, made.manifest, WRONG)
    with pytest.raises(WrongKeyError):
        layout_on_disk(made.manifest, WRONG)


def test_wrong_kind_of_thing(catalog: Catalog, file: Path, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "a").write_bytes(b"1")
    as_file, as_folder = share(file, catalog), share(folder, catalog)
    with pytest.raises(UsageError, match="the share is a file"):
        FinishedReader(folder, as_file.manifest, None)
    with pytest.raises(UsageError, match="the share is a folder"):
        FinishedReader(file, as_folder.manifest, None)
    with pytest.raises(NotFoundError):
        FinishedReader(tmp_path / "missing", as_file.manifest, None)


def test_missing_files_of_a_folder_read_as_bad(catalog: Catalog, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "a").write_bytes(DATA)
    (folder / "b").write_bytes(DATA)
    made = share(folder, catalog)
    (folder / "b").unlink()
    good = good_chunks(FinishedReader(folder, made.manifest, None), made)
    assert good == 0b1111
    with closing(FinishedReader(folder, made.manifest, None)) as reader:
        assert reader.read(7, memoryview(bytearray(CHUNK))) == 0


def test_what_digests_cannot_see_of_a_file_is_listed(catalog: Catalog, file: Path) -> None:
    made = share(file, catalog)
    with closing(FinishedReader(file, made.manifest, None)) as reader:
        assert reader.misfits() == ()
        with file.open("ab") as out:
            out.write(b"more")
        assert reader.misfits() == (f"film.mkv: {len(DATA) + 4} bytes instead of {len(DATA)}",)
        file.unlink()
        assert reader.misfits() == ("film.mkv: missing",)


def test_what_digests_cannot_see_of_a_folder_is_listed(catalog: Catalog, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    for empty in ("kept", "lost", "sub"):
        (folder / empty).mkdir(parents=True)
    for name in ("a", "long", "gone", "sub/b", "z"):
        (folder / name).write_bytes(b"123")
    made = share(folder, catalog)
    with closing(FinishedReader(folder, made.manifest, None)) as reader:
        assert reader.misfits() == ()
        (folder / "long").write_bytes(b"1234")
        (folder / "gone").unlink()
        (folder / "lost").rmdir()
        (folder / "sub" / "new\n").touch()
        (folder / "new").touch()
        assert sorted(reader.misfits()) == [
            "gone: missing",
            "long: 4 bytes instead of 3",
            "lost: missing",
            "new: not part of the share",
            "sub/new\\n: not part of the share",
        ]


def test_adopting_shares_without_hashing(catalog: Catalog, file: Path, tmp_path: Path) -> None:
    made = share(file, catalog)
    copy = tmp_path / "copy.mkv"
    copy.write_bytes(DATA)
    copy.chmod(0o755)
    other = Catalog(tmp_path / "other")
    with pytest.raises(LocalDataError):
        adopt(other, Link(made.file_id), copy)
    other.manifests.save(made.manifest)
    entry = adopt(other, Link(made.file_id), copy)
    assert other.get(made.file_id) == entry
    assert (entry.name, entry.size, entry.executable) == ("copy.mkv", len(DATA), True)
    assert not entry.private


def test_adopting_keeps_the_key(catalog: Catalog, file: Path) -> None:
    made = share(file, catalog, KEY)
    assert adopt(catalog, Link(made.file_id, key=KEY), file).key == KEY


def test_facts_are_those_that_a_scan_finds(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    (folder / "b").mkdir(parents=True)
    for name in ("b/c", "a", "b.txt"):
        (folder / name).write_bytes(name.encode())
    for path in (folder, folder / "a"):
        found = scan(path)
        assert facts_of(path, found.layout) == found.facts
    layout = scan(folder).layout
    (folder / "a").unlink()
    with pytest.raises(EnvironmentFault):
        facts_of(folder, layout)


def test_what_was_edited_since_is_not_adopted(tmp_path: Path) -> None:
    catalog = Catalog(tmp_path / "data")
    path = tmp_path / "film"
    path.write_bytes(b"as it was")
    made = create_share(
        path,
        catalog=catalog,
        algorithm=HashAlgorithm.BLAKE3,
        progress=lambda _: None,
        cancelled=lambda: False,
    )
    facts = scan(path).facts
    assert adopt(catalog, Link(made.file_id), path, facts).facts == facts
    path.write_bytes(b"as it is!")
    with pytest.raises(SourceChangedError, match="share it again"):
        adopt(catalog, Link(made.file_id), path, facts)
    with pytest.raises(EnvironmentFault):
        FinishedReader(tmp_path / ("x" * 300), made.manifest, None)
