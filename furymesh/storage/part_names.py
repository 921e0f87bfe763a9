"""What a part is called, and its removal when a download is given up.

A download that will become ``movie.mkv`` is ``movie.mkv.1f2e3d4c.part`` until
it is whole. The eight digits are the start of the file id, so that two
downloads of one name do not meet.
"""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

from furymesh.core.errors import UsageError
from furymesh.core.ids import FileId
from furymesh.core.paths import shown
from furymesh.storage.files import fsync_dir, translating

_COPY_SUFFIX = ".moving"
MAX_NAME_BYTES = 255  # NAME_MAX of the usual file systems


def part_path(final: Path, file_id: FileId) -> Path:
    """Where a download lies until it may be called `final`, in the same directory."""
    return final.with_name(fitting_name(final.name, _part_suffix(file_id)))


def copy_path(part: Path, file_id: FileId) -> Path:
    """Where a copy of a part lies until it may be called `part`."""
    suffix = _part_suffix(file_id)
    return part.with_name(fitting_name(part.name.removesuffix(suffix), suffix + _COPY_SUFFIX))


def is_copy_of(path: Path, file_id: FileId) -> bool:
    """Whether a path is named like an unfinished copy of the part of this download."""
    return path.name.endswith(_part_suffix(file_id) + _COPY_SUFFIX)


def fitting_name(stem: str, ending: str) -> str:
    """`stem` + `ending`, with as much of the stem as a file name has room for.

    `ending` has to leave some: it is for callers to keep it short.
    """
    room = MAX_NAME_BYTES - len(os.fsencode(ending))
    encoded = os.fsencode(stem)
    if len(encoded) > room:
        # What is left of a character that was cut in two is dropped.
        stem = encoded[:room].decode("utf-8", "ignore")
    return stem + ending


def remove_part(part: Path, file_id: FileId) -> None:
    """Delete the part of a download that was given up; fine if there is none.

    Refuses (UsageError) a path that is not named like the part of `file_id`,
    since it usually comes out of resume data. Raises EnvironmentFault.
    """
    if not is_part_of(part, file_id):
        raise UsageError(f"{shown(str(part))} is not the part of this download: left as it is")
    with translating(part, "remove"):
        try:
            kind = part.lstat().st_mode
        except (FileNotFoundError, NotADirectoryError):
            return
        if stat.S_ISDIR(kind):
            shutil.rmtree(part)
        else:
            part.unlink()
    fsync_dir(part.parent)


def is_part_of(path: Path, file_id: FileId) -> bool:
    """Whether a path is named like the part of this download."""
    return path.name.endswith(_part_suffix(file_id))


def _part_suffix(file_id: FileId) -> str:
    return f".{file_id.hex()[:8]}.part"
