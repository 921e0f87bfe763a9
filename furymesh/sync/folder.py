"""The folder that files arrive in: nothing outside of it is opened or changed.

Always true: every descriptor here was reached from the root's, name by name,
without following a link. Directories stay open only until `forget_directories`,
which every commit calls: one that somebody moves away is soon noticed.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import time
from collections import OrderedDict
from collections.abc import Callable
from functools import cache, lru_cache
from hashlib import sha256
from pathlib import Path

from furymesh.core.errors import EnvironmentFault, InvalidManifestError
from furymesh.core.paths import check_path, shown
from furymesh.storage.files import (
    PRIVATE_FILE,
    open_beneath,
    open_directory_beneath,
    translating,
    write_all,
)
from furymesh.storage.part_names import MAX_NAME_BYTES, fitting_name

LOCK_NAME = ".transfer_lock.json"
LOG_NAME = "transfer_warnings.log"
PART_SUFFIX = ".part"
MAX_OPEN_DIRECTORIES = 32  # files arrive in order, so those of one directory come together
MAX_LOG_SIZE = 1_000_000  # bytes; what a hostile sender makes us complain of stays bounded
KEPT_PATHS = 1024  # checked paths: more than wait for one commit

Parents = tuple[str, ...]


class Folder:
    """The root of what is received, and a few open directories below it.

    Opened when it is first used. Not thread-safe.
    """

    def __init__(
        self, path: str | os.PathLike[str] = ".", clock: Callable[[], float] = time.time
    ) -> None:
        """`clock` gives the times in the log, in seconds since 1970."""
        self.path = Path(os.path.realpath(path))  # whose name may be a link; none below is
        self._clock = clock
        self._root: int | None = None
        self._open: OrderedDict[Parents, int] = OrderedDict()
        self._unsynced: set[Parents] = set()  # hold the names of directories that were made

    @property
    def root_fd(self) -> int:
        """The root's descriptor, open until `close`; raises OSError."""
        if self._root is None:
            self._root = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        return self._root

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
            self._unsynced.update(parents[:depth] for depth in range(len(parents)))
        self._open[parents] = fd
        if len(self._open) > MAX_OPEN_DIRECTORIES:
            os.close(self._open.popitem(last=False)[1])
        return fd

    def sync_names(self, parents: Parents) -> None:
        """Make the names in a directory durable, and its own; raises OSError."""
        os.fsync(self.directory(parents))
        for above in sorted(self._unsynced):
            os.fsync(self.directory(above))
        self._unsynced.clear()

    def sync_all(self, parents: Parents) -> None:
        """Make durable all of the file system that a directory is on; raises OSError.

        One call costs about as much as syncing a few files one by one.
        """
        function = _libc_syncfs()
        if function is None:
            os.sync()
        elif function(self.directory(parents)):
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))

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
                if os.fstat(fd).st_size < MAX_LOG_SIZE:
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


@lru_cache(KEPT_PATHS)
def split_path(filename: str) -> tuple[Parents, str]:
    """The directories and the name of a file that may be received.

    Raises InvalidManifestError for a path that leads elsewhere, that other
    systems would change, or that is a name of the transfer's own files.
    """
    components = check_path(filename)
    if is_reserved(filename):
        raise InvalidManifestError(f'refused path "{shown(filename)}": transfers use that name')
    return components[:-1], components[-1]


def is_reserved(filename: str) -> bool:
    """Whether a path below the folder is a file of the transfer's own, never of its content."""
    folded = filename.casefold()
    # A lock that is being written has dots before and a number after its name.
    return folded == LOG_NAME or folded.lstrip(".").startswith(LOCK_NAME[1:])


def part_name(name: str) -> str:
    """What a file is called until it is whole: ``name.part``.

    Where that is too long, a digest keeps apart what the cut makes equal.
    """
    if len(os.fsencode(name)) <= MAX_NAME_BYTES - len(PART_SUFFIX):
        return name + PART_SUFFIX
    return fitting_name(name, f".{sha256(os.fsencode(name)).hexdigest()[:8]}{PART_SUFFIX}")


@cache
def _libc_syncfs() -> ctypes._NamedFuncPointer | None:
    function = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
    if function is not None:
        function.argtypes = (ctypes.c_int,)
    return function
