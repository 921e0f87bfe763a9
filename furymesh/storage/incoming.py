"""One file that arrives from its first byte on: continued, then finished.

Always true: what lies in the file is a prefix of the source, or what was there
before anybody checked it; `cut` removes that before more is written.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Sequence
from pathlib import Path

from furymesh.core.errors import EnvironmentFault
from furymesh.core.paths import shown
from furymesh.storage.files import (
    open_beneath,
    open_directory_beneath,
    open_root,
    translating,
    write_at,
)
from furymesh.storage.lock import lock_open_file
from furymesh.storage.publish import publish_in

_OWNER_READS = 0o400


class Place:
    """A name in a directory that is held open: whatever its path leads to later, it is meant."""

    def __init__(self, root: Path, components: Sequence[str]) -> None:
        """The last of `components` is the name; none before it may be a link.

        Raises EnvironmentFault, also where something but a regular file has the name.
        """
        self.path = root.joinpath(*components)
        self.name = components[-1]
        root_fd = open_root(root)
        try:
            with translating(self.path.parent, "open"):
                self.directory = open_directory_beneath(root_fd, components[:-1])
        finally:
            os.close(root_fd)
        try:
            self._check()
        except BaseException:
            os.close(self.directory)
            raise

    def _check(self) -> None:
        with translating(self.path, "write"), contextlib.suppress(FileNotFoundError):
            kind = os.stat(self.name, dir_fd=self.directory, follow_symlinks=False).st_mode
            if not stat.S_ISREG(kind):
                raise EnvironmentFault(
                    f"cannot write {shown(str(self.path))}: a directory, a link or a special"
                    " file is in the way; remove it or choose another name"
                )

    def open_existing(self) -> int | None:
        """To read what has the name now; None if nothing has, or it cannot be read."""
        try:
            return open_beneath(self.directory, (self.name,), os.O_RDONLY)
        except OSError:
            return None

    def discard(self, name: str) -> None:
        """Remove an unfinished file beside it, if it is there; raises EnvironmentFault."""
        with translating(self.path.with_name(name), "remove"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=self.directory)
            os.fsync(self.directory)

    def close(self) -> None:
        os.close(self.directory)


class IncomingFile:
    """A file open for writing, held against other downloads to the same name."""

    def __init__(self, place: Place, suffix: str, *, keep: bool) -> None:
        """Open or create the file that `place` and `suffix` name; without `keep` it is emptied.

        It may not be a link. Raises AlreadyRunningError, DiskFullError, EnvironmentFault.
        """
        self._place = place
        self._name = place.name + suffix
        self.path = place.path.with_name(self._name)
        with translating(self.path, "write"):
            self._fd = open_beneath(place.directory, (self._name,), os.O_RDWR | os.O_CREAT)
        try:
            lock_open_file(self._fd, self.path, what="being downloaded", directory=place.directory)
            if not keep:
                self.cut(0)
            self.facts = os.fstat(self._fd)
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

    def finish(self, size: int, mode: int, modified: int) -> None:
        """Give it its mode, time (seconds) and final name, all durable.

        What has the final name is replaced. Raises VerificationError if it does
        not have `size` bytes, DiskFullError, EnvironmentFault.
        """
        permissions = stat.S_IMODE(mode) & 0o777
        with translating(self.path, "finish"):
            # Who finishes it reads it; a mode without that comes afterwards.
            os.fchmod(self._fd, permissions | _OWNER_READS)
            os.utime(self._fd, (modified, modified))
        publish_in(self._place.directory, self._name, self._place.path, size)
        with translating(self._place.path, "finish"):
            if not permissions & _OWNER_READS:
                os.fchmod(self._fd, permissions)
                os.fsync(self._fd)

    def discard(self) -> None:
        """Remove it; raises EnvironmentFault."""
        self._place.discard(self._name)

    def close(self) -> None:
        os.close(self._fd)


def read_bytes_at(fd: int, offset: int, length: int) -> bytes:
    """At most `length` bytes from `offset`, fewer only at the file's end; raises OSError."""
    data = os.pread(fd, length, offset)
    while len(data) < length:
        more = os.pread(fd, length - len(data), offset + len(data))
        if not more:
            break
        data += more
    return data
