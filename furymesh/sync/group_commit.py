"""Making many files durable at once.

Syncing a file costs a disk some milliseconds, and a whole file system with
hundreds of new files hardly more. So small files wait here, whole and checked
but still parts, until there are enough of them. Then, in this order: their data
is synced, they get their names, the names are synced, and the lock may say so.
Who dies before that finds the parts, and goes on from them.

What fails for all is tried again file by file, so that one bad file or
directory costs nothing but itself.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from functools import cache
from types import TracebackType

from furymesh.sync.completion import Completion
from furymesh.sync.folder import Folder

# What a power cut may make arrive again, as for chunks of a download.
MAX_BYTES = 64 * 1024 * 1024
MAX_FILES = 500  # with more, syncing is a small part of the cost of a file already
FEW_FILES = 4  # are synced one by one: a whole file system may have much else to write


class GroupCommit:
    """Parts of one folder that wait to be made durable together.

    Commits by itself when there are many; `commit` does it now. Used as a
    context manager it does so at the end, unless that is an error.
    """

    def __init__(self, folder: Folder) -> None:
        self.folder = folder
        self._waiting: dict[Completion, int] = {}  # with the device that the part is on
        self._bytes = 0
        self._disks: dict[int, int] = {}  # a descriptor on each of these devices

    def add(self, completion: Completion, fd: int, device: int) -> None:
        """Take a whole part, open as `fd`; its writer is told what becomes of it."""
        if device not in self._disks:
            # A part's own descriptor: no directory can lead to another disk, and errors
            # of the disk since it was opened are told. Without it files are synced alone.
            with contextlib.suppress(OSError):
                self._disks[device] = os.dup(fd)
        self._waiting[completion] = device
        self._bytes += completion.writer.size
        if len(self._waiting) >= MAX_FILES or self._bytes >= MAX_BYTES:
            self.commit()

    def commit(self) -> None:
        """Make everything that waits durable and give it its names.

        Raises nothing: each writer is complete then, or has an `error`.
        """
        waiting, self._waiting, self._bytes = self._waiting, {}, 0
        disks, self._disks = self._disks, {}
        try:
            for device in set(waiting.values()):
                files = [one for one in waiting if waiting[one] == device and one.waiting]
                _commit(files, disks.get(device), self.folder)
        finally:
            for fd in disks.values():
                os.close(fd)
            self.folder.forget_directories()

    def __enter__(self) -> GroupCommit:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None
    ) -> None:
        if kind is None:
            self.commit()


def _commit(files: list[Completion], disk: int | None, folder: Folder) -> None:
    """Commit files on one disk, a descriptor of which is `disk`."""
    if len(files) <= FEW_FILES:
        disk = None
    if not _sync_all(disk):
        files = [file for file in files if file.sync_data()]
    files = [file for file in files if file.give_name()]
    if _sync_all(disk):
        for file in files:
            folder.names_synced(file.place.parents)
    else:
        files = [file for file in files if file.sync_name()]
    for file in files:
        file.finish()


def _sync_all(disk: int | None) -> bool:
    """Make durable all of a file system; False if that is not offered, or some of it failed."""
    function = _libc_syncfs()
    return disk is not None and function is not None and function(disk) == 0


@cache
def _libc_syncfs() -> ctypes._NamedFuncPointer | None:
    function = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
    if function is not None:
        function.argtypes = (ctypes.c_int,)
    return function
