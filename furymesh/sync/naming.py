"""A part gets its final name: by one rename, into a name that is free or is to be replaced."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil

from furymesh.storage.publish import MAX_SUFFIX, numbered_names
from furymesh.storage.renames import rename_exchange_in, rename_no_replace_in
from furymesh.sync.folder import Folder, part_name, split_path


def give_name(folder: Folder, filename: str, *, overwrite: bool) -> str:
    """Rename the part of `filename`; returns its name in its directory. Raises OSError.

    ``name.ext`` becomes ``name_1.ext`` and so on if it is taken. With
    `overwrite` the file or directory of that name is replaced instead; where
    that is refused, the log has it, and the file gets a free name all the same.
    """
    parents, name = split_path(filename)
    directory = folder.directory(parents)
    part = part_name(name)
    if overwrite:
        try:
            _replace(folder, filename, directory)
            return name
        except OSError as error:
            folder.warn(str(folder.fault(filename, "replace", error)))
    for candidate in numbered_names(name):
        with contextlib.suppress(FileExistsError):
            rename_no_replace_in(directory, part, candidate)
            return candidate
    raise OSError(errno.EEXIST, f"{MAX_SUFFIX} files of that name are there already")


def _replace(folder: Folder, filename: str, directory: int) -> None:
    name = split_path(filename)[1]
    part = part_name(name)
    try:
        os.rename(part, name, src_dir_fd=directory, dst_dir_fd=directory)
    except IsADirectoryError:
        rename_exchange_in(directory, part, name)
        try:
            shutil.rmtree(part, dir_fd=directory)  # the directory that had the name
        except OSError as error:
            folder.warn(
                f"some of the directory that {filename} replaced is left in {part}: {error}"
            )
