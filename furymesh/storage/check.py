"""Hash chunks on disk against a manifest, with every core.

The same pass serves three purposes: chunks that are doubtful after a crash,
every chunk before a download is published, and ``verify`` of finished content.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from furymesh.core.bitfield import chunks_of, mask_of
from furymesh.core.errors import FuryMeshError
from furymesh.core.manifest import Manifest
from furymesh.storage.files import translating

THREADS = 2  # hashing outruns the memory bus soon; more threads only add slabs

ReadChunk = Callable[[int, memoryview], int]


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
        if self._error is not None:
            raise self._error
        return mask_of(self._good)

    def _work(self) -> None:
        if not self.total:
            return
        geometry = self._manifest.header.geometry
        slab = memoryview(bytearray(min(geometry.chunk_size, geometry.size)))
        while not self.stop:
            with self._lock:
                chunk = next(self._todo, None)
            if chunk is None:
                return
            try:
                size = self._read(chunk, slab)
                good = self._manifest.matches(chunk, slab[:size])
            except FuryMeshError as error:
                self._error = error
                self.stop = True
                return
            with self._lock:
                self.done += 1
                if good:
                    self._good.append(chunk)


def sha256_of_file(path: Path) -> str:
    """The hex SHA-256 of a file; raises EnvironmentFault."""
    with translating(path, "read"), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
