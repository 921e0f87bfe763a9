"""Reading the files of an archive that somebody may be changing meanwhile.

Facts are taken before and after. If they are the same, what was read is one
state of the file; if a write at that moment would not have shown in them, its
hash is given out but never kept (`unproven`).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from typing import NamedTuple

from furymesh.core.errors import NotFoundError, SourceChangedError
from furymesh.core.paths import shown
from furymesh.storage.files import open_beneath, read_at, translating
from furymesh.storage.hashing import HashingStopped
from furymesh.storage.scan import Facts, is_settled, settle
from furymesh.storage.writers import refuses_lease
from furymesh.sync.entries import TIME_BITS, FileInfo, kept_mode, split
from furymesh.sync.folder import Folder
from furymesh.sync.found import PIECE

MAX_TRIES = 3  # readings of a file that changes while it is read


class Hashed(NamedTuple):
    """A file's hash, and the facts that it goes with (`unproven` if they cannot tell)."""

    info: FileInfo
    facts: Facts


class Source:
    """One file, open for sending. Close it, or use it as a context manager.

    `info` is the file as it was when it was opened, its hash as it was described.
    """

    def __init__(self, folder: Folder, info: FileInfo) -> None:
        """Raises SourceChangedError (of another size or time), NotFoundError, EnvironmentFault."""
        self._path = info.path
        self._fd = open_source(folder, info.path)
        try:
            status = os.fstat(self._fd)
            self._facts = Facts.of(status)
            if (self._facts.size, self._facts.mtime_ns) != (info.size, info.mtime_ns):
                raise _changed(info.path)
        except BaseException:
            self.close()
            raise
        self.info = info._replace(mode=kept_mode(status.st_mode))

    def read_into(self, view: memoryview, offset: int) -> int:
        """Fill `view` from `offset`; fewer bytes only at the end. Raises EnvironmentFault."""
        with translating(self._path, "read"):
            return read_at(self._fd, view, offset)

    def check_unchanged(self) -> None:
        """After the last read: raises SourceChangedError if what was read may be of two states."""
        if Facts.of(os.fstat(self._fd)) != self._facts:
            raise _changed(self._path)

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __enter__(self) -> Source:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read_small(folder: Folder, path: str, limit: int) -> tuple[Hashed, bytes]:
    """A whole file of at most `limit` bytes, in one state of it, and its hash.

    Raises SourceChangedError (larger, or never the same twice), NotFoundError,
    EnvironmentFault.
    """
    fd = open_source(folder, path)
    try:
        with translating(path, "read"):
            for _ in range(MAX_TRIES):
                status = os.fstat(fd)
                before = Facts.of(status)
                if before.size > limit:
                    break
                proof = _shows_writes(fd, before)
                data = os.pread(fd, before.size + 1, 0)
                if len(data) == before.size and Facts.of(os.fstat(fd)) == before:
                    digest = hashlib.sha256(data).digest()
                    return _hashed(path, status, before, digest, proof), data
    finally:
        os.close(fd)
    raise _changed(path)


def hash_source(
    folder: Folder,
    path: str,
    slab: memoryview,
    count: Callable[[int], object],
    stopped: Callable[[], bool],
) -> Hashed:
    """Hash a file of any size in one state of it, through `slab`.

    `count` gets the bytes that were read. Raises SourceChangedError,
    NotFoundError, EnvironmentFault, HashingStopped.
    """
    fd = open_source(folder, path)
    try:
        with translating(path, "read"):
            for _ in range(MAX_TRIES):
                status = os.fstat(fd)
                before = Facts.of(status)
                settle((before,))
                proof = _shows_writes(fd, before)
                hasher = hashlib.sha256()
                at = 0
                while read := read_at(fd, slab, at):
                    hasher.update(slab[:read])
                    at += read
                    count(read)
                    if stopped():
                        raise HashingStopped("hashing was stopped before the end")
                    if at > before.size:
                        break
                if at == before.size and Facts.of(os.fstat(fd)) == before:
                    return _hashed(path, status, before, hasher.digest(), proof)
    finally:
        os.close(fd)
    raise _changed(path)


def new_slab() -> memoryview:
    """Room to hash through."""
    return memoryview(bytearray(PIECE))


def open_source(folder: Folder, path: str) -> int:
    """Open a file below the folder for reading, no link followed.

    Raises NotFoundError and EnvironmentFault.
    """
    parents, name = split(path)
    with translating(path, "read"):
        try:
            return open_beneath(folder.directory(parents), (name,), os.O_RDONLY)
        except (FileNotFoundError, NotADirectoryError):
            raise NotFoundError(f"{shown(path)} is gone") from None


def _shows_writes(fd: int, facts: Facts) -> bool:
    return is_settled(facts) and not refuses_lease(fd)


def _hashed(path: str, status: os.stat_result, facts: Facts, digest: bytes, proof: bool) -> Hashed:
    if facts.mtime_ns.bit_length() > TIME_BITS:
        raise _changed(path)
    info = FileInfo(path, facts.size, facts.mtime_ns, kept_mode(status.st_mode), digest)
    return Hashed(info, facts if proof else facts.unproven())


def _changed(path: str) -> SourceChangedError:
    return SourceChangedError(f"{shown(path)} changes while it is read: it is tried again later")
