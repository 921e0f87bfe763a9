"""Making many files durable at once.

Syncing a file costs a disk some milliseconds, and a whole file system with
hundreds of new files hardly more. So small files wait here, whole and checked
but still parts, until there are enough of them. Then, in this order: their data
is synced, they get their names, the names are synced, and the lock may say so.
Who dies before that finds the parts, and goes on from them.
"""

from __future__ import annotations

import contextlib
from types import TracebackType
from typing import TYPE_CHECKING

from furymesh.core.errors import EnvironmentFault
from furymesh.sync.folder import Folder, Parents

if TYPE_CHECKING:
    from furymesh.sync.file_writer import FileWriter

# What a power cut may make arrive again, as for chunks of a download.
MAX_BYTES = 64 * 1024 * 1024
MAX_FILES = 500  # with more, syncing is a small part of the cost of a file already


class GroupCommit:
    """Parts of one folder that wait to be made durable together.

    Commits by itself when there are many; `commit` does it now. Used as a
    context manager it does so at the end, unless that is an error.
    """

    def __init__(self, folder: Folder) -> None:
        self.folder = folder
        self._waiting: list[FileWriter] = []
        self._bytes = 0
        self._devices: dict[int, Parents] = {}  # a directory on each file system concerned

    def add(self, writer: FileWriter, device: int, parents: Parents) -> None:
        """Take a whole part in `parents`, on this device; `writer` is told what becomes of it."""
        self._waiting.append(writer)
        self._bytes += writer.size
        self._devices.setdefault(device, parents)
        if len(self._waiting) >= MAX_FILES or self._bytes >= MAX_BYTES:
            with contextlib.suppress(EnvironmentFault):  # the writers say it
                self.commit()

    def commit(self) -> None:
        """Make everything that waits durable and give it its names.

        Raises EnvironmentFault if the disk cannot sync. Each file that this
        concerns has it as its `error`, and so has one that gets no name.
        """
        waiting, self._waiting, self._bytes = self._waiting, [], 0
        try:
            self._sync()
            waiting = [writer for writer in waiting if writer.place()]
            self._sync()
        except OSError as error:
            for writer in waiting:
                writer.lose(error)
            raise self.folder.fault(".", "sync", error) from error
        finally:
            self._devices.clear()
            self.folder.forget_directories()
        for writer in waiting:
            writer.finish()

    def _sync(self) -> None:
        for parents in self._devices.values():
            self.folder.sync_all(parents)

    def __enter__(self) -> GroupCommit:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None
    ) -> None:
        if kind is None:
            self.commit()
