"""A part gets its final name: by one rename, into a name that is free or is to be replaced."""

from __future__ import annotations

import errno
import os
import shutil

from furymesh.storage.publish import MAX_SUFFIX, numbered_names
from furymesh.storage.renames import rename_exchange_in, rename_no_replace_in
from furymesh.sync.folder import Folder
from furymesh.sync.names import Place


def give_name(folder: Folder, filename: str, *, overwrite: bool) -> str:
    """Rename the part of `filename`; returns its name in its directory. Raises OSError.

    ``name.ext`` becomes ``name_1.ext`` and so on if it is taken, or cannot be had.
    With `overwrite` the file or directory of that name is replaced instead; where
    that is refused, the log has it, and the file gets a free name all the same.
    """
    place = folder.place(filename)
    directory = folder.directory(place.parents)
    folder.name_changed(place.parents)
    if overwrite:
        try:
            _replace(folder, filename, place, directory)
            return place.name
        except FileNotFoundError:
            raise
        except OSError as error:
            folder.warn(str(folder.fault(filename, "replace", error)))
    refused: OSError | None = None
    for candidate in numbered_names(place.name):
        try:
            rename_no_replace_in(directory, place.part, candidate)
            return candidate
        except FileExistsError:
            continue
        except OSError as error:
            if refused or isinstance(error, FileNotFoundError):
                raise
            refused = error
            folder.warn(str(folder.fault(filename, "rename the part of", error)))
    raise refused or OSError(errno.EEXIST, f"{MAX_SUFFIX} files of that name are there already")


def take_name_back(folder: Folder, place: Place, name: str) -> None:
    """Make the file that was given this name a part again; raises OSError."""
    folder.name_changed(place.parents)
    rename_no_replace_in(folder.directory(place.parents), name, place.part)


def _replace(folder: Folder, filename: str, place: Place, directory: int) -> None:
    try:
        os.rename(place.part, place.name, src_dir_fd=directory, dst_dir_fd=directory)
    except IsADirectoryError:
        rename_exchange_in(directory, place.part, place.name)
        try:
            shutil.rmtree(place.part, dir_fd=directory)  # the directory that had the name
        except OSError as error:
            folder.warn(
                f"some of the directory that {filename} replaced is left in {place.part}: {error}"
            )
