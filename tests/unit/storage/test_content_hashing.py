import threading
from pathlib import Path
from random import Random

import pytest

from furymesh.core.errors import SourceChangedError
from furymesh.core.geometry import Geometry
from furymesh.core.hashing import HashAlgorithm
from furymesh.core.layout import Layout
from furymesh.core.sealing import Sealer, cipher_size
from furymesh.storage.content import Content
from furymesh.storage.hashing import HashingStopped, hash_content
from tests.waiting import block_until

CHUNK = 16 * 1024


def content_of(tmp_path: Path, data: bytes, sealer: Sealer | None = None) -> Content:
    path = tmp_path / "a.bin"
    path.write_bytes(data)
    size = cipher_size(len(data), CHUNK) if sealer else len(data)
    return Content(path, Layout.of_file(len(data)), Geometry(size, CHUNK), sealer)


def never() -> bool:
    return False


@pytest.mark.parametrize("algorithm", HashAlgorithm)
@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 10 * CHUNK + 1])
def test_digests_in_order(
    tmp_path: Path, algorithm: HashAlgorithm, threads: int, size: int
) -> None:
    data = Random(size).randbytes(size)
    content = content_of(tmp_path, data)
    counted: list[int] = []
    digests = hash_content(content, content.geometry, algorithm, counted.append, never, threads)
    expected = [algorithm.digest(data[at : at + CHUNK]) for at in range(0, size, CHUNK)]
    assert digests == b"".join(expected)
    assert sum(counted) == size
    content.close()


def test_sealed_streams_are_hashed_sealed(tmp_path: Path) -> None:
    sealer = Sealer(bytes(32))
    content = content_of(tmp_path, bytes(CHUNK), sealer)
    b3 = HashAlgorithm.BLAKE3
    digests = hash_content(content, content.geometry, b3, lambda _: None, never)
    room = CHUNK - 28
    assert digests == b3.digest(sealer.seal(0, bytes(room))) + b3.digest(sealer.seal(1, bytes(28)))
    content.close()


def test_callbacks_run_in_the_callers_thread(tmp_path: Path) -> None:
    content = content_of(tmp_path, bytes(5 * CHUNK))
    seen = set()

    def note(*_: int) -> bool:
        seen.add(threading.current_thread())
        return False

    hash_content(content, content.geometry, HashAlgorithm.BLAKE3, note, note)
    assert seen == {threading.current_thread()}
    content.close()


def test_progress_is_told_again_and_again_while_a_chunk_takes_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = content_of(tmp_path, bytes(CHUNK))
    told: list[int] = []
    workers: list[threading.Thread] = []
    read_chunk_into = content.read_chunk_into

    def read(chunk: int, view: memoryview) -> int:
        workers.append(threading.current_thread())
        assert hash_threads() != []  # the tests that want none afterwards know them by name
        block_until(lambda: len(told) >= 3)
        return read_chunk_into(chunk, view)

    monkeypatch.setattr(content, "read_chunk_into", read)
    hash_content(content, content.geometry, HashAlgorithm.BLAKE3, told.append, never)
    assert sum(told) == CHUNK
    assert all(worker.daemon for worker in workers)  # a process may end without them
    content.close()


def hash_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if "hash" in thread.name]


def test_stops_when_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = content_of(tmp_path, bytes(50 * CHUNK))
    going_on = threading.Event()
    read_chunk_into = content.read_chunk_into

    def read(chunk: int, view: memoryview) -> int:
        going_on.wait()
        return read_chunk_into(chunk, view)

    def cancelled() -> bool:
        going_on.set()
        return True

    monkeypatch.setattr(content, "read_chunk_into", read)
    with pytest.raises(HashingStopped):
        hash_content(content, content.geometry, HashAlgorithm.BLAKE3, lambda _: None, cancelled)
    assert hash_threads() == []
    content.close()


def test_errors_of_reading_and_of_callbacks_come_out(tmp_path: Path) -> None:
    content = content_of(tmp_path, bytes(5 * CHUNK))

    def fail(*_: int) -> bool:
        raise KeyboardInterrupt

    b3 = HashAlgorithm.BLAKE3
    with pytest.raises(KeyboardInterrupt):
        hash_content(content, content.geometry, b3, fail, never)
    with pytest.raises(KeyboardInterrupt):
        hash_content(content, content.geometry, b3, lambda _: None, fail)
    (tmp_path / "a.bin").write_bytes(bytes(3 * CHUNK))
    with pytest.raises(SourceChangedError):
        hash_content(content, content.geometry, b3, lambda _: None, never)
    assert hash_threads() == []
    content.close()
