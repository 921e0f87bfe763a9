"""The folder that files arrive in, and which of its names are on the disk for sure.

Always true: every descriptor here was reached from the root's, name by name,
without following a link, so nothing outside is opened or changed. Directories
stay open only until `forget_directories`, which every write of the lock and
every commit of a group calls: one that somebody moves away is soon noticed. What was
not seen to be synced since it changed, or since this process began, is not
believed to be: `sync_names` does it.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

from furymesh.core.errors import EnvironmentFault
from furymesh.core.paths import shown
from furymesh.storage.files import (
    PRIVATE_FILE,
    open_beneath,
    open_directory_beneath,
    translating,
    write_all,
)
from furymesh.sync.names import LOG_NAME, Parents, Place, place_of

MAX_OPEN_DIRECTORIES = 32  # files arrive in order, so those of one directory come together
MAX_SYNCED_DIRECTORIES = 10_000  # remembered; to forget one costs a sync that changes nothing
MAX_LOG_SIZE = 1_000_000  # bytes; what a hostile sender makes us complain of stays bounded


class Folder:
    """The root of what is received, and a few open directories below it.

    Opened when it is first used. Not thread-safe.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] = ".",
        clock: Callable[[], float] = time.time,
        *,
        distinct_parts: bool = False,
    ) -> None:
        """`clock` gives the times in the log, in seconds since 1970.

        With `distinct_parts` any file may be called ``name.part``: see `furymesh.sync.names`.
        """
        self.path = Path(os.path.realpath(path))  # whose name may be a link; none below is
        self.distinct_parts = distinct_parts
        self._clock = clock
        self._root: int | None = None
        self._open: OrderedDict[Parents, int] = OrderedDict()
        self._synced: set[Parents] = set()  # directories

    @property
    def root_fd(self) -> int:
        """The root's descriptor, open until `close`; raises OSError."""
        if self._root is None:
            self._root = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        return self._root

    def place(self, filename: str) -> Place:
        """Where a file that is received lies; raises InvalidManifestError."""
        return place_of(filename, self.distinct_parts)

    def directory(self, parents: Parents, *, make: bool = False) -> int:
        """Lend the descriptor of a directory, until the next call; raises OSError."""
        if not parents:
            return self.root_fd
        fd = self._open.get(parents)
        if fd is not None:
            self._open.move_to_end(parents)
            return fd
        try:
            fd = open_directory_beneath(self.root_fd, parents)
        except FileNotFoundError:
            if not make:
                raise
            fd = open_directory_beneath(self.root_fd, parents, make=True)
            self._synced.difference_update(_chain(parents))
        self._open[parents] = fd
        if len(self._open) > MAX_OPEN_DIRECTORIES:
            os.close(self._open.popitem(last=False)[1])
        return fd

    def name_changed(self, parents: Parents) -> None:
        """Note that a name in this directory was made or changed."""
        self._synced.discard(parents)

    def names_synced(self, parents: Parents) -> None:
        """Note that the names in this directory are durable."""
        if len(self._synced) >= MAX_SYNCED_DIRECTORIES:
            self._synced.clear()
        self._synced.add(parents)

    def sync_names(self, parents: Parents) -> None:
        """Make the names in a directory durable, and its own; raises OSError."""
        for above in _chain(parents):
            if above not in self._synced:
                os.fsync(self.directory(above))
                self.names_synced(above)

    def forget_directories(self) -> None:
        """Look up every directory afresh from now on."""
        while self._open:
            os.close(self._open.popitem()[1])

    def close(self) -> None:
        """Close every descriptor; what is used after that is opened again."""
        self.forget_directories()
        if self._root is not None:
            root, self._root = self._root, None
            os.close(root)

    def warn(self, message: str) -> None:
        """Add a line to ``transfer_warnings.log``, if that can be done."""
        when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self._clock()))
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
        with contextlib.suppress(OSError):
            fd = open_beneath(self.root_fd, (LOG_NAME,), flags, PRIVATE_FILE)
            try:
                facts = os.fstat(fd)
                # With a second name it is somebody else's file too.
                if facts.st_size < MAX_LOG_SIZE and facts.st_nlink <= 1:
                    write_all(fd, f"{when} {shown(message)}\n".encode())
            finally:
                os.close(fd)

    def fault(self, filename: str, action: str, error: OSError) -> EnvironmentFault:
        """What there is to say of an error of the system, in one line."""
        try:
            with translating(self.path / filename, action):
                raise error
        except EnvironmentFault as fault:
            return fault


def _chain(parents: Parents) -> list[Parents]:
    """A directory and those that it lies in, from the root down."""
    return [parents[:depth] for depth in range(len(parents) + 1)]
