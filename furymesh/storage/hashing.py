"""Hashing a stream with all the cores at hand.

Reading, BLAKE3, SHA-256 and AES-GCM all let go of the interpreter lock on
buffers of this size, so plain threads are enough. The caller's own thread only
counts, which keeps its callbacks in the thread that it expects them in.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from furymesh.core.geometry import DIGEST_SIZE, Geometry
from furymesh.core.hashing import HashAlgorithm
from furymesh.storage.content import Content

DEFAULT_THREADS = 2  # two saturate the memory of small machines; more hinder other work
POLL_SECONDS = 0.1  # how often progress is told; people see no faster


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

    def work(count: Callable[[int], None], stopped: Callable[[], bool]) -> None:
        slab = memoryview(bytearray(min(geometry.chunk_size, geometry.size)))
        for chunk in chunks:
            if stopped():
                return
            length = content.read_chunk_into(chunk, slab)
            at = chunk * DIGEST_SIZE
            digests[at : at + DIGEST_SIZE] = algorithm.digest(slab[:length])
            count(length)

    in_threads(work, min(threads, geometry.chunk_count), progress, cancelled)
    return bytes(digests)


def in_threads(
    work: Callable[[Callable[[int], None], Callable[[], bool]], None],
    threads: int,
    progress: Callable[[int], object],
    cancelled: Callable[[], bool],
) -> None:
    """Run `work(count, stopped)` in so many threads until all have returned.

    Each counts the bytes that it has hashed, and is to return soon once it is
    stopped: another one failed, or the caller's `cancelled` said so. Raises what
    a worker raised, and HashingStopped.
    """
    hashed = [0] * threads  # bytes, by worker
    errors: list[BaseException] = []
    stop = threading.Event()

    def guarded(number: int) -> None:
        def count(size: int) -> None:
            hashed[number] += size

        try:
            work(count, stop.is_set)
        except BaseException as error:
            errors.append(error)
            stop.set()

    workers = [
        threading.Thread(
            target=guarded, args=(number,), name=f"furymesh-hash-{number}", daemon=True
        )
        for number in range(threads)
    ]
    try:
        for worker in workers:
            worker.start()
        _watch(workers, hashed, progress, cancelled)
    finally:
        stop.set()
        for worker in workers:
            if worker.is_alive():
                worker.join()
    if errors:
        raise errors[0]


def _watch(
    workers: list[threading.Thread],
    hashed: list[int],
    progress: Callable[[int], object],
    cancelled: Callable[[], bool],
) -> None:
    """Report from time to time until all workers are done.

    Not for each chunk: a third thread, awake that often, slows down the other two.
    """
    reported = 0
    for worker in workers:
        alive = True
        while alive:
            if cancelled():
                raise HashingStopped("hashing was stopped before the end")
            worker.join(POLL_SECONDS)
            alive = worker.is_alive()
            total = sum(hashed)
            progress(total - reported)
            reported = total
