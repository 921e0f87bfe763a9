import errno
import os
from pathlib import Path
from random import Random

import pytest

from furymesh.core.errors import EnvironmentFault, SourceChangedError
from furymesh.core.geometry import Geometry
from furymesh.core.sealing import Sealer, cipher_size
from furymesh.storage import content as module
from furymesh.storage.content import Content
from furymesh.storage.scan import scan

CHUNK = 16 * 1024


def content_of(path: Path, sealer: Sealer | None = None, *, facts: bool = True) -> Content:
    found = scan(path)
    size = found.layout.plain_size
    geometry = Geometry(cipher_size(size, CHUNK) if sealer else size, CHUNK)
    return Content(path, found.layout, geometry, sealer, found.facts if facts else None)


def read(content: Content, chunk: int, start: int, length: int) -> bytes:
    out = bytearray(length)
    content.read_into(chunk, start, memoryview(out))
    return bytes(out)


def read_all(content: Content) -> list[bytes]:
    slab = memoryview(bytearray(CHUNK))
    return [
        bytes(slab[: content.read_chunk_into(chunk, slab)])
        for chunk in range(content.geometry.chunk_count)
    ]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "a.bin"
    path.write_bytes(Random(1).randbytes(2 * CHUNK + 100))
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "folder"
    for number, size in enumerate([10, 0, CHUNK, 3, 2 * CHUNK + 100, 0]):
        path = root / f"d{number % 2}" / f"{number}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(Random(number).randbytes(size))
    return root


def stream_of(path: Path) -> bytes:
    found = scan(path)
    if found.entries is None:
        return path.read_bytes()
    return b"".join((path / file.path).read_bytes() for file in found.layout.files)


@pytest.mark.parametrize("which", ["file", "folder"])
@pytest.mark.parametrize("sealed", [False, True])
def test_chunks_are_slices_of_the_stream(
    which: str, sealed: bool, request: pytest.FixtureRequest
) -> None:
    path = request.getfixturevalue(which)
    sealer = Sealer(bytes(32)) if sealed else None
    content = content_of(path, sealer)
    chunks = read_all(content)
    assert [len(chunk) for chunk in chunks] == [
        content.geometry.length(number) for number in range(content.geometry.chunk_count)
    ]
    plain = [sealer.open(number, chunk) if sealer else chunk for number, chunk in enumerate(chunks)]
    assert b"".join(plain) == stream_of(path)
    for number, chunk in enumerate(chunks):
        assert read(content, number, 0, len(chunk)) == chunk
        assert read(content, number, 7, 20) == chunk[7:27]
        assert read(content, number, len(chunk) - 1, 1) == chunk[-1:]
    content.close()


def test_one_plain_file_is_one_preadv(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = content_of(file)
    read(content, 0, 0, 1)
    calls = []
    preadv = os.preadv

    def counted(fd: int, views: list[memoryview], offset: int) -> int:
        calls.append((len(views[0]), offset))
        return preadv(fd, views, offset)

    monkeypatch.setattr(os, "preadv", counted)
    read(content, 1, 5, 1000)
    assert calls == [(1000, CHUNK + 5)]
    content.close()


def test_short_reads_are_continued(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = content_of(file)
    preadv = os.preadv
    monkeypatch.setattr(
        os, "preadv", lambda fd, views, offset: preadv(fd, [views[0][:999]], offset)
    )
    assert read_all(content) == [
        file.read_bytes()[at : at + CHUNK] for at in range(0, 2 * CHUNK + 100, CHUNK)
    ]
    content.close()


def touch(path: Path) -> None:
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))


def rewrite_with_old_times(path: Path) -> None:
    status = path.stat()
    path.write_bytes(bytes(status.st_size))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def grow(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"x")


