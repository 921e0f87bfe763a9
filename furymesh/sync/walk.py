"""Looking through a folder without leaving it: every file's facts, and no file opened.

Directories are entered by name from the one above, and no link is followed, so
nobody who moves things about meanwhile leads the way outside. Only the names of
one directory on each level are in memory, and the collisions of names that some
file systems cannot tell apart are found among them.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from typing import NamedTuple

from furymesh.core.paths import MAX_COMPONENTS, MAX_PATH_BYTES, component_fault, folded
from furymesh.storage.scan import Facts
from furymesh.sync.entries import TIME_BITS, FileInfo, Troubles, kept_mode
from furymesh.sync.excludes import NOTHING, Excludes
from furymesh.sync.names import is_distinct_part, is_reserved

_ENTER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_KINDS = {
    stat.S_IFLNK: "a link is not followed",
    stat.S_IFIFO: "not a file but a pipe",
    stat.S_IFSOCK: "not a file but a socket",
    stat.S_IFCHR: "not a file but a device",
    stat.S_IFBLK: "not a file but a device",
}


class Found(NamedTuple):
    """A file that was come across; `mode` as made by `kept_mode`."""

    path: str
    facts: Facts
    mode: int

    def info(self, sha256: bytes) -> FileInfo:
        """The file as it is described to others."""
        return FileInfo(self.path, self.facts.size, self.facts.mtime_ns, self.mode, sha256)


class Walk:
    """One look through the folder that is open as `root_fd`; iterate once.

    Files come sorted by name, those of a directory before those of the ones below.
    What is not a file, or has a name that others cannot have, is noted in `troubles`.
    `complete` turns False if there is a place that could not be looked at. `parts`
    are those of files that are not whole, `empty` the folders in which nothing was found,
    each with a slash at its end.
    """

    def __init__(
        self,
        root_fd: int,
        excludes: Excludes = NOTHING,
        troubles: Troubles | None = None,
        entered: Callable[[str], object] = lambda path: None,
    ) -> None:
        """`entered` is told the path of each directory below the root."""
        self.troubles = troubles or Troubles()
        self.complete = True
        self.parts: list[str] = []
        self.empty: list[str] = []
        self._root_fd = root_fd
        self._excludes = excludes
        self._entered = entered

    def __iter__(self) -> Iterator[Found]:
        # Descriptors of the directories down to the one at hand, and what is left below each.
        open_here: list[tuple[int, str, list[str]]] = []
        try:
            fd: int | None = os.dup(self._root_fd)
            above = ""
            while True:
                if fd is not None:
                    below: list[str] = []
                    open_here.append((fd, above, below))
                    yield from self._files(fd, above, below)
                    below.reverse()
                while open_here and not open_here[-1][2]:
                    os.close(open_here.pop()[0])
                if not open_here:
                    return
                parent, prefix, left = open_here[-1]
                name = left.pop()
                above = f"{prefix}{name}/"
                fd = self._enter(parent, name, above[:-1])
        finally:
            for opened, _, _ in open_here:
                os.close(opened)

    def _enter(self, parent: int, name: str, path: str) -> int | None:
        try:
            fd = os.open(name, _ENTER, dir_fd=parent)
        except FileNotFoundError:
            return None  # gone meanwhile
        except OSError as error:
            self._unseen(path, error)
            return None
        self._entered(path)
        return fd

    def _files(self, fd: int, above: str, below: list[str]) -> Iterator[Found]:
        """The files of an open directory; its directories are put into `below`."""
        try:
            names = sorted(os.listdir(fd))
        except OSError as error:
            self._unseen(above[:-1], error)
            return
        excludes, spellings = self._excludes, set[str]()
        deep = above.count("/") >= MAX_COMPONENTS
        # Most paths are too short to be worth measuring.
        room = MAX_PATH_BYTES // 4 - len(above)
        for name in names:
            path = above + name
            try:
                status = os.stat(name, dir_fd=fd, follow_symlinks=False)
            except FileNotFoundError:
                continue
            except OSError as error:
                self._unseen(path, error)
                continue
            kind = stat.S_IFMT(status.st_mode)
            if excludes is not NOTHING and (
                excludes.directory(path) if kind == stat.S_IFDIR else excludes.file(path)
            ):
                continue
            fault = component_fault(name)
            if fault is None:
                if is_distinct_part(name):
                    self.parts.append(path)
                    continue
                if not above and is_reserved(name):  # below, only parts are
                    continue
            if kind in _KINDS:
                self.troubles.leave_out(path, _KINDS[kind])
                continue
            if fault is None and (deep or len(name) > room):
                fault = _length_fault(path)
            if status.st_mtime_ns.bit_length() > TIME_BITS:
                fault = "its time is centuries away"
            if fault is not None:
                self.troubles.add(path, fault)
                continue
            spelling = folded(name)
            if spelling in spellings:
                self.troubles.add(path, "another differs only in letter case or Unicode form")
                continue
            spellings.add(spelling)
            if kind == stat.S_IFDIR:
                below.append(name)
            else:
                yield Found(path, Facts.of(status), kept_mode(status.st_mode))
        if above and not spellings:
            self.empty.append(above)

    def _unseen(self, path: str, error: OSError) -> None:
        self.complete = False
        self.troubles.add(path or ".", f"cannot be looked at ({error.strerror})".lower())


def _length_fault(path: str) -> str | None:
    if path.count("/") >= MAX_COMPONENTS:
        return f"more than {MAX_COMPONENTS} folders deep"
    if len(path.encode()) > MAX_PATH_BYTES:
        return f"a path longer than {MAX_PATH_BYTES} bytes"
    return None
