"""Files that are whole already, wherever they lie: hashing them, and finding them again."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from furymesh.storage.files import open_beneath, open_plain, read_at
from furymesh.storage.publish import numbered_names
from furymesh.storage.scan import Facts
from furymesh.sync.folder import Folder
from furymesh.sync.lock_format import FileState, Status
from furymesh.sync.names import Parents
from furymesh.sync.parts import is_ours, is_passing, look, open_part

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
    """The SHA-256 of a file anywhere on this machine, in hex; None if it cannot be read.

    Raises OSError if the moment is bad.
    """
    try:
        fd = open_plain(Path(path).absolute(), os.O_RDONLY)
        try:
            return _digest(fd)
        finally:
            os.close(fd)
    except OSError as error:
        if is_passing(error):
            raise
        return None


def part_digest(folder: Folder, filename: str) -> str | None:
    """The SHA-256 of a file's part, in hex; None if there is none that can be read.

    Raises OSError if the moment is bad.
    """
    fd = open_part(folder, folder.place(filename))
    if fd is None:
        return None
    try:
        return _digest(fd)
    except OSError as error:
        if is_passing(error):
            raise
        return None
    finally:
        os.close(fd)


def find_finished(folder: Folder, filename: str, state: FileState) -> FileState | None:
    """The state of a file that is whole under its name or a numbered one, if it is.

    The lock's word is enough where the disk's facts are those it had then; if
    not, the content decides. So a file is found again too whose name was there
    before the lock said so; it is made durable before that is believed. Raises
    OSError if the moment is bad.
    """
    parents, name, _ = folder.place(filename)
    if state.status is Status.COMPLETED and state.facts:
        status = look(folder, parents, state.saved_as or name)
        if status and _may_be(status, state) and Facts.of(status) == state.facts:
            return state
    if not state.original_hash:
        return None
    hashed = 0
    for candidate in numbered_names(name):
        status = look(folder, parents, candidate)
        if status is None or hashed == MAX_HASHED:
            return None
        if _may_be(status, state):
            hashed += 1
            if whole := _sync_if_whole(folder, parents, candidate, state.original_hash):
                return finished_state(state, filename, candidate, state.original_hash, whole)
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


def _may_be(status: os.stat_result, state: FileState) -> bool:
    return is_ours(status) and status.st_size == state.size


def _sync_if_whole(
    folder: Folder, parents: Parents, name: str, digest: str
) -> os.stat_result | None:
    """Make a file and its name durable, if it has this digest; None if it is not to be had."""
    try:
        fd = open_beneath(folder.directory(parents), (name,), os.O_RDONLY)
        try:
            if _digest(fd) != digest:
                return None
            os.fsync(fd)
            folder.sync_names(parents)  # who gave it that name was killed, perhaps, before this
            return os.fstat(fd)
        finally:
            os.close(fd)
    except OSError as error:
        if is_passing(error):
            raise
        return None


def _digest(fd: int) -> str:
    hasher = hashlib.sha256()
    hash_into(hasher, fd, 0, os.fstat(fd).st_size)
    return hasher.hexdigest()
