"""Files, safely: walking without following links, writing without tearing.

Two kinds of function live here. The ones that take a root descriptor walk a
path component by component with O_NOFOLLOW, so that nothing put in the way (a
link, a pipe, a device) is followed or waited for; they raise plain OSError and
are called inside `translating`. The ones that take a `Path` translate by
themselves.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from furymesh.core.errors import DiskFullError, EnvironmentFault
from furymesh.core.paths import shown
from furymesh.core.units import format_size

PRIVATE_FILE = 0o600
PRIVATE_DIRECTORY = 0o700

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
# O_NONBLOCK does nothing to regular files and keeps a named pipe from
# stopping the thread before its type has been looked at.
_CAREFUL = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY

_ADVICE = {
    errno.EACCES: "check its permissions",
    errno.EPERM: "check its permissions",
    errno.EROFS: "choose a place that can be written",
    errno.ENOENT: "check that it exists",
    errno.ENOTDIR: "something that is not a directory is in the way",
    errno.EISDIR: "a directory is in the way",
    errno.EEXIST: "something of that name is in the way",
    errno.ELOOP: "links inside a shared or downloaded folder are not followed",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.ENFILE: "the system has too many files open; try again later",
    errno.EIO: "the disk reports errors; check it before going on",
    errno.ENAMETOOLONG: "choose a shorter name",
}


@contextlib.contextmanager
def translating(path: str | os.PathLike[str], action: str) -> Iterator[None]:
    """Turn an OSError inside into DiskFullError or EnvironmentFault.

    The message reads "cannot <action> <path>: <reason>", so `action` is a verb:
    "read", "write", "create", "rename".
    """
    try:
        yield
    except OSError as error:
        raise _translated(error, path, action) from error


def _translated(error: OSError, path: str | os.PathLike[str], action: str) -> EnvironmentFault:
    what = f"cannot {action} {shown(os.fspath(path))}"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFullError(f"{what}: the disk is full")
    reason = (error.strerror or str(error)).lower()
    advice = _ADVICE.get(error.errno or 0)
    return EnvironmentFault(f"{what}: {reason}" + (f"; {advice}" if advice else ""))


# --- beneath a root -----------------------------------------------------------


def open_root(path: Path) -> int:
    """Open the directory that later walks start from; the caller closes it.

    The user named this one, so links on the way to it are followed. Raises
    EnvironmentFault.
    """
    with translating(path, "open"):
        return os.open(path, _DIRECTORY)


def open_beneath(
    root_fd: int, components: Sequence[str], flags: int, mode: int = PRIVATE_FILE
) -> int:
    """Open the regular file at `components` below `root_fd`; raises OSError.

    No component may be a link; anything but a regular file is refused (EISDIR
    for a directory, EINVAL for the rest). `mode` matters with O_CREAT only.
    """
    with _parent(root_fd, components) as parent:
        fd = os.open(components[-1], flags | _CAREFUL, mode, dir_fd=parent)
    try:
        kind = os.fstat(fd).st_mode
        if stat.S_ISDIR(kind):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if not stat.S_ISREG(kind):
            raise OSError(errno.EINVAL, "not a regular file")
    except BaseException:
        os.close(fd)
        raise
    return fd


def open_directory_beneath(root_fd: int, components: Sequence[str], *, make: bool = False) -> int:
    """Open the directory at `components` (maybe none) below `root_fd`.

    With `make`, what is missing is created (mode 0777 less the umask). Raises
    OSError.
    """
    fd = os.dup(root_fd)
    try:
        for component in components:
            if make:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(component, dir_fd=fd)
            below = os.open(component, _DIRECTORY | os.O_NOFOLLOW, dir_fd=fd)
            os.close(fd)
            fd = below
    except BaseException:
        os.close(fd)
        raise
    return fd


def make_directories_beneath(root_fd: int, components: Sequence[str]) -> None:
    """Make a directory and its parents below `root_fd`, no links; raises OSError."""
    os.close(open_directory_beneath(root_fd, components, make=True))


@contextlib.contextmanager
def _parent(root_fd: int, components: Sequence[str]) -> Iterator[int]:
    if len(components) == 1:
        yield root_fd
        return
    fd = open_directory_beneath(root_fd, components[:-1])
    try:
        yield fd
    finally:
        os.close(fd)


# --- whole files --------------------------------------------------------------


def make_private_directory(path: Path) -> None:
    """Make `path` and its parents, the new ones 0700 and durable; raises EnvironmentFault."""
    with translating(path, "create"):
        for missing in reversed([p for p in (path, *path.parents) if not p.exists()]):
            missing.mkdir(mode=PRIVATE_DIRECTORY, exist_ok=True)
            # What is synced in a directory is lost if the directory's own name is.
            fsync_dir(missing.parent)
        if not path.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))


def open_plain(path: Path, flags: int) -> int:
    """Open a regular file whose last name is not a link; raises OSError."""
    parent = os.open(path.parent, _DIRECTORY)
    try:
        return open_beneath(parent, (path.name,), flags)
    finally:
        os.close(parent)


def read_bytes(path: Path, limit: int) -> bytes | None:
    """All of a regular file of at most `limit` bytes; None if there is none.

    The last name may not be a link. Raises EnvironmentFault, for a larger file too.
    """
    with translating(path, "read"):
        try:
            with open(open_plain(path, os.O_RDONLY), "rb") as file:
                # The room for what is asked is taken before anything is read.
                raw = file.read(min(os.fstat(file.fileno()).st_size, limit) + 1)
        except FileNotFoundError:
            return None
        if len(raw) > limit:
            raise OSError(errno.EFBIG, f"it is larger than {limit} bytes")
        return raw


def atomic_write(path: Path, data: bytes, mode: int = PRIVATE_FILE) -> None:
    """Replace the file at `path` by `data`: after a crash it is the old or the new one.

    Durable when this returns. A link at `path` is replaced, not followed. On
    any failure the old file stays as it was. Raises DiskFullError and
    EnvironmentFault.
    """
    with translating(path, "write"):
        fd, temporary = _open_temporary(path, mode)
        try:
            write_all(fd, data)
            os.fsync(fd)
            os.rename(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
        finally:
            os.close(fd)
    fsync_dir(path.parent)


def check_replaceable(path: str | Path, directory: int | None = None) -> None:
    """Raise OSError if a rename over `path`, below an open `directory`, would do harm.

    As root it would put a file in the place of /dev/null, for every program there is.
    """
    with contextlib.suppress(FileNotFoundError):
        kind = os.stat(path, dir_fd=directory, follow_symlinks=False).st_mode
        if not (stat.S_ISREG(kind) or stat.S_ISLNK(kind) or stat.S_ISDIR(kind)):
            raise OSError(errno.EINVAL, "it is a device, a pipe or a socket; name another file")


def sweep_temporaries(directory: Path, name: str = "*") -> None:
    """Remove what a crash in `atomic_write` left of files of this name (a pattern).

    What somebody is writing stays: it is locked. Raises EnvironmentFault.
    """
    with translating(directory, "clean up"):
        for path in directory.glob(f".{name}.*.tmp"):
            with contextlib.suppress(FileNotFoundError, BlockingIOError):
                fd = open_plain(path, os.O_RDWR)
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    path.unlink()
                finally:
                    os.close(fd)


def _open_temporary(path: Path, mode: int) -> tuple[int, Path]:
    """A new file beside `path`, locked for as long as it is open; raises OSError."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    while True:
        temporary = path.with_name(f".{path.name}.{os.urandom(8).hex()}.tmp")
        fd = os.open(temporary, flags, mode)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            if os.fstat(fd).st_nlink:
                return fd, temporary
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)  # it was swept before it was locked


