"""The folder that a client keeps in step with a server: it is only ever read.

A scan opens no file; what is unchanged has its hash from the index. Methods
block. While one thread goes through `pages` another may read, and no more.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from types import TracebackType

from furymesh.core.errors import (
    EnvironmentFault,
    FuryMeshError,
    InvalidManifestError,
    NotFoundError,
    SourceChangedError,
    UsageError,
)
from furymesh.core.paths import check_path, shown
from furymesh.storage.files import open_root, translating
from furymesh.storage.hashing import DEFAULT_THREADS, in_threads
from furymesh.sync.entries import HASH_FIRST, FileInfo, Troubles, empty_folder
from furymesh.sync.excludes import NOTHING, Excludes
from furymesh.sync.folder import Folder
from furymesh.sync.hash_index import HashIndex, state_path
from furymesh.sync.source import (
    Hashed,
    Source,
    hash_source,
    new_slab,
    read_small,
)
from furymesh.sync.walk import Walk

PAGE = 1000  # files; some 100 KB when they are described


class Archive:
    """A client's folder. Close it, or use it as a context manager: that keeps the hashes.

    `troubles` are what the last scan, and reading since, had to leave out; the scan
    was `complete` if it could look everywhere (without that, nothing may be removed).
    What `excludes` say stays at home, and the data directory does if it is in there.
    """

    def __init__(self, root: Path, data_dir: Path, excludes: Excludes = NOTHING) -> None:
        """Raises NotFoundError, UsageError (not a folder), EnvironmentFault."""
        self.folder = Folder(root)
        with translating(root, "open"):
            try:
                _ = self.folder.root_fd
            except FileNotFoundError:
                raise NotFoundError(f"there is no folder at {shown(str(root))}") from None
            except NotADirectoryError:
                raise UsageError(f"{shown(str(root))} is not a folder: name one") from None
        self.troubles = Troubles()
        self.complete = False
        # The keys of this node are in there, and the index, which every sync changes.
        own = os.path.relpath(os.path.realpath(data_dir), self.path)
        if own == ".":
            self.folder.close()
            raise UsageError(f"{shown(str(root))} is furymesh's own data directory: name another")
        self.excludes = excludes if own.split("/")[0] == ".." else excludes.hiding(own)
        self._stale = False
        self._index = HashIndex(state_path(data_dir, self.folder.path, "index"))

    @property
    def path(self) -> Path:
        return self.folder.path

    # --- looking --------------------------------------------------------------

    def pages(self, size: int = PAGE) -> Iterator[list[FileInfo]]:
        """Scan: every file, in a fixed order, with its hash where that is known.

        Then the folders in which there is nothing.
        """
        self._stale = True
        self.troubles, self.complete = Troubles(), False
        root_fd = open_root(self.path)
        try:
            walk = Walk(root_fd, self.excludes, self.troubles)
            files, known = iter(walk), self._index.get
            self._index.begin()
            while page := [found.info(known(found.facts)) for found in islice(files, size)]:
                yield page
            folders = map(empty_folder, walk.empty)
            while page := list(islice(folders, size)):
                yield page
        finally:
            os.close(root_fd)
        self.complete = walk.complete
        self._index.end(complete=walk.complete)

    def gone(self, paths: Iterable[str]) -> list[str]:
        """Which of the files, or empty folders, that a server would remove are really none here.

        What is excluded stays with the server, and so does what is a link here, or
        lies beyond one.
        """
        return [path for path in paths if self.complete and self._is_gone(path)]

    def _is_gone(self, path: str) -> bool:
        try:
            *parents, _ = check_path(path.removesuffix("/"))
        except InvalidManifestError:
            return False  # no server has such a file; what is elsewhere is none of its business
        if self.excludes.covers(path):
            return False
        for depth in range(1, len(parents) + 2):
            here = "/".join(path.split("/")[:depth])
            try:
                mode = os.stat(here, dir_fd=self.folder.root_fd, follow_symlinks=False).st_mode
            except FileNotFoundError:
                return True
            except OSError:
                return False
            if depth <= len(parents) and not stat.S_ISDIR(mode):
                return stat.S_ISREG(mode)
        return stat.S_ISREG(mode) if path.endswith("/") else stat.S_ISDIR(mode)

    # --- reading --------------------------------------------------------------

    def hash(
        self,
        paths: Sequence[str],
        progress: Callable[[int], object] = lambda size: None,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> list[FileInfo]:
        """Describe these files with their hashes, which are kept.

        `progress` gets the bytes read since its last call. Files that are gone,
        cannot be read or change all the time are left out, and all but the first
        are in `troubles`. Raises HashingStopped once it is `cancelled`.
        """
        done: list[Hashed] = []
        failed: list[tuple[str, FuryMeshError]] = []
        left = iter(paths)

        def work(count: Callable[[int], None], stopped: Callable[[], bool]) -> None:
            folder, slab = Folder(self.path), new_slab()
            try:
                for path in left:
                    if stopped():
                        return
                    try:
                        done.append(hash_source(folder, path, slab, count, stopped))
                    except (NotFoundError, SourceChangedError, EnvironmentFault) as error:
                        failed.append((path, error))
            finally:
                folder.close()

        in_threads(work, min(DEFAULT_THREADS, len(paths)), progress, cancelled)
        for path, error in failed:
            self.note_trouble(path, error)
        for hashed in done:
            self._keep(hashed)
        return [hashed.info for hashed in done]

    def read_small(self, path: str, limit: int = HASH_FIRST) -> tuple[FileInfo, bytes]:
        """A whole file of at most `limit` bytes, in one state of it, described with its hash.

        Raises SourceChangedError (it changes all the time, or has grown too large),
        NotFoundError, EnvironmentFault: say so by `note_trouble`.
        """
        hashed, data = read_small(self._fresh_folder(), path, limit)
        self._keep(hashed)
        return hashed.info, data

    def open_source(self, info: FileInfo) -> Source:
        """Open a file that is still as it was described; raises as `read_small`."""
        return Source(self._fresh_folder(), info)

    def note_trouble(self, path: str, error: FuryMeshError) -> None:
        """Put a file that could not be read into `troubles`; one that is gone is none."""
        if isinstance(error, SourceChangedError):
            self.troubles.add(path, "changes while it is read")
        elif not isinstance(error, NotFoundError):
            cause = error.__cause__
            why = (isinstance(cause, OSError) and cause.strerror) or str(error)
            self.troubles.add(path, f"cannot be read ({why.lower()})")

    def _fresh_folder(self) -> Folder:
        """The folder as seen by whoever reads; a scan, in another thread, makes it stale."""
        if self._stale:
            self._stale = False
            self.folder.forget_directories()
        return self.folder

    def _keep(self, hashed: Hashed) -> None:
        self._index.put(hashed.facts, hashed.info.sha256)

    # --- the end --------------------------------------------------------------

    def save(self) -> None:
        """Keep the hashes for the next run; raises EnvironmentFault."""
        self._index.save()

    def close(self) -> None:
        """Let go of the folder; hashes that cannot be kept are made again."""
        with suppress(EnvironmentFault):
            self.save()
        self.folder.close()

    def __enter__(self) -> Archive:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None
    ) -> None:
        self.close()
