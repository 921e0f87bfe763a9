"""Hash chunks on disk against a manifest, with every core.

The same pass serves three purposes: chunks that are doubtful after a crash,
every chunk before a download is published, and ``verify`` of finished content.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from furymesh.core.bitfield import chunks_of, mask_of
from furymesh.core.errors import FuryMeshError
from furymesh.core.manifest import Manifest
from furymesh.storage.files import translating

THREADS = 2  # hashing outruns the memory bus soon; more threads only add slabs

ReadChunk = Callable[[int, memoryview], int]


class _Slabs:
    """Memory for as many chunks as there are THREADS, however many passes run at once."""

    def __init__(self) -> None:
        self._turn = threading.Semaphore(THREADS)
        self._idle: list[memoryview] = []

    @contextmanager
    def lent(self, size: int) -> Iterator[memoryview]:
        """`size` bytes, when it is the turn of this thread."""
        with self._turn:
            try:
                slab = self._idle.pop()
            except IndexError:
                slab = memoryview(b"")
            if len(slab) < size:
                slab = memoryview(bytearray(size))
            yield slab[:size]
            self._idle.append(slab)

    def trim(self) -> None:
        """Give idle memory back to the system, until it is wanted again."""
        self._idle.clear()


_SLABS = _Slabs()


class Check:
    """One pass over some chunks; run it in a thread, watch `done`, set `stop` to end it."""

    def __init__(self, manifest: Manifest, chunks: int, read: ReadChunk) -> None:
        """`chunks` is a mask whose digests are all known; `read` fills a view with a
        chunk and returns its length, less if the content is cut short there."""
        self.total = chunks.bit_count()
        self.done = 0
        self.stop = False
        self._manifest = manifest
        self._read = read
        self._todo: Iterator[int] = chunks_of(chunks)
        self._lock = threading.Lock()
        self._good: list[int] = []
        self._error: FuryMeshError | None = None

    def run(self) -> int:
        """The mask of the chunks that are as they should be.

        Stopped early it is the mask of those found good so far. Raises
        EnvironmentFault when the disk cannot be read.
        """
        threads = [
            threading.Thread(target=self._work, daemon=True)
            for _ in range(min(THREADS, self.total) - 1)
        ]
        for thread in threads:
            thread.start()
        self._work()
        for thread in threads:
            thread.join()
        _SLABS.trim()
        if self._error is not None:
            raise self._error
        return mask_of(self._good)

    def _work(self) -> None:
        while not self.stop:
            with self._lock:
                chunk = next(self._todo, None)
            if chunk is None:
                return
            try:
                good = self._is_good(chunk)
            except FuryMeshError as error:
                self._error = error
                self.stop = True
                return
            with self._lock:
                self.done += 1
                if good:
                    self._good.append(chunk)

    def _is_good(self, chunk: int) -> bool:
        with _SLABS.lent(self._manifest.header.geometry.length(chunk)) as slab:
            size = self._read(chunk, slab)
            return self._manifest.matches(chunk, slab[:size])


def sha256_of_file(path: Path) -> str:
    """The hex SHA-256 of a file; raises EnvironmentFault."""
    with translating(path, "read"), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
