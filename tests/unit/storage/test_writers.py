from __future__ import annotations

import errno
import mmap
import os
from pathlib import Path

import pytest

from furymesh.core.errors import EnvironmentFault, SourceChangedError
from furymesh.core.hashing import HashAlgorithm
from furymesh.core.link import Link
from furymesh.storage.catalog import Catalog
from furymesh.storage.files import open_plain
from furymesh.storage.finished import adopt
from furymesh.storage.scan import scan, settle
from furymesh.storage.sharing import Share, create_share, open_share
from furymesh.storage.writers import proven, refuses_lease

CHUNK = 16 * 1024


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "a.bin"
    path.write_bytes(os.urandom(2 * CHUNK))
    fd = open_plain(path, os.O_RDONLY)
    with path.open("r+b"):
        told = refuses_lease(fd)
    os.close(fd)
    if not told:
        pytest.skip("the file system here does not tell who writes")
    return path


def make(catalog: Catalog, path: Path) -> Share:
    return create_share(
        path,
        catalog=catalog,
        algorithm=HashAlgorithm.BLAKE3,
        chunk_size=CHUNK,
        progress=lambda _: None,
        cancelled=lambda: False,
    )


def test_a_writer_is_noticed_while_it_is_there(file: Path) -> None:
    fd = open_plain(file, os.O_RDONLY)
    assert not refuses_lease(fd)
    with file.open("rb"):
        assert not refuses_lease(fd)
    with file.open("r+b") as writer:
        assert refuses_lease(fd)
        mapped = mmap.mmap(writer.fileno(), 0)
    assert refuses_lease(fd), "a mapping outlives the descriptor"
    mapped.close()
    assert not refuses_lease(fd)
    file.open("ab").close()  # nobody is left waiting for a lease
    os.close(fd)


def test_facts_of_a_file_with_a_writer_prove_nothing(file: Path) -> None:
    found = scan(file)
    assert proven(found.path, found.layout, found.facts) == found.facts
    with file.open("r+b"):
        (fact,) = proven(found.path, found.layout, found.facts)
    assert not fact.is_proof
    assert fact not in found.facts


def test_a_write_that_leaves_no_trace_is_not_served(file: Path, tmp_path: Path) -> None:
    """Through a mapping, to a page that was written through it before."""
    catalog = Catalog(tmp_path / "data")
    with file.open("r+b") as writer, mmap.mmap(writer.fileno(), 0) as mapped:
        mapped[5] = 1
        made = make(catalog, file)
        facts = scan(file).facts
        before = bytes(mapped)
        mapped[5] = 2
        if scan(file).facts != facts:
            pytest.skip("the kernel here notices every write")
        entry = catalog.get(made.file_id)
        assert entry is not None
        _, content = open_share(catalog, entry)
        view = memoryview(bytearray(100))
        with pytest.raises(SourceChangedError):
            content.read_into(0, 0, view)
        assert not content.resident_read_into(0, 0, view)
        content.read_into(1, 0, view)
        assert view == before[CHUNK : CHUNK + 100]
        content.close()
    assert not make(catalog, file).cached


def test_a_download_with_a_writer_is_shared_on_by_its_digests(file: Path, tmp_path: Path) -> None:
    catalog = Catalog(tmp_path / "data")
    made = make(catalog, file)
    found = scan(file)
    with file.open("r+b"):
        facts = proven(found.path, found.layout, found.facts)
        assert adopt(catalog, Link(made.file_id), file, facts).facts == facts


def test_after_settling_every_write_shows(file: Path) -> None:
    for number in range(50):
        with file.open("r+b", buffering=0) as writer:
            writer.write(bytes([number]))
        facts = scan(file).facts
        settle(facts)
        with file.open("r+b", buffering=0) as writer:
            writer.write(b"!")
        assert scan(file).facts != facts


def test_a_file_that_may_not_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "folder").mkdir()
    for name in ("a", "b"):
        (tmp_path / "folder" / name).write_text(name)

    def open_beneath(root_fd: int, names: tuple[str, ...], flags: int) -> int:
        # The modes of a file do not hold back root, as which tests may run.
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr("furymesh.storage.writers.open_beneath", open_beneath)
    for shared in (tmp_path / "folder", tmp_path / "folder" / "a"):
        found = scan(shared)
        with pytest.raises(EnvironmentFault, match=f"cannot read {tmp_path}/folder/a: perm"):
            proven(found.path, found.layout, found.facts)
