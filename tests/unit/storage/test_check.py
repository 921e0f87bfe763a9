from __future__ import annotations

import hashlib
import threading
from pathlib import Path
from random import Random

import pytest

from furymesh.core.bitfield import mask_of
from furymesh.core.errors import EnvironmentFault
from furymesh.core.geometry import Geometry
from furymesh.core.hashing import HashAlgorithm
from furymesh.core.manifest import Manifest
from furymesh.storage.check import THREADS, Check, sha256_of_file
from tests.waiting import TIMEOUT, block_until

CHUNK = 16 * 1024
DATA = Random(3).randbytes(20 * CHUNK + 5)
COUNT = 21


def manifest_of(data: bytes) -> Manifest:
    digests = b"".join(
        HashAlgorithm.BLAKE3.digest(data[at : at + CHUNK]) for at in range(0, len(data), CHUNK)
    )
    return Manifest.build(HashAlgorithm.BLAKE3, Geometry(len(data), CHUNK), digests)


def reader(data: bytes, seen: list[int] | None = None):  # type: ignore[no-untyped-def]
    def read(chunk: int, view: memoryview) -> int:
        if seen is not None:
            seen.append(chunk)
        piece = data[chunk * CHUNK : (chunk + 1) * CHUNK]
        view[: len(piece)] = piece
        return len(piece)

    return read


def test_all_good() -> None:
    check = Check(manifest_of(DATA), (1 << COUNT) - 1, reader(DATA))
    assert check.run() == (1 << COUNT) - 1
    assert check.done == check.total == COUNT


def test_only_what_was_asked_for_is_read() -> None:
    seen: list[int] = []
    wanted = mask_of([3, 7, 20])
    assert Check(manifest_of(DATA), wanted, reader(DATA, seen)).run() == wanted
    assert sorted(seen) == [3, 7, 20]


def test_wrong_and_short_chunks_are_left_out() -> None:
    spoiled = bytearray(DATA[:-1])  # the last chunk is a byte short
    spoiled[5 * CHUNK] ^= 1
    good = Check(manifest_of(DATA), (1 << COUNT) - 1, reader(bytes(spoiled))).run()
    assert good == (1 << COUNT) - 1 & ~mask_of([5, 20])


def test_nothing_to_do() -> None:
    assert Check(manifest_of(b""), 0, reader(b"")).run() == 0
    assert Check(manifest_of(DATA), 0, reader(DATA)).run() == 0


def test_stopping_ends_it_early() -> None:
    check: Check

    def read(chunk: int, view: memoryview) -> int:
        check.stop = True
        return int(reader(DATA)(chunk, view))

    check = Check(manifest_of(DATA), (1 << COUNT) - 1, read)
    assert check.run().bit_count() <= 2
    assert check.done <= 2


def test_disk_that_cannot_be_read_ends_it() -> None:
    def read(chunk: int, view: memoryview) -> int:
        raise EnvironmentFault("the disk is broken")

    before = threading.active_count()
    with pytest.raises(EnvironmentFault, match="broken"):
        Check(manifest_of(DATA), (1 << COUNT) - 1, read).run()
    assert threading.active_count() <= before


def test_two_chunks_are_read_at_once_and_never_more() -> None:
    """Each has a buffer of its own; a third would cost memory and win nothing."""
    everything = (1 << COUNT) - 1
    both = threading.Barrier(2, timeout=TIMEOUT)
    readers: set[threading.Thread] = set()

    def read(chunk: int, view: memoryview) -> int:
        readers.add(threading.current_thread())
        if chunk < 2:
            both.wait()
        return int(reader(DATA)(chunk, view))

    assert Check(manifest_of(DATA), everything, read).run() == everything
    assert len(readers) == 2
    # None of them keeps a process alive that was told to end.
    assert all(thread.daemon for thread in readers - {threading.current_thread()})


def test_a_broken_disk_stops_the_other_thread_too() -> None:
    seen: list[int] = []

    def read(chunk: int, view: memoryview) -> int:
        seen.append(chunk)
        if chunk == 0:
            block_until(lambda: 1 in seen)
            raise EnvironmentFault("the disk is broken")
        block_until(lambda: check.stop)
        return int(reader(DATA)(chunk, view))

    check = Check(manifest_of(DATA), (1 << COUNT) - 1, read)
    with pytest.raises(EnvironmentFault):
        check.run()
    assert sorted(seen) == [0, 1]


def test_sha256(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(DATA)
    assert sha256_of_file(path) == hashlib.sha256(DATA).hexdigest()
    with pytest.raises(EnvironmentFault):
        sha256_of_file(tmp_path / "missing")


def test_passes_at_once_have_no_more_memory_than_one() -> None:
    reading, most, lock = 0, 0, threading.Lock()
    copy = reader(DATA)

    def read(chunk: int, view: memoryview) -> int:
        nonlocal reading, most
        with lock:
            reading += 1
            most = max(most, reading)
        threading.Event().wait(0.001)  # long enough for others to come
        size = int(copy(chunk, view))
        with lock:
            reading -= 1
        return size

    checks = [Check(manifest_of(DATA), (1 << COUNT) - 1, read) for _ in range(5)]
    threads = [threading.Thread(target=check.run) for check in checks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == THREADS
    assert all(check.done == COUNT for check in checks)