def replace(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(path.read_bytes())
    other.rename(path)


@pytest.mark.parametrize("change", [touch, rewrite_with_old_times, grow, replace])
@pytest.mark.parametrize("opened_before", [False, True])
def test_changed_files_are_noticed(file: Path, change: object, opened_before: bool) -> None:
    assert callable(change)
    content = content_of(file)
    if opened_before:
        read(content, 0, 0, 1)
    # Past the tick of the kernel's clock in which the file was written.
    old = file.stat().st_ctime_ns
    while file.stat().st_ctime_ns == old:
        change(file)
    with pytest.raises(SourceChangedError, match="has changed since it was hashed"):
        read(content, 0, 0, 1)
    assert not content.resident_read_into(0, 0, memoryview(bytearray(1)))
    content.close()


def checked_content_of(path: Path, sealer: Sealer | None = None) -> Content:
    """As shares are served: what has other facts is hashed again."""
    known = [bytes(chunk) for chunk in read_all(content_of(path, sealer))]
    found = scan(path)
    size = found.layout.plain_size
    geometry = Geometry(cipher_size(size, CHUNK) if sealer else size, CHUNK)

    def matches(chunk: int, view: memoryview) -> bool:
        return bytes(view) == known[chunk]

    return Content(path, found.layout, geometry, sealer, found.facts, matches=matches)


@pytest.mark.parametrize("sealer", [None, Sealer(bytes(32))], ids=["plain", "sealed"])
def test_chunks_of_a_changed_file_are_good_as_long_as_their_digest_is(
    file: Path, sealer: Sealer | None
) -> None:
    content, before = checked_content_of(file, sealer), read_all(content_of(file, sealer))
    with file.open("ab") as appended:
        appended.write(b"more")
    for chunk, expected in enumerate(before[:2]):
        assert read(content, chunk, 10, 90) == expected[10:100]
    with file.open("r+b") as written:
        written.seek(CHUNK + 5000)
        written.write(b"!")
    content.close()
    content = checked_content_of(file, sealer)
    with file.open("r+b") as written:
        written.write(b"?!")
    with pytest.raises(SourceChangedError, match="has changed since it was hashed"):
        read(content, 0, 10_000, 1)
    assert len(read(content, 1, 0, 100)) == 100
    assert not content.resident_read_into(1, 0, memoryview(bytearray(100)))
    content.close()


def test_a_removed_file_is_gone_although_it_could_be_read_still(file: Path) -> None:
    content = checked_content_of(file)
    read(content, 0, 0, 1)
    file.unlink()
    with pytest.raises(SourceChangedError, match="has changed"):
        read(content, 0, 0, 1)
    content.close()


@pytest.mark.parametrize("facts", [False, True])
def test_files_that_shrank_or_went(file: Path, folder: Path, facts: bool) -> None:
    content = content_of(file, facts=facts)
    os.truncate(file, CHUNK + 1)
    with pytest.raises(SourceChangedError, match="has changed"):
        read(content, 1, 0, CHUNK)
    with pytest.raises(SourceChangedError, match="has changed"):
        read(content, 2, 0, 1)
    content.close()
    content = content_of(folder, facts=facts)
    (folder / "d0/0.bin").unlink()
    with pytest.raises(SourceChangedError, match=r"0\.bin is gone"):
        read_all(content)
    content.close()


def test_a_link_put_in_the_way_is_not_followed(folder: Path) -> None:
    content = content_of(folder, facts=False)
    (folder / "d0").rename(folder / "moved")
    (folder / "d0").symlink_to("moved")
    # Whatever the kernel calls it, nothing is read through the link.
    with pytest.raises((EnvironmentFault, SourceChangedError)):
        read_all(content)
    content.close()


def test_system_failures_are_translated(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = content_of(file)

    def fail(*_: object) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "preadv", fail)
    with pytest.raises(EnvironmentFault, match=r"cannot read .*a\.bin: .* the disk reports errors"):
        read(content, 0, 0, 1)
    content.close()


def test_a_folder_that_is_gone(tmp_path: Path, folder: Path) -> None:
    found = scan(folder)
    with pytest.raises(EnvironmentFault):
        Content(tmp_path / "none", found.layout, Geometry(1, CHUNK))


def test_resident_bytes_are_read_without_waiting(file: Path) -> None:
    content = content_of(file)
    view = memoryview(bytearray(100))
    assert not content.resident_read_into(1, 5, view)  # not opened yet: that could wait
    assert read(content, 1, 5, 100) == file.read_bytes()[CHUNK + 5 : CHUNK + 105]
    # The first try may find out that the file system lacks the flag.
    assert content.resident_read_into(1, 5, view) or content.resident_read_into(1, 5, view)
    assert view == file.read_bytes()[CHUNK + 5 : CHUNK + 105]
    content.close()


def test_resident_reads_on_tmpfs(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    preadv = os.preadv

    def lacks_flag(fd: int, views: list[memoryview], offset: int, flags: int = 0) -> int:
        if flags:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        return preadv(fd, views, offset)

    monkeypatch.setattr(os, "preadv", lacks_flag)
    for tmpfs in (True, False):
        monkeypatch.setattr(module, "_is_tmpfs", lambda _, answer=tmpfs: answer)
        content = content_of(file)
        read(content, 0, 0, 1)
        view = memoryview(bytearray(10))
        assert not content.resident_read_into(0, 0, view)
        assert content.resident_read_into(0, 0, view) is tmpfs
        content.close()


def test_what_would_wait_is_left_alone(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = content_of(file)
    read(content, 0, 0, 1)

    def would_block(*_: object) -> int:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(os, "preadv", would_block)
    assert not content.resident_read_into(0, 0, memoryview(bytearray(10)))
    monkeypatch.setattr(os, "preadv", lambda *_: 3)
    assert not content.resident_read_into(0, 0, memoryview(bytearray(10)))
    content.close()


def test_resident_reads_are_for_one_plain_file(file: Path, folder: Path) -> None:
    for content in (content_of(folder), content_of(file, Sealer(bytes(32)))):
        read_all(content)
        assert not content.resident_read_into(0, 0, memoryview(bytearray(10)))
        content.close()


def test_a_sealed_chunk_read_in_parts_is_sealed_once(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = content_of(file, Sealer(bytes(32)))
    sealed = []
    seal_into = Sealer.seal_into

    def counted(self: Sealer, index: int, plain: memoryview, out: memoryview) -> int:
        sealed.append(index)
        return seal_into(self, index, plain, out)

    monkeypatch.setattr(Sealer, "seal_into", counted)
    for start in range(0, 1000, 100):
        for chunk in range(3):
            read(content, chunk, start % 90, 30)
    assert sealed == [0, 1, 2]
    content.close()


def test_mount_table() -> None:
    device = os.stat("/proc").st_dev
    assert not module._is_tmpfs(device)
    assert not module._is_tmpfs(os.makedev(4000, 4000))
