"""The file under resume data: replaced whole, or extended by a record.

Always true: up to its size as remembered here, the file is a snapshot and whole
records in sequence. A write that fails is cut off again, and should even that
fail, the next one lands on top of it.

A replacement is prepared beside the file under one fixed name, so that a crash
leaves at most one stray file, which the next replacement removes, or a sweep.
That name is free to use because whoever writes resume data holds the download's
lock.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from furymesh.core.journal import RecordKind, RecordWriter
from furymesh.storage.files import PRIVATE_FILE, fsync_dir, translating, write_at

UNFINISHED_SUFFIX = ".new"


class JournalFile:
    """A snapshot with its journal, open at the end. Not thread-safe.

    Every method raises DiskFullError or EnvironmentFault when the system
    refuses, and then has not changed what the file says.
    """

    def __init__(self, path: Path, fd: int, salt: bytes) -> None:
        """Use `replacing`."""
        self._path = path
        self._fd = fd
        self._size = 0
        self._salt = salt
        self._snapshot_size = 0
        self._records = RecordWriter(salt)

    @classmethod
    @contextlib.contextmanager
    def replacing(cls, path: Path, snapshot: bytes, salt: bytes) -> Iterator[JournalFile]:
        """A new file beside `path` that begins with `snapshot`.

        The block ends with `rename_over`, or raises; then the new file is removed.
        """
        remove_unfinished(path)
        temporary = _temporary(path)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with translating(temporary, "create"):
            fresh = cls(temporary, os.open(temporary, flags, PRIVATE_FILE), salt)
        try:
            fresh._write(snapshot)
            fresh._snapshot_size = fresh._size
            yield fresh
        except BaseException:
            fresh.close()
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise

    @property
    def sequence(self) -> int:
        """The number of the next record."""
        return self._records.sequence

    def append(self, kind: RecordKind, index: int) -> None:
        """Write one record: a single write of 16 bytes."""
        self._write(self._records.record(kind, index))
        self._records.advance()

    def append_haves(self, chunks: list[int]) -> None:
        """Write HAVE records for several chunks at once."""
        self._write(self._records.have(chunks))
        self._records.advance(len(chunks))

    def sync(self) -> None:
        """Make everything written so far survive a power cut."""
        with translating(self._path, "sync"):
            os.fdatasync(self._fd)

    def cut(self) -> None:
        """Take back all records; this needs no room on the disk."""
        with translating(self._path, "shorten"):
            os.ftruncate(self._fd, self._snapshot_size)
        self._size = self._snapshot_size
        self._records = RecordWriter(self._salt)

    def rename_over(self, path: Path) -> None:
        """Take the place of the file at `path`."""
        with translating(path, "replace"):
            os.rename(self._path, path)
        self._path = path

    def close(self) -> None:
        os.close(self._fd)

    def _write(self, data: bytes) -> None:
        try:
            with translating(self._path, "write"):
                write_at(self._fd, memoryview(data), self._size)
        except BaseException:
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, self._size)
            raise
        self._size += len(data)


def remove_journal(path: Path) -> None:
    """Remove the file at `path` and what a crash left beside it, for good.

    Fine if there is none. Raises EnvironmentFault.
    """
    remove_unfinished(path)
    _unlink(path)
    fsync_dir(path.parent)


def remove_unfinished(path: Path) -> None:
    """Remove what a crash left beside the file at `path`; fine if there is nothing."""
    _unlink(_temporary(path))


def _temporary(path: Path) -> Path:
    return path.with_name(path.name + UNFINISHED_SUFFIX)


def _unlink(path: Path) -> None:
    with translating(path, "remove"):
        path.unlink(missing_ok=True)
