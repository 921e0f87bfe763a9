"""Locks between processes: at most one works on a download, or runs as a node.

The kernel's flock on an open file is the lock. It ends with its holder however
the holder dies, so there are no stale locks to break, and nothing in the file
decides anything: its text only tells people who holds it.

Always true: whoever returns from `acquire` holds the flock of the very file
that the path leads to. `release` unlinks the file, but only while holding it;
a process that opened the old file meanwhile sees, once it has the flock, that
the path leads elsewhere, and starts over.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import stat
import time
from pathlib import Path

from furymesh.core.errors import AlreadyRunningError
from furymesh.core.ids import FileId
from furymesh.core.paths import shown
from furymesh.storage.files import PRIVATE_FILE, make_private_directory, translating

# A holder writes its name microseconds after it got the lock, or needs the lock
# for hardly longer. Who comes in between looks again this often, at most, before
# reporting a nameless holder.
_LOOKS = 25
_LOOK_INTERVAL = 0.01  # seconds
_MAX_TEXT = 4096  # bytes of a holder's self-description that are read


class FileLock:
    """An exclusive lock on a path. Not thread-safe; not inherited across exec."""

    def __init__(self, path: Path, *, what: str = "in use") -> None:
        """`what` completes the sentence "already … by process 1234"."""
        self.path = path
        self._what = what
        self._fd: int | None = None

    @property
    def held(self) -> bool:
        return self._fd is not None

    def acquire(self, description: str = "") -> None:
        """Take the lock at once or raise AlreadyRunningError naming the holder.

        `description` is what this process calls itself to others, like
        "furymesh get"; without one others wait a little, so be quick. Raises
        EnvironmentFault if the file cannot be locked.
        """
        if self._fd is not None:
            raise AlreadyRunningError(f"already {self._what} by this process")
        make_private_directory(self.path.parent)
        for _ in range(_LOOKS):
            with translating(self.path, "lock"):
                fd = self._try()
            if fd is not None:
                self._fd = fd
                if description:
                    self._introduce(description)
                return
            holder = self._holder()
            if holder is not None:
                raise AlreadyRunningError(self._refusal(holder))
            time.sleep(_LOOK_INTERVAL)
        raise AlreadyRunningError(self._refusal("another process"))

    def release(self) -> None:
        """Give the lock up and remove its file; fine if it is not held."""
        if self._fd is None:
            return
        fd, self._fd = self._fd, None
        try:
            # Also when its directory is not what it was: the lock ends with the descriptor.
            with contextlib.suppress(OSError):
                if _leads_to(self.path, fd):
                    self.path.unlink()
        finally:
            os.close(fd)

    def __enter__(self) -> FileLock:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def _try(self) -> int | None:
        """A descriptor that holds the lock, or None if another process has it."""
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        while True:
            fd = os.open(self.path, flags, PRIVATE_FILE)
            try:
                if not stat.S_ISREG(os.fstat(fd).st_mode):
                    raise OSError(errno.EINVAL, "it is not a regular file")
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if _leads_to(self.path, fd):
                    return fd
            except BlockingIOError:
                os.close(fd)
                return None
            except BaseException:
                os.close(fd)
                raise
            # Its last holder removed it after we opened it: that one is gone.
            os.close(fd)

    def _introduce(self, description: str) -> None:
        assert self._fd is not None
        record = {"pid": os.getpid(), "command": description, "since": int(time.time())}
        # The lock holds without this text, on a full disk for instance.
        with contextlib.suppress(OSError):
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, json.dumps(record).encode("ascii"), 0)

    def _holder(self) -> str | None:
        """Who holds the lock, or None if the file does not tell (yet)."""
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        try:
            with open(os.open(self.path, flags), "rb") as file:
                record = json.loads(file.read(_MAX_TEXT))
            pid, command, since = record["pid"], record["command"], record["since"]
            if not isinstance(command, str) or not _alive(pid):
                return None
            started = time.strftime("%H:%M:%S", time.localtime(since))
        except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
            return None
        return f"process {pid} ({shown(command)}, since {started})"

    def _refusal(self, holder: str) -> str:
        return f"already {self._what} by {holder}; wait for it to finish or stop it first"


class DownloadLock(FileLock):
    """The right to work on one download: its resume data and its part file."""

    def __init__(self, directory: Path, file_id: FileId) -> None:
        """`directory` is where resume data lives; it is made if missing."""
        super().__init__(directory / f"{file_id.hex()}.lock", what="being downloaded")


def lock_open_file(fd: int, path: Path, *, what: str, directory: int | None = None) -> None:
    """Lock the file or directory at `path`, open as `fd`, until `fd` is closed.

    With an open `directory` its name there counts, wherever `path` leads by now.
    Raises AlreadyRunningError (`what` as for `FileLock`) or EnvironmentFault.
    """
    with translating(path, "lock"):
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Its last holder may have renamed or removed it after we opened it.
            held = _leads_to(path if directory is None else path.name, fd, directory)
        except BlockingIOError:
            held = False
    if not held:
        raise AlreadyRunningError(
            f"{shown(str(path))} is already {what} by another process;"
            " wait for it to finish or stop it first"
        )


def _leads_to(path: Path | str, fd: int, directory: int | None = None) -> bool:
    try:
        named = os.stat(path, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return os.path.samestat(named, os.fstat(fd))


def _alive(pid: object) -> bool:
    """Whether such a process exists: the text may be that of a killed holder.

    Only decides whether to look once more, never whether the lock is held.
    """
    if not isinstance(pid, int) or pid <= 0:
        raise TypeError
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # somebody else's, but there
    return True
