"""Moving a part: by a rename, or to another disk as a copy.

Resume data vouches for the part wherever it lies. So the copy has another name
until it is whole and synced, and the old part is removed after that. The copy
is locked while it is made: one that nobody holds was left by a crash.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from furymesh.core.errors import AlreadyRunningError, EnvironmentFault
from furymesh.core.ids import FileId
from furymesh.storage.files import fsync_dir, translating
from furymesh.storage.lock import lock_open_file
from furymesh.storage.part_names import copy_path, is_copy_of

_CAREFUL = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


def move_part(old: Path, part: Path, file_id: FileId) -> None:
    """Move the part at `old` to `part`; both are as before if that fails.

    Raises DiskFullError, EnvironmentFault, AlreadyRunningError.
    """
    with translating(part, "move the part to"):
        try:
            os.rename(old, part)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
        else:
            return
        copy = copy_path(part, file_id)
        _create(copy, folder=old.is_dir())
        try:
            with _locked(copy):
                _copy(old, copy)
                os.rename(copy, part)
        except BaseException:
            with contextlib.suppress(OSError):
                _remove(copy)
            raise
        fsync_dir(part.parent)
        _remove(old)


def sweep_copies(directory: Path, file_id: FileId) -> None:
    """Remove what crashes left of moves of this part into `directory`, if that can be done."""
    with contextlib.suppress(OSError):
        for path in list(directory.iterdir()):
            if is_copy_of(path, file_id) and not path.is_symlink():
                with contextlib.suppress(EnvironmentFault, AlreadyRunningError), _locked(path):
                    _remove(path)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    fd = os.open(path, _CAREFUL)
    try:
        lock_open_file(fd, path, what="being moved")
        yield
    finally:
        os.close(fd)


def _create(path: Path, *, folder: bool) -> None:
    if folder:
        path.mkdir()
    else:
        path.touch(exist_ok=False)


def _copy(old: Path, copy: Path) -> None:
    """Copy a file or folder into the empty one at `copy`, durable but for its own name.

    `shutil.copytree` would turn a full disk into a list of messages.
    """
    if old.is_symlink():
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
    if old.is_dir():
        for path in old.iterdir():
            below = copy / path.name
            _create(below, folder=path.is_dir())
            _copy(path, below)
    else:
        shutil.copyfile(old, copy, follow_symlinks=False)
    _sync(copy)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _sync(path: Path) -> None:
    fd = os.open(path, _CAREFUL)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
