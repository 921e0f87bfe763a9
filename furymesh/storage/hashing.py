"""Hashing a stream with all the cores at hand.

Reading, BLAKE3, SHA-256 and AES-GCM all let go of the interpreter lock on
buffers of this size, so plain threads are enough. The caller's own thread only
counts, which keeps its callbacks in the thread that it expects them in.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue

from furymesh.core.geometry import DIGEST_SIZE, Geometry
from furymesh.core.hashing import HashAlgorithm
from furymesh.storage.content import Content

DEFAULT_THREADS = 2  # two saturate the memory of small machines; more hinder other work
POLL_SECONDS = 0.1  # how soon a cancelled hash lets go of a disk that does not answer


class HashingStopped(Exception):
    """The caller's `cancelled` said so; nothing was kept."""


def hash_content(
    content: Content,
    geometry: Geometry,
    algorithm: HashAlgorithm,
    progress: Callable[[int], object],
    cancelled: Callable[[], bool],
    threads: int = DEFAULT_THREADS,
) -> bytes:
    """The digests of all chunks, one after the other, 32 bytes each.

    `progress` gets the bytes hashed since its last call; it and `cancelled` are
    called in the caller's thread. Raises what reading raises (SourceChangedError,
    EnvironmentFault) and HashingStopped.
    """
    digests = bytearray(geometry.chunk_count * DIGEST_SIZE)
    chunks = iter(range(geometry.chunk_count))
    # What each chunk came to: its bytes, or why it failed.
    results: SimpleQueue[int | BaseException] = SimpleQueue()
    stop = threading.Event()

    def work() -> None:
        slab = memoryview(bytearray(min(geometry.chunk_size, geometry.size)))
        try:
            for chunk in chunks:
                if stop.is_set():
                    return
                length = content.read_chunk_into(chunk, slab)
                at = chunk * DIGEST_SIZE
                digests[at : at + DIGEST_SIZE] = algorithm.digest(slab[:length])
                results.put(length)
        except BaseException as error:
            results.put(error)

    workers = [
        threading.Thread(target=work, name=f"furymesh-hash-{number}", daemon=True)
        for number in range(min(threads, geometry.chunk_count))
    ]
    for worker in workers:
        worker.start()
    try:
        _collect(geometry.chunk_count, results, progress, cancelled)
    finally:
        stop.set()
        for worker in workers:
            worker.join()
    return bytes(digests)


def _collect(
    expected: int,
    results: SimpleQueue[int | BaseException],
    progress: Callable[[int], object],
    cancelled: Callable[[], bool],
) -> None:
    while expected:
        if cancelled():
            raise HashingStopped("hashing was stopped before the end")
        try:
            result = results.get(timeout=POLL_SECONDS)
        except Empty:
            continue
        if isinstance(result, BaseException):
            raise result
        progress(result)
        expected -= 1
