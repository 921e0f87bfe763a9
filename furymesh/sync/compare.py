"""What is to be done so that a folder becomes what its client says it is. Pure.

    same path, same hash                  SKIP, or TOUCH for another time or mode
    hash not known, but it may matter     HASH: decided again when the client has it
    another file here has that content    COPY
    a part of exactly that content        CONTINUE at its size
    anything else                         WHOLE
    a folder where a file is, or reverse  REFUSE; with mirror LATER, after the removals
    an empty folder that is not here      FOLDER; with mirror LATER: removals empty folders

Sizes and times alone never make two files the same: the SHA-256 does. It is asked
for only where it can spare sending, so that a new folder is sent without having
been read before.

Always true: the paths that are not refused make one tree on any file system.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from enum import Enum
from typing import NamedTuple, Protocol

from furymesh.core.errors import UsageError
from furymesh.core.paths import folded, shown
from furymesh.sync.entries import HASH_FIRST, FileInfo, info_fault

# Fewer may be removed at once whatever part of the folder they are.
SMALL_REMOVAL = 20
_EMPTY = hashlib.sha256().digest()


class Do(Enum):
    """What becomes of a file."""

    SKIP = "skip"
    HASH = "hash"
    WHOLE = "whole"
    CONTINUE = "continue"
    COPY = "copy"
    TOUCH = "touch"
    FOLDER = "folder"
    LATER = "later"
    REFUSE = "refuse"


class Task(NamedTuple):
    """For one file: CONTINUE has an `offset` in bytes, COPY a `source`, REFUSE a `reason`."""

    do: Do
    path: str
    offset: int = 0
    source: str = ""
    reason: str = ""


class Part(NamedTuple):
    """The first `size` bytes of a file of this hash, which are here."""

    size: int
    sha256: bytes


class Held(Protocol):
    """What a folder holds; see `Holdings`."""

    def get(self, path: str, /) -> FileInfo | None: ...
    def with_hash(self, sha256: bytes, /) -> str | None: ...
    def unhashed_of_size(self, size: int, /) -> Collection[str]: ...
    def had_size(self, size: int, /) -> bool: ...
    def is_directory(self, path: str, /) -> bool: ...
    def has_room(self, path: str, folders: Collection[str], /) -> bool: ...
    def directories(self) -> Iterable[str]: ...
    def __iter__(self) -> Iterator[str]: ...


class Comparison:
    """One client's list, page by page, against what its folder holds.

    `listed` counts its files, `waiting` are those answered LATER: give them to
    `decide` again once the removals have been made.
    """

    def __init__(
        self,
        held: Held,
        part: Callable[[str], Part | None] = lambda path: None,
        *,
        mirror: bool = False,
    ) -> None:
        self._held = held
        self._part = part
        self._mirror = mirror
        self._removed = False
        self._files: dict[str, str] = {}  # paths as listed, by how they are folded
        self._folders: dict[str, str] = {}
        self._again: set[str] = set()  # may be listed once more
        self._waiting: dict[str, FileInfo] = {}
        self._moved: set[bytes] = set()  # hashes of what was copied here

    @property
    def listed(self) -> int:
        return len(self._files)

    @property
    def waiting(self) -> list[FileInfo]:
        return list(self._waiting.values())

    # --- files ----------------------------------------------------------------

    def unhashed(self, page: Sequence[FileInfo]) -> list[str]:
        """The held files whose hash is needed to decide on a page: have them hashed first."""
        needed: dict[str, None] = {}
        for info in page:
            if not info.sha256:
                continue
            held = self._held.get(info.path)
            if held is not None and held.sha256 == info.sha256:
                continue
            if held is not None and held.size == info.size and not held.sha256:
                needed[info.path] = None
            elif self._held.with_hash(info.sha256) is None:
                needed.update(dict.fromkeys(self._held.unhashed_of_size(info.size)))
        return list(needed)

    def decide(self, page: Iterable[FileInfo]) -> list[Task]:
        """A task for each file of a page, in its order."""
        return [self._decide(info) for info in page]

    def reopen(self, path: str) -> None:
        """Let a path be listed once more: the file has changed since, or was not to be had."""
        self._again.add(path)

    def _decide(self, info: FileInfo) -> Task:
        path = info.path
        if path in self._again:
            self._again.discard(path)
            reason = info_fault(info)
        else:
            reason = info_fault(info) or self._list(path)
        if reason is not None:
            return Task(Do.REFUSE, path, reason=reason)
        if info.is_folder:
            return self._folder(info)
        obstacle = self._obstacle(path)
        if obstacle is not None:
            return self._put_off(info, obstacle)
        digest = info.sha256 or (_EMPTY if info.size == 0 else b"")
        held = self._held.get(path)
        if not digest:
            return self._without_hash(info, held)
        if held is not None and held.sha256 == digest:
            same = (held.mtime_ns, held.mode) == (info.mtime_ns, info.mode)
            return Task(Do.SKIP if same else Do.TOUCH, path)
        source = self._held.with_hash(digest) if info.size else None
        if source is not None:
            self._moved.add(digest)
            return Task(Do.COPY, path, source=source)
        part = self._part(path)
        if part is not None and part.sha256 == digest and 0 < part.size <= info.size:
            return Task(Do.CONTINUE, path, offset=part.size)
        return Task(Do.WHOLE, path)

    def _without_hash(self, info: FileInfo, held: FileInfo | None) -> Task:
        """Whether a hash could spare sending: the file, a copy of it, or what a part has."""
        if (
            (held is not None and held.size == info.size)
            or self._held.had_size(info.size)
            or info.size >= HASH_FIRST
            or self._part(info.path) is not None
        ):
            self._again.add(info.path)
            return Task(Do.HASH, info.path)
        return Task(Do.WHOLE, info.path)

    def _folder(self, info: FileInfo) -> Task:
        """An empty folder: there, to be made, or, as long as removals may drop it, put off."""
        path = info.path.removesuffix("/")
        obstacle = next((above for above in (path, *_above(path)) if self._held.get(above)), None)
        if obstacle is not None or (self._mirror and not self._removed):
            return self._put_off(info, obstacle or path)
        return Task(Do.SKIP if self._held.is_directory(path) else Do.FOLDER, info.path)

    def _list(self, path: str) -> str | None:
        """Add a path to the client's tree; why it cannot be, or None."""
        name = path.removesuffix("/")
        key = _key(name)
        listed = self._files if name == path else self._folders
        if listed.get(key) == name:
            return f'refused path "{shown(path)}": it is listed twice'
        for others in (self._files, self._folders):
            if key in others:
                return _collision(path, others[key])
        folders = {}
        for folder in _above(path):
            above = _key(folder)
            other = self._files.get(above) or self._folders.get(above, folder)
            if above in self._files or other != folder:
                return _collision(path, other)
            if above in self._folders:
                break
            folders[above] = folder
        known = self._held.get(path) is not None or self._held.is_directory(name)
        if not known and not self._held.has_room(path, folders.values()):
            return "the server takes no more files of one client: sync parts of the folder"
        self._folders.update(folders)
        if name == path:
            self._files[key] = path
        return None

    def _obstacle(self, path: str) -> str | None:
        """What has the place of this file, or of a folder above it."""
        if self._held.is_directory(path):
            return path
        return next((above for above in _above(path) if self._held.get(above)), None)

    def _put_off(self, info: FileInfo, obstacle: str) -> Task:
        if self._mirror and not self._removed:
            self._again.add(info.path)
            self._waiting[info.path] = info
            return Task(Do.LATER, info.path)
        kind = "folder" if obstacle == info.path else "file"
        advice = "remove it there" if self._mirror else "remove it there, or sync with --mirror"
        reason = f'"{shown(obstacle)}" is a {kind} on the server: {advice}'
        return Task(Do.REFUSE, info.path, reason=reason)

    # --- removals -------------------------------------------------------------

    def removals(self) -> list[str]:
        """After the last page: what is held and was not listed, folders from the inside last.

        From then on nothing is put off any more.
        """
        self._removed = True
        files = [path for path in self._held if self._files.get(_key(path)) != path]
        listed = self._folders
        folders = [path for path in self._held.directories() if listed.get(_key(path)) != path]
        return files + [f"{path}/" for path in sorted(folders, reverse=True)]

    def lost(self, removals: Iterable[str]) -> int:
        """How many of these have a content that was not found elsewhere in the client's folder."""
        held = map(self._held.get, removals)
        return sum(info is not None and info.sha256 not in self._moved for info in held)


def check_removals(lost: int, held: int, listed: int, *, force: bool = False) -> None:
    """Refuse to empty a folder by accident; raises UsageError, saying what to do."""
    if force or not lost:
        return
    if not listed:
        raise UsageError(
            f"the archive is empty, and the server holds {held} files of it: nothing was removed;"
            " to remove them all, add --mirror-force"
        )
    if lost > SMALL_REMOVAL and lost > held / 2:
        raise UsageError(
            f"{lost} of {held} files would be removed from the server: nothing was removed;"
            " if that is meant, add --mirror-force"
        )


def _key(path: str) -> str:
    key = folded(path)
    return path if key == path else key  # one string instead of two that are equal


def _above(path: str) -> Iterator[str]:
    """The folders that a path is in, from the inside."""
    while path := path.rpartition("/")[0]:
        yield path


def _collision(path: str, other: str) -> str:
    return (
        f'refused path "{shown(path)}": where letter case or Unicode form is ignored,'
        f' "{shown(other)}" has its place'
    )
