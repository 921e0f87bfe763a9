"""The files of a folder that is synced, as a client describes them to its server.

What a client says is not believed: `info_fault` tells what is refused.
"""

from __future__ import annotations

import stat
import sys
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

from furymesh.core.errors import InvalidManifestError
from furymesh.core.paths import check_path, shown
from furymesh.core.units import MAX_SIZE
from furymesh.sync.names import OWN_PREFIX, Parents, place_of

TRASH_NAME = f"{OWN_PREFIX}trash"
HASH_SIZE = 32  # bytes of a SHA-256
# Bytes: what is smaller is sent whole, and hashed as it is read for that.
HASH_FIRST = 1024 * 1024
KEPT_PARENTS = 1024  # files come by directory
MAX_SAID = 5  # paths that a message names; more do not help a person
# Of one client, there and announced: each costs its server about a kilobyte of memory,
MAX_FILES = 1_000_000
MAX_NAMES = 256 * 1024 * 1024  # and its path, and those of its folders, these together.
TIME_BITS = 63  # nanoseconds either side of 1970, as everything here counts them: 292 years


class FileInfo(NamedTuple):
    """A file as a client describes it. `size` is in bytes, `mtime_ns` since 1970.

    `mode` is made by `kept_mode`; `sha256` has 32 bytes, or none while it is not known.
    An empty folder has a slash at the end of its path, and is of no size, time and mode.
    """

    path: str
    size: int
    mtime_ns: int
    mode: int
    sha256: bytes = b""

    @property
    def is_folder(self) -> bool:
        return self.path.endswith("/")


def empty_folder(path: str) -> FileInfo:
    """The folder at `path`, which ends in a slash."""
    return FileInfo(path, 0, 0, kept_mode(0))


def kept_mode(mode: int) -> int:
    """The permission bits that travel: none that lend rights, and always its owner's to read."""
    return mode & 0o777 | stat.S_IRUSR


def split(path: str) -> tuple[Parents, str]:
    """The directories and the name of a path below a folder.

    Raises InvalidManifestError if it may lead elsewhere. Not more is looked for: of
    thousands of files each path is split more than once.
    """
    above, _, name = path.rpartition("/")
    if name in ("", ".", "..") or path[0] == "/":
        check_path(path)
    return _parents(above), name


@lru_cache(KEPT_PARENTS)
def _parents(above: str) -> Parents:
    return check_path(above) if above else ()


def info_fault(info: FileInfo) -> str | None:
    """Why a file that a client describes so is refused, in one line; None if it is not."""
    try:
        # As a server will write it; looked up again then.
        place_of(info.path.removesuffix("/"), True)
    except InvalidManifestError as error:
        return str(error)
    if info.is_folder:
        plain = info == empty_folder(info.path)
        return None if plain else f'"{shown(info.path)}" has what no empty folder has'
    if not 0 <= info.size <= MAX_SIZE or info.mtime_ns.bit_length() > TIME_BITS:
        return f'"{shown(info.path)}" has a size or a time that no file has'
    if info.mode != kept_mode(info.mode) or len(info.sha256) not in (0, HASH_SIZE):
        return f'"{shown(info.path)}" has a mode or a hash that no file has'
    return None


class Room:
    """What one client may still make its server keep in mind: files, and bytes for names."""

    def __init__(self) -> None:
        self._files = MAX_FILES
        self._names = MAX_NAMES

    def take(self, path: str, folders: Iterable[str] = ()) -> bool:
        """Take the room of a file, and of folders that are new with it; False if there is none."""
        size = sys.getsizeof(path) + sum(map(sys.getsizeof, folders))
        if not self._files or size > self._names:
            return False
        self._files -= 1
        self._names -= size
        return True


_Reasons = dict[str, tuple[int, list[str]]]  # how many, and the first few of them


class Troubles:
    """What does not travel, and why: grouped by reason, so that it stays small and readable.

    `count` files have failed; `left_out` were none of those that travel.
    """

    def __init__(self) -> None:
        self._failed: _Reasons = {}
        self._left_out: _Reasons = {}

    def add(self, path: str, reason: str) -> None:
        """A file failed; `reason` is one of few, like "changes while it is read"."""
        _add(self._failed, path, reason)

    def leave_out(self, path: str, reason: str) -> None:
        """This is no file; `reason` is one of few, like "a link is not followed"."""
        _add(self._left_out, path, reason)

    @property
    def count(self) -> int:
        return sum(count for count, _ in self._failed.values())

    @property
    def left_out(self) -> int:
        return sum(count for count, _ in self._left_out.values())

    def lines(self) -> list[str]:
        """A line for each reason why files failed, naming the first few."""
        return _lines("not sent", self._failed)

    def notes(self) -> list[str]:
        """A line for each reason why something was left out, naming the first few."""
        return _lines("left out", self._left_out)


def _add(reasons: _Reasons, path: str, reason: str) -> None:
    count, paths = reasons.get(reason, (0, []))
    if len(paths) < MAX_SAID:
        paths.append(path)
    reasons[reason] = (count + 1, paths)


def _lines(what: str, reasons: _Reasons) -> list[str]:
    lines = []
    for reason, (count, paths) in reasons.items():
        more = f" and {count - len(paths)} more" if count > len(paths) else ""
        lines.append(f"{what}, {reason}: {', '.join(map(shown, paths))}{more}")
    return lines
