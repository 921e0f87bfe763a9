"""The parts of files that are not whole yet, below a folder.

Always true: what is opened, cut or synced here as a part is a regular file of
this user with no other name. Anything else by that name is no part; it is
replaced when one is made, unless it is a directory.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
from collections import defaultdict
from collections.abc import Iterable

from furymesh.storage.files import open_beneath
from furymesh.sync.folder import Folder
from furymesh.sync.names import PART_SUFFIX, Parents, Place

_FILE_MODE = 0o666  # less the umask, as of any file that a user makes
_CREATE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
# What says nothing of the file: the same call may succeed a moment later.
_PASSING = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})


def is_passing(error: OSError) -> bool:
    """Whether an error is of this moment, and no reason to give anything up."""
    return error.errno in _PASSING


def is_ours(status: os.stat_result) -> bool:
    """Whether this is a regular file of this user."""
    return stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid()


def open_part(folder: Folder, place: Place) -> int | None:
    """Open a part to read and write it; None if there is none that can be used.

    Raises OSError if the moment is bad.
    """
    try:
        directory = folder.directory(place.parents)
        try:
            fd = open_beneath(directory, (place.part,), os.O_RDWR)
        except PermissionError:
            fd = _open_protected(directory, place.part)
    except OSError as error:
        if is_passing(error):
            raise
        return None
    if _is_part(os.fstat(fd)):
        return fd
    os.close(fd)
    return None


def create_part(folder: Folder, place: Place) -> int:
    """Open a new part, instead of whatever file has its name; raises OSError."""
    try:
        return _create(folder, place)
    except FileNotFoundError:
        folder.forget_directories()  # one of them was removed meanwhile
        return _create(folder, place)


def part_size(folder: Folder, place: Place) -> int:
    """Bytes in a part; 0 if there is none. Raises OSError if the moment is bad."""
    status = look(folder, place.parents, place.part)
    return status.st_size if status and _is_part(status) else 0


def truncate_part(folder: Folder, place: Place, size: int) -> None:
    """Forget what a part has beyond `size` bytes; raises OSError."""
    if part_size(folder, place) > size and (fd := open_part(folder, place)) is not None:
        try:
            os.ftruncate(fd, size)
        finally:
            os.close(fd)


def sync_part(folder: Folder, place: Place) -> None:
    """Make a part's bytes and name durable, if it is there; raises OSError."""
    if (fd := open_part(folder, place)) is not None:
        try:
            os.fdatasync(fd)
        finally:
            os.close(fd)
        folder.sync_names(place.parents)


def drop_part(folder: Folder, place: Place) -> None:
    """Remove a part, if there is one, or what else has its name; raises OSError.

    A directory that a user may have called so stays.
    """
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        directory = folder.directory(place.parents)
        try:
            os.unlink(place.part, dir_fd=directory)
        except IsADirectoryError:
            if folder.distinct_parts:  # the rest of one that a file has replaced
                shutil.rmtree(place.part, dir_fd=directory)


def drop_parts(folder: Folder, filenames: Iterable[str]) -> None:
    """Remove the parts of many files, looking once at each directory.

    What cannot be removed is in the log. Raises OSError if the moment is bad.
    """
    by_directory: defaultdict[str, list[str]] = defaultdict(list)
    for filename in filenames:
        by_directory[filename.rpartition("/")[0]].append(filename)
    for inside in by_directory.values():
        try:
            present = _names_in(folder, folder.place(inside[0]).parents)
        except OSError as error:
            _cannot_drop(folder, inside[0], error)
            continue
        for filename in inside if present else ():
            place = folder.place(filename)
            try:
                if place.part in present:
                    drop_part(folder, place)
            except OSError as error:
                _cannot_drop(folder, filename, error)


def _cannot_drop(folder: Folder, filename: str, error: OSError) -> None:
    if is_passing(error):
        raise error
    folder.warn(str(folder.fault(filename, "remove the old part of", error)))


def look(folder: Folder, parents: Parents, name: str) -> os.stat_result | None:
    """What is there by that name; None if nothing, or nothing that can be reached.

    Raises OSError if the moment is bad.
    """
    try:
        return os.stat(name, dir_fd=folder.directory(parents), follow_symlinks=False)
    except OSError as error:
        if is_passing(error):
            raise
        return None


def _is_part(status: os.stat_result) -> bool:
    """Writing to a file with another name would change what lies there, too."""
    return is_ours(status) and status.st_nlink <= 1


def _open_protected(directory: int, part: str) -> int:
    """A part that has its final mode already, and that is read-only; raises OSError."""
    fd = open_beneath(directory, (part,), os.O_RDONLY)
    try:
        status = os.fstat(fd)
        if _is_part(status):
            os.fchmod(fd, stat.S_IMODE(status.st_mode) | stat.S_IRUSR | stat.S_IWUSR)
    finally:
        os.close(fd)
    return open_beneath(directory, (part,), os.O_RDWR)


def _create(folder: Folder, place: Place) -> int:
    directory = folder.directory(place.parents, make=True)
    folder.name_changed(place.parents)
    try:
        return os.open(place.part, _CREATE, _FILE_MODE, dir_fd=directory)
    except FileExistsError:
        drop_part(folder, place)  # it may be a link, or have other names
    try:
        return os.open(place.part, _CREATE, _FILE_MODE, dir_fd=directory)
    except FileExistsError:
        reason = f"a directory lies where its {PART_SUFFIX} file should be; move it away"
        raise OSError(errno.ENOTEMPTY, reason) from None


def _names_in(folder: Folder, parents: Parents) -> set[str]:
    try:
        return set(os.listdir(folder.directory(parents)))
    except (FileNotFoundError, NotADirectoryError):
        return set()
