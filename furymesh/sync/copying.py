"""Files that a server copies from others of the same client instead of having them sent."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable

from furymesh.storage.files import open_beneath, read_at, write_at
from furymesh.storage.hashing import HashingStopped
from furymesh.sync.entries import FileInfo, split
from furymesh.sync.file_writer import FileWriter
from furymesh.sync.folder import Folder
from furymesh.sync.group_commit import GroupCommit
from furymesh.sync.parts import create_part, drop_part
from furymesh.sync.source import new_slab

STEP = 64 * 1024 * 1024  # bytes that the kernel copies before somebody is asked whether to go on
# Where the kernel cannot copy by itself: between file systems, or on old or odd ones.
_NO_COPY = frozenset({errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF})


def copy_held(
    folder: Folder,
    source: str,
    info: FileInfo,
    commit: GroupCommit,
    cancelled: Callable[[], bool] = lambda: False,
) -> FileWriter:
    """Make the file `info` describes from the one at `source`, whose content it should have.

    The writer that is returned has been given all of it: the copy is read back, and
    gets its name with the commit. If it has an `error` the source was another by
    now, or the disk refused: the file is to be sent. Raises HashingStopped.
    """
    writer = FileWriter(
        info.path,
        info.size,
        0,
        overwrite_mode=True,
        expected_hash=info.sha256.hex(),
        folder=folder,
        commit=commit,
        mode=info.mode,
        mtime_ns=info.mtime_ns,
    )
    try:
        _copy_to_part(folder, source, writer, cancelled)
        writer.open_for_writing(info.size)
    except OSError as error:
        writer.error = folder.fault(info.path, "copy to", error)
        _drop(writer)
    except HashingStopped:
        _drop(writer)
        raise
    return writer


def _drop(writer: FileWriter) -> None:
    with contextlib.suppress(OSError):
        drop_part(writer.folder, writer.place)


def _copy_to_part(
    folder: Folder, source: str, writer: FileWriter, cancelled: Callable[[], bool]
) -> None:
    """Raises OSError. Blocks of the disk are shared where the file system can."""
    parents, name = split(source)
    given = open_beneath(folder.directory(parents), (name,), os.O_RDONLY)
    try:
        part = create_part(folder, writer.place)
        try:
            _copy(given, part, writer.size, cancelled)
        finally:
            os.close(part)
    finally:
        os.close(given)


def _copy(given: int, part: int, size: int, cancelled: Callable[[], bool]) -> None:
    """Copy `size` bytes; raises OSError if there are not as many."""
    done, copied, by_kernel = 0, 1, True
    slab = memoryview(b"")
    while done < size and copied:
        if cancelled():
            raise HashingStopped("copying was stopped before the end")
        step = min(STEP, size - done)
        if by_kernel:
            try:
                copied = os.copy_file_range(given, part, step, done, done)
            except OSError as error:
                if error.errno not in _NO_COPY:
                    raise
                by_kernel, slab = False, new_slab()
                continue
        else:
            copied = read_at(given, slab[:step], done)
            write_at(part, slab[:copied], done)
        done += copied
    if done < size:
        raise OSError(errno.ENODATA, "the file that it is a copy of has become shorter")