def write_all(fd: int, data: bytes | bytearray | memoryview) -> None:
    """Write every byte of `data` at the descriptor's position; raises OSError."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(fd, rest) :]


def write_at(fd: int, view: memoryview, offset: int) -> None:
    """Write every byte of `view` at `offset`; raises OSError."""
    while view:
        written = os.pwrite(fd, view, offset)
        offset += written
        view = view[written:]


def read_at(fd: int, view: memoryview, offset: int) -> int:
    """Fill `view` from `offset`; fewer bytes than that only at the file's end; raises OSError."""
    done = 0
    while done < len(view):
        count = os.preadv(fd, [view[done:]], offset + done)
        if not count:
            break
        done += count
    return done


def free_space(directory: Path) -> int:
    """Bytes that may still be written to the disk of a directory; raises EnvironmentFault."""
    with translating(directory, "look at"):
        return shutil.disk_usage(directory).free


def leave_free(fd: int, shown_as: Path, reserve: int, size: int) -> None:
    """See that `size` more bytes leave `reserve` free on the disk of `fd`.

    Raises DiskFullError or EnvironmentFault.
    """
    with translating(shown_as, "look at"):
        disk = os.fstatvfs(fd)
    free = disk.f_bavail * disk.f_frsize
    if free - size < reserve:
        raise DiskFullError(
            f"{shown(str(shown_as))} has {format_size(free)} free,"
            f" and {format_size(reserve)} are kept in reserve"
        )


def fsync_dir(path: Path) -> None:
    """Make the names in a directory durable; raises EnvironmentFault."""
    with translating(path, "sync"):
        fd = os.open(path, _DIRECTORY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
