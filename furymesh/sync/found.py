"""What lies in the folder of the files of a transfer: finished ones and parts."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from furymesh.storage.files import open_beneath, open_plain, read_at, translating
from furymesh.storage.publish import numbered_names
from furymesh.storage.scan import Facts
from furymesh.sync.folder import Folder, Parents, part_name, split_path
from furymesh.sync.lock_format import FileState, Status

PIECE = 1024 * 1024  # bytes read at once; larger ones hash no faster
# Files of the same name and size that are hashed in search of the one that arrived.
MAX_HASHED = 8


def hash_into(hasher: hashlib._Hash, fd: int, start: int, end: int) -> int:
    """Hash an open file's bytes from `start` to `end`; returns how many there were.

    Raises OSError.
    """
    buffer = memoryview(bytearray(min(PIECE, end - start)))
    at = start
    while at < end:
        count = read_at(fd, buffer[: end - at], at)
        if not count:
            break
        hasher.update(buffer[:count])
        at += count
    return at - start


def file_digest(path: str | os.PathLike[str]) -> str | None:
    """The SHA-256 of a file anywhere on this machine, in hex; None if it cannot be read."""
    try:
        fd = open_plain(Path(path).absolute(), os.O_RDONLY)
        try:
            return _digest(fd)
        finally:
            os.close(fd)
    except OSError:
        return None


def find_finished(folder: Folder, filename: str, state: FileState) -> FileState | None:
    """The state of a file that is whole under its name or a numbered one, if it is.

    The lock's word is enough where the disk's facts are those it had then; if
    not, the content decides. So a file is found again too whose name was there
    before the lock said so.
    """
    parents, name = split_path(filename)
    if state.status is Status.COMPLETED and state.facts:
        status = _look(folder, parents, state.saved_as or name)
        if status and Facts.of(status) == state.facts:
            return state
    if not state.original_hash:
        return None
    hashed = 0
    for candidate in numbered_names(name):
        status = _look(folder, parents, candidate)
        if status is None or hashed == MAX_HASHED:
            return None
        if not stat.S_ISREG(status.st_mode) or status.st_size != state.size:
            continue
        hashed += 1
        with contextlib.suppress(OSError):
            fd = open_beneath(folder.directory(parents), (candidate,), os.O_RDONLY)
            try:
                if _digest(fd) == state.original_hash:
                    os.fsync(fd)  # its name may be there before its content is
                    digest, status = state.original_hash, os.fstat(fd)
                    return finished_state(state, filename, candidate, digest, status)
            finally:
                os.close(fd)
    return None


def finished_state(
    state: FileState, filename: str, saved_as: str, digest: str, status: os.stat_result
) -> FileState:
    """`state`, now that the whole file is there and has this digest."""
    return FileState(
        Status.COMPLETED,
        state.size,
        state.original_hash or digest,
        state.size,
        digest,
        state.last_modified,
        "" if filename.rpartition("/")[2] == saved_as else saved_as,
        Facts.of(status),
    )


def part_size(folder: Folder, filename: str) -> int:
    """Bytes in a file's part; 0 if there is none."""
    parents, name = split_path(filename)
    status = _look(folder, parents, part_name(name))
    return status.st_size if status and stat.S_ISREG(status.st_mode) else 0


def truncate_part(folder: Folder, filename: str, size: int) -> None:
    """Forget what a part has beyond `size` bytes; raises EnvironmentFault."""
    if part_size(folder, filename) > size:
        with translating(folder.path / filename, "take up"), _open_part(folder, filename) as fd:
            os.ftruncate(fd, size)


def sync_part(folder: Folder, filename: str) -> None:
    """Make a part's bytes durable, if it is there; raises OSError."""
    missing = contextlib.suppress(FileNotFoundError, NotADirectoryError)
    with missing, _open_part(folder, filename) as fd:
        os.fdatasync(fd)


def drop_part(folder: Folder, filename: str) -> None:
    """Remove a part, if there is one; raises OSError."""
    parents, name = split_path(filename)
    with contextlib.suppress(FileNotFoundError, NotADirectoryError, IsADirectoryError):
        os.unlink(part_name(name), dir_fd=folder.directory(parents))


@contextlib.contextmanager
def _open_part(folder: Folder, filename: str) -> Iterator[int]:
    parents, name = split_path(filename)
    fd = open_beneath(folder.directory(parents), (part_name(name),), os.O_RDWR)
    try:
        yield fd
    finally:
        os.close(fd)


def _look(folder: Folder, parents: Parents, name: str) -> os.stat_result | None:
    """What is there by that name; None if nothing, or nothing that can be reached."""
    try:
        return os.stat(name, dir_fd=folder.directory(parents), follow_symlinks=False)
    except OSError:
        return None


def _digest(fd: int) -> str:
    hasher = hashlib.sha256()
    hash_into(hasher, fd, 0, os.fstat(fd).st_size)
    return hasher.hexdigest()


def drop_parts(folder: Folder, filenames: Iterable[str]) -> None:
    """Remove the parts of many files, looking once at each directory; raises OSError."""
    present: dict[Parents, set[str]] = {}
    for filename in filenames:
        parents, name = split_path(filename)
        if parents not in present:
            try:
                present[parents] = set(os.listdir(folder.directory(parents)))
            except (FileNotFoundError, NotADirectoryError):
                present[parents] = set()
        if part_name(name) in present[parents]:
            drop_part(folder, filename)
