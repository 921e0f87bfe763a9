"""Where files go that a client has no more: ``.furymesh-trash/<day>/`` in its own folder.

A removal is one rename, so nothing is copied and nothing is lost: what is in the
trash can be moved back by hand. It is emptied by age, a whole day at a time.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import time
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta

from furymesh.storage.files import PRIVATE_DIRECTORY, open_directory_beneath, translating
from furymesh.storage.publish import numbered_names
from furymesh.storage.renames import rename_no_replace_in
from furymesh.sync.entries import TRASH_NAME, split
from furymesh.sync.folder import Folder
from furymesh.sync.names import Parents

KEEP_DAYS = 30


class Trash:
    """The trash of one client's folder. Methods block; one thread at a time."""

    def __init__(self, folder: Folder, clock: Callable[[], float] = time.time) -> None:
        """`clock` gives seconds since 1970."""
        self._folder = folder
        self._clock = clock

    def move(self, path: str) -> list[str]:
        """Move a file into today's trash, under its own path there.

        Returns the directories that were left empty by it and are gone now. Fine if
        the file is gone already. Raises EnvironmentFault.
        """
        parents, name = split(path)
        with translating(self._folder.path / path, "move to the trash"):
            try:
                directory = self._folder.directory(parents)
                status = os.stat(name, dir_fd=directory, follow_symlinks=False)
            except (FileNotFoundError, NotADirectoryError):
                return []
            if not stat.S_ISREG(status.st_mode):
                return []  # no file of the client's
            trash = self._open_today(parents)
            try:
                _rename(directory, name, trash)
            finally:
                os.close(trash)
            return self._drop_empty(parents)

    def _open_today(self, parents: Parents) -> int:
        root = self._folder.root_fd
        with contextlib.suppress(FileExistsError):
            # Below it modes of directories are not those that kept others out.
            os.mkdir(TRASH_NAME, PRIVATE_DIRECTORY, dir_fd=root)
        for day in numbered_names(_day(self._clock()).isoformat()):
            # A file may lie there already where a directory is needed now.
            with contextlib.suppress(NotADirectoryError):
                return open_directory_beneath(root, (TRASH_NAME, day, *parents), make=True)
        raise FileExistsError

    def _drop_empty(self, parents: Parents) -> list[str]:
        gone = []
        with contextlib.suppress(OSError):  # the first one that is not empty
            while parents:
                above = parents[:-1]
                os.rmdir(parents[-1], dir_fd=self._folder.directory(above))
                gone.append("/".join(parents))
                parents = above
        if gone:
            self._folder.forget_directories()
        return gone

    def sweep(self, keep_days: int = KEEP_DAYS) -> int:
        """Delete for good what has been in the trash for longer; returns how many days of it.

        What is not called like a day stays. Raises EnvironmentFault.
        """
        oldest = _day(self._clock()) - timedelta(days=keep_days)
        with translating(self._folder.path / TRASH_NAME, "empty"):
            try:
                trash = open_directory_beneath(self._folder.root_fd, (TRASH_NAME,))
            except FileNotFoundError:
                return 0
            try:
                over = [name for name in os.listdir(trash) if _is_over(trash, name, oldest)]
                for name in over:
                    shutil.rmtree(name, dir_fd=trash)  # which follows no link
                if not os.listdir(trash):
                    os.rmdir(TRASH_NAME, dir_fd=self._folder.root_fd)
            finally:
                os.close(trash)
        return len(over)


def _rename(directory: int, name: str, trash: int) -> None:
    """Under a number if another of that name went the same day. Raises OSError."""
    for candidate in numbered_names(name):
        with contextlib.suppress(FileExistsError):
            rename_no_replace_in(directory, name, candidate, into=trash)
            return
    raise FileExistsError


def _day(seconds: float) -> date:
    return datetime.fromtimestamp(seconds, UTC).date()


def _is_over(trash: int, name: str, oldest: date) -> bool:
    try:
        over = date.fromisoformat(name.partition("_")[0]) < oldest
    except ValueError:
        return False
    return over and stat.S_ISDIR(os.stat(name, dir_fd=trash, follow_symlinks=False).st_mode)
