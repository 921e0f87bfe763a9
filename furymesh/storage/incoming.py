"""One file that arrives from its first byte on: continued, then finished.

Always true: what lies in the file is a prefix of the source, or what was there
before anybody checked it; `cut` removes that before more is written.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path

from furymesh.core.layout import Layout
from furymesh.storage.files import (
    fsync_dir,
    open_beneath,
    open_root,
    read_at,
    translating,
    write_at,
)
from furymesh.storage.lock import lock_open_file
from furymesh.storage.publish import publish

_OWNER_READS = 0o400


class IncomingFile:
    """A file open for writing, held against other downloads to the same name."""

    def __init__(self, path: Path, *, keep: bool) -> None:
        """Open or create `path`, which may not be a link; without `keep` it is emptied.

        Raises AlreadyRunningError, DiskFullError, EnvironmentFault.
        """
        self.path = path
        parent = open_root(path.parent)
        try:
            with translating(path, "write"):
                self._fd = open_beneath(parent, (path.name,), os.O_RDWR | os.O_CREAT)
        finally:
            os.close(parent)
        try:
            lock_open_file(self._fd, path, what="being downloaded")
            if not keep:
                self.cut(0)
            facts = os.fstat(self._fd)
            self.size, self.modified = facts.st_size, int(facts.st_mtime)
        except BaseException:
            os.close(self._fd)
            raise

    def read(self, offset: int, length: int) -> bytes:
        """Raises EnvironmentFault."""
        with translating(self.path, "read"):
            return read_bytes_at(self._fd, offset, length)

    def cut(self, size: int) -> None:
        """Drop what lies beyond `size` bytes; raises EnvironmentFault."""
        with translating(self.path, "write"):
            os.ftruncate(self._fd, size)

    def write(self, blocks: Sequence[bytes], offset: int, modified: int) -> None:
        """Write, and give the file the time (seconds) of what it is a copy of.

        Raises DiskFullError, EnvironmentFault.
        """
        with translating(self.path, "write"):
            for block in blocks:
                write_at(self._fd, memoryview(block), offset)
                offset += len(block)
            os.utime(self._fd, (modified, modified))

    def finish(self, final: Path, size: int, mode: int, modified: int) -> None:
        """Give it its mode, time (seconds) and final name, all durable.

        What has the final name is replaced. Raises VerificationError if it does
        not have `size` bytes, DiskFullError, EnvironmentFault.
        """
        permissions = stat.S_IMODE(mode) & 0o777
        with translating(self.path, "finish"):
            # Who finishes it reads it; a mode without that comes afterwards.
            os.fchmod(self._fd, permissions | _OWNER_READS)
            os.utime(self._fd, (modified, modified))
        publish(self.path, final, Layout.of_file(size), overwrite=True)
        with translating(final, "finish"):
            if not permissions & _OWNER_READS:
                os.fchmod(self._fd, permissions)
                os.fsync(self._fd)

    def discard(self) -> None:
        """Remove it; raises EnvironmentFault."""
        discard(self.path)

    def close(self) -> None:
        os.close(self._fd)


def read_bytes_at(fd: int, offset: int, length: int) -> bytes:
    """At most `length` bytes from `offset`, fewer only at the file's end; raises OSError."""
    buffer = bytearray(length)
    return bytes(memoryview(buffer)[: read_at(fd, memoryview(buffer), offset)])


def discard(path: Path) -> None:
    """Remove an unfinished file, if it is there; raises EnvironmentFault."""
    with translating(path, "remove"):
        path.unlink(missing_ok=True)
    fsync_dir(path.parent)
