"""What the folder of one client holds: looked up by path, and by content.

A look costs one call of the system for each file, and opens none: the hash of a
file is that of the index as long as its facts are those it was noted with. What
has none is hashed when a comparison asks for it.

Always true: a hash given out here was taken of the file's bytes on this disk,
when its facts were what they are now. Methods block; one thread at a time.
"""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path

from furymesh.core.errors import EnvironmentFault, NotFoundError, SourceChangedError, UsageError
from furymesh.storage.files import open_beneath
from furymesh.storage.scan import SETTLE_NS, Facts
from furymesh.sync.entries import FileInfo, Room, kept_mode, split
from furymesh.sync.folder import Folder
from furymesh.sync.hash_index import HashIndex, state_path
from furymesh.sync.source import hash_source, new_slab
from furymesh.sync.walk import Walk


class Holdings:
    """The files of a client's folder. `complete` if everything in it could be looked at."""

    def __init__(self, folder: Folder, data_dir: Path) -> None:
        """Looks through the folder.

        Raises OSError if it cannot be opened, UsageError if there are too many files in it.
        """
        self.folder = folder
        self._index = HashIndex(state_path(data_dir, folder.path, "index"))
        self._files: dict[str, FileInfo] = {}
        self._by_hash: dict[bytes, str] = {}
        self._unhashed: dict[int, dict[str, None]] = {}  # by size; in the order they were found
        self._directories: set[str] = set()
        self._room = Room()
        entered: list[str] = []  # since the last file
        walk = Walk(folder.root_fd, entered=entered.append)
        self._index.begin()
        for path, facts, mode in walk:
            if not self._room.take(path, entered):
                raise UsageError("the server has too many files of this client: remove some there")
            self._directories.update(entered)
            entered.clear()
            digest = self._index.get(facts)
            self._files[path] = FileInfo(path, facts.size, facts.mtime_ns, mode, digest)
            if digest:
                self._by_hash.setdefault(digest, path)
            else:
                self._unhashed.setdefault(facts.size, {})[path] = None
        self._directories.update(entered)
        self.complete = walk.complete
        self._parts = walk.parts
        self._index.end(complete=walk.complete)
        self._sizes = Counter(info.size for info in self._files.values())

    # --- for the comparison ---------------------------------------------------

    def get(self, path: str) -> FileInfo | None:
        """The file at a path."""
        return self._files.get(path)

    def with_hash(self, sha256: bytes) -> str | None:
        """A path whose file has this content."""
        return self._by_hash.get(sha256)

    def unhashed_of_size(self, size: int) -> Collection[str]:
        """The files of so many bytes whose hash is not known."""
        return self._unhashed.get(size, ())

    def had_size(self, size: int) -> bool:
        """Whether any file had so many bytes when the folder was looked through."""
        return size in self._sizes

    def is_directory(self, path: str) -> bool:
        return path in self._directories

    def directories(self) -> Iterable[str]:
        return self._directories

    def has_room(self, path: str, folders: Collection[str]) -> bool:
        """Take the room of a file that is announced and not here; False if there is none."""
        return self._room.take(path, folders)

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)

    # --- changes --------------------------------------------------------------

    def hash(self, paths: Iterable[str], cancelled: Callable[[], bool] = lambda: False) -> None:
        """Hash these files, if their hash is not known; what cannot be read stays without.

        Raises HashingStopped once it is `cancelled`.
        """
        slab = new_slab()
        for path in paths:
            known = self._files.get(path)
            if known is None or known.sha256:
                continue
            try:
                hashed = hash_source(self.folder, path, slab, _uncounted, cancelled)
            except (NotFoundError, SourceChangedError, EnvironmentFault):
                self.forget(path)
                continue
            self._set(hashed.info, hashed.facts)

    def note(self, info: FileInfo, status: os.stat_result) -> None:
        """The file that `info` describes, its hash included, has arrived, and is as `status` says.

        A stranger who wrote to it since has left another time in it. In the tick of
        the arrival itself this shows only if the client's time is an older one.
        """
        facts = Facts.of(status)
        proof = (facts.size, facts.mtime_ns) == (info.size, info.mtime_ns) and (
            abs(facts.ctime_ns - facts.mtime_ns) > SETTLE_NS
        )
        self._set(_described(info.path, status, info.sha256), facts if proof else facts.unproven())

    def touch(self, info: FileInfo) -> None:
        """Give a file that is here the time and mode of `info`; raises OSError.

        No link is followed. It is hashed again in the next session: what somebody
        wrote to it at this moment has lost the time that would tell.
        """
        parents, name = split(info.path)
        directory = self.folder.directory(parents)
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
        if kept_mode(status.st_mode) != info.mode:
            fd = open_beneath(directory, (name,), os.O_RDONLY)
            try:
                os.fchmod(fd, info.mode)
            finally:
                os.close(fd)
        times = (info.mtime_ns, info.mtime_ns)  # that of the last access is nobody's business
        os.utime(name, ns=times, dir_fd=directory, follow_symlinks=False)
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
        self._set(_described(info.path, status, info.sha256), Facts.of(status).unproven())

    def make_directory(self, path: str) -> None:
        """Make an empty directory; raises OSError. Lost with the power, it is made again."""
        parents, name = split(path)
        self.folder.directory((*parents, name), make=True)
        self._add_directories(path)

    def remove_directory(self, path: str) -> None:
        """Remove a directory if nothing is in it."""
        parents, name = split(path)
        with contextlib.suppress(OSError):
            os.rmdir(name, dir_fd=self.folder.directory(parents))
            self.forget_directory(path)
            self.folder.forget_directories()

    def forget(self, path: str) -> None:
        """A file is not there any more."""
        info = self._files.pop(path, None)
        if info is not None:
            self._unlink(info)

    def forget_directory(self, path: str) -> None:
        """A directory is not there any more."""
        self._directories.discard(path)

    def drop_parts(self, kept: Iterable[str]) -> None:
        """Remove the parts that were here, but for those of the files `kept`."""
        places = map(self.folder.place, kept)
        keep = {"/".join((*place.parents, place.part)) for place in places}
        for path in self._parts:
            if path not in keep:
                parents, name = split(path)
                with contextlib.suppress(OSError):  # it has become whole, or it is tried again
                    os.unlink(name, dir_fd=self.folder.directory(parents))

    def save(self) -> None:
        """Keep the hashes for the next session; raises EnvironmentFault."""
        self._index.save()

    def _set(self, info: FileInfo, facts: Facts) -> None:
        before = self._files.get(info.path)
        if before is not None:
            self._unlink(before)
        self._files[info.path] = info
        self._by_hash.setdefault(info.sha256, info.path)
        self._index.put(facts, info.sha256)
        self._add_directories(info.path.rpartition("/")[0])

    def _add_directories(self, path: str) -> None:
        while path and path not in self._directories:
            self._directories.add(path)
            path = path.rpartition("/")[0]

    def _unlink(self, info: FileInfo) -> None:
        """Nobody is led to a path by what its file was."""
        if not info.sha256:
            del self._unhashed[info.size][info.path]
        elif self._by_hash.get(info.sha256) == info.path:
            del self._by_hash[info.sha256]


def _described(path: str, status: os.stat_result, sha256: bytes) -> FileInfo:
    mode = kept_mode(status.st_mode)
    return FileInfo(path, status.st_size, status.st_mtime_ns, mode, sha256)


def _uncounted(size: int) -> None:
    """Nobody watches a server hash."""
