"""The part: where the bytes of an unfinished download lie.

It is the final file (or, for a folder, the final tree) under another name, so
that finishing is a rename and never a copy.

Always true while a `PartStore` is open:

* Every file of the layout exists at its full size (sparse where nothing has
  been written), is a regular file, and was reached without following a link.
* No other process has the part open as a `PartStore`: it is flocked.
* A chunk is *dirty* from the moment its write returns until a sync covers it.
  Once a sync has failed nothing is accepted any more, because the pages that
  failed may be gone although a second sync would report success. If the disk
  was full, `start_over` ends that: what was dirty is lost then.
"""

from __future__ import annotations

import contextlib
import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

from furymesh.core.bitfield import chunks_of, mask_of
from furymesh.core.errors import (
    DiskFullError,
    EnvironmentFault,
    IllegalStateError,
    NotFoundError,
)
from furymesh.core.geometry import Geometry
from furymesh.core.hashing import Buffer
from furymesh.core.layout import Layout, Segment
from furymesh.core.paths import shown
from furymesh.core.sealing import Sealer, carried_range, plain_range, plain_size
from furymesh.storage.fdcache import FdCache
from furymesh.storage.files import (
    fsync_dir,
    leave_free,
    open_beneath,
    open_directory_beneath,
    open_root,
    read_at,
    translating,
    write_at,
)
from furymesh.storage.lock import lock_open_file

# What the finished file will have; the umask takes away from it as usual.
_FILE_MODE = 0o666
_CAREFUL = os.O_NOFOLLOW | os.O_CLOEXEC


def missing_chunks(part: Path, layout: Layout, geometry: Geometry, *, sealed: bool) -> int:
    """The chunks (a mask) that cannot be in `part`, going by the sizes of its files.

    To be asked before `PartStore.open`, which brings files back to full size.
    `sealed` as for a `PartStore` with a sealer. Raises EnvironmentFault.
    """
    with translating(part, "read"):
        sizes = [_size(part if layout.single else part / file.path) for file in layout.files]
    return mask_of(
        chunk
        for chunk in range(geometry.chunk_count)
        if any(
            segment.offset + segment.length > sizes[segment.file]
            for segment in layout.segments(*carried_range(geometry, chunk, sealed=sealed))
        )
    )


class PartStore:
    """The part of one download, open for reading and writing chunks. Thread-safe."""

    def __init__(
        self,
        path: Path,
        layout: Layout,
        geometry: Geometry,
        sealer: Sealer | None,
        lock_fd: int,
        files: FdCache,
        reserve: int,
    ) -> None:
        """Use `open`."""
        self.path = path
        self._layout = layout
        self._geometry = geometry
        self._sealer = sealer
        self._lock_fd = lock_fd
        self._files = files
        self._reserve = reserve
        self._syncing = threading.Lock()  # a sync that overlaps another waits for its outcome
        self._failure: BaseException | None = None  # of a sync
        # One write at a time: the kernel holds a lock for each file that is written,
        # and a second writer would burn its processor spinning there.
        self._writing = threading.Lock()
        self._state = threading.Lock()  # guards the sets and the end of `lock_fd`
        self._dirty: set[int] = set()  # chunks written here
        self._inherited = 0  # chunks (a mask) that an earlier process wrote
        self.inodes: list[int] = []  # of the files of the layout, which are read and written

    @classmethod
    def open(
        cls,
        part: Path,
        layout: Layout,
        geometry: Geometry,
        sealer: Sealer | None = None,
        *,
        create: bool,
        unsynced: int | None = None,
        reserve: int = 0,
    ) -> PartStore:
        """Open a part, making what is missing of it, at full size.

        `geometry` is that of the stream peers exchange. With a `sealer` that
        stream is encrypted and the part holds plaintext; without one the part
        holds the stream as it is. `unsynced` is a mask of chunks that an earlier
        process wrote and did not sync (None: unknown), for the first `sync`.
        `reserve` are bytes that no write takes from the free space of the disk.

        Raises NotFoundError if there is no part and `create` is false,
        AlreadyRunningError, DiskFullError, or EnvironmentFault (also if a link
        or another kind of file is in the way).
        """
        whole = geometry.size if sealer is None else plain_size(geometry.size, geometry.chunk_size)
        if layout.plain_size != whole:
            raise IllegalStateError(f"a layout of {layout.plain_size} bytes for {whole}")
        with contextlib.ExitStack() as undo:
            lock_fd = _open_part(part, layout.single, create)
            undo.callback(os.close, lock_fd)
            lock_open_file(lock_fd, part, what="being downloaded")
            root_fd = open_root(part.parent) if layout.single else os.dup(lock_fd)
            files = FdCache(root_fd, flags=os.O_RDWR)
            undo.callback(files.close)
            store = cls(part, layout, geometry, sealer, lock_fd, files, reserve)
            store._make_files()
            store._inherited = geometry.all_chunks if unsynced is None else unsynced
            fsync_dir(part.parent)
            undo.pop_all()
        return store

    @property
    def inode(self) -> int:
        """What stays with the part when it is renamed (see `publish.find_published`)."""
        with translating(self.path, "read"):
            return os.fstat(self._lock_fd).st_ino

    def write_chunk(self, chunk: int, data: Buffer) -> None:
        """Write a verified chunk of the stream; for one plain file, one pwrite.

        Raises DiskFullError, EnvironmentFault, or WrongKeyError if a sealed
        chunk does not open.
        """
        view = memoryview(data)
        if len(view) != self._geometry.length(chunk):
            raise IllegalStateError(f"chunk {chunk} written with {len(view)} bytes")
        if self._sealer is not None:
            plain = memoryview(bytearray(plain_range(self._geometry, chunk)[1]))
            self._sealer.open_into(chunk, view, plain)
            view = plain
        self._check()
        if self._reserve:
            leave_free(self._lock_fd, self.path.parent, self._reserve, len(view))
        for segment, piece in self._pieces(chunk, view):
            with translating(self.path, "write"), self._borrow(segment.file) as fd, self._writing:
                write_at(fd, piece, segment.offset)
        # Only now: a sync that began during the write might have missed it.
        with self._state:
            self._dirty.add(chunk)

    def read_chunk_into(self, chunk: int, view: memoryview) -> int:
        """Read a chunk of the stream back, to be hashed; returns its length.

        Less than its length means that the part has been cut short. Raises
        EnvironmentFault.
        """
        size = self._geometry.length(chunk)
        if self._sealer is None:
            return self._read(chunk, view[:size])
        plain = memoryview(bytearray(plain_range(self._geometry, chunk)[1]))
        if self._read(chunk, plain) < len(plain):
            return 0
        return self._sealer.seal_into(chunk, plain, view)

    def sync(self) -> None:
        """Put every chunk on disk whose write returned before this call.

        Raises DiskFullError or EnvironmentFault, then and ever after: all that
        was written since the last good sync must be fetched again. After
        DiskFullError `start_over` makes the part usable once more.
        """
        with self._syncing:
            self._check()
            with self._state:
                dirty, self._dirty = self._dirty, set()
            try:
                with translating(self.path, "sync"):
                    for file in sorted(self._files_under(self._inherited | mask_of(dirty))):
                        with self._borrow(file) as fd:
                            os.fdatasync(fd)
            except BaseException as error:
                with self._state:
                    self._dirty |= dirty
                    self._failure = error
                raise
            self._inherited = 0

    @property
    def unsaved(self) -> int:
        """The chunks (a mask) that a sync has failed to save; 0 unless one has failed."""
        with self._state:
            return self._inherited | mask_of(self._dirty) if self._failure is not None else 0

    def start_over(self, lost: int) -> None:
        """Accept chunks again after a sync found the disk full.

        The caller has made sure that no write is under way, and that nobody
        relies on the chunks in `lost` (a mask): they count as not written.
        Raises DiskFullError if `unsaved` are more than these, because a sync
        has failed meanwhile, and EnvironmentFault if one failed for another
        reason.
        """
        with self._syncing, self._state:
            if self._failure is None:
                return
            unsaved = self._inherited | mask_of(self._dirty)
            if not isinstance(self._failure, DiskFullError) or unsaved & ~lost:
                self._check()
            self._failure = None
            self._inherited = 0
            self._dirty.clear()

    def close(self) -> None:
        """Let go of the part and its lock; what is dirty stays for the next sync."""
        with self._state:
            lock_fd, self._lock_fd = self._lock_fd, -1
        if lock_fd >= 0:
            self._files.close()
            os.close(lock_fd)

    def __enter__(self) -> PartStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _check(self) -> None:
        if isinstance(self._failure, DiskFullError):
            raise DiskFullError(self._failure.what)
        if self._failure is not None:
            raise EnvironmentFault(
                f"the disk under {shown(str(self.path))} failed to save earlier writes:"
                " check it, then start the download again"
            )

    def _borrow(self, file: int) -> contextlib.AbstractContextManager[int]:
        return self._files.borrow(self._components(file))

    def _components(self, file: int) -> tuple[str, ...]:
        return (self.path.name,) if self._layout.single else self._layout.components(file)

    def _segments(self, chunk: int) -> Iterator[Segment]:
        sealed = self._sealer is not None
        return self._layout.segments(*carried_range(self._geometry, chunk, sealed=sealed))

    def _pieces(self, chunk: int, view: memoryview) -> Iterator[tuple[Segment, memoryview]]:
        at = 0
        for segment in self._segments(chunk):
            yield segment, view[at : at + segment.length]
            at += segment.length

    def _read(self, chunk: int, view: memoryview) -> int:
        total = 0
        for segment, piece in self._pieces(chunk, view):
            with translating(self.path, "read"), self._borrow(segment.file) as fd:
                done = read_at(fd, piece, segment.offset)
            total += done
            if done < segment.length:
                break
        return total

    def _files_under(self, chunks: int) -> set[int]:
        if chunks == self._geometry.all_chunks:
            return set(range(len(self._layout.files)))
        return {segment.file for chunk in chunks_of(chunks) for segment in self._segments(chunk)}

    def _make_files(self) -> None:
        """Bring every file to its size, then make the directories durable."""
        root_fd = self._files.root_fd
        parents: set[tuple[str, ...]] = {()}
        with translating(self.path, "prepare"):
            for number, file in enumerate(self._layout.files):
                components = self._components(number)
                for depth in range(1, len(components)):
                    if components[:depth] not in parents:
                        parents.add(components[:depth])
                        os.close(open_directory_beneath(root_fd, components[:depth], make=True))
                fd = open_beneath(root_fd, components, os.O_RDWR | os.O_CREAT, _FILE_MODE)
                try:
                    self.inodes.append(os.fstat(fd).st_ino)
                    if os.fstat(fd).st_size != file.size:
                        os.ftruncate(fd, file.size)
                finally:
                    os.close(fd)
            for directory in parents:
                fd = open_directory_beneath(root_fd, directory)
                try:
                    os.fsync(fd)
                finally:
                    os.close(fd)


def _open_part(part: Path, single: bool, create: bool) -> int:
    """A descriptor of the part itself, of the right kind, to be locked."""
    try:
        if single:
            flags = os.O_RDWR | os.O_NONBLOCK | _CAREFUL | (os.O_CREAT if create else 0)
            with translating(part, "open"):
                return os.open(part, flags, _FILE_MODE)
        with translating(part, "open"):
            if create:
                with contextlib.suppress(FileExistsError):
                    part.mkdir()
            return os.open(part, os.O_RDONLY | os.O_DIRECTORY | _CAREFUL)
    except EnvironmentFault as fault:
        if isinstance(fault.__cause__, FileNotFoundError) and not create:
            raise NotFoundError(
                f"there is no {shown(str(part))}: start the download afresh"
            ) from None
        raise


def _size(path: Path) -> int:
    """The size of a regular file; -1 for whatever else, or nothing, is there."""
    try:
        facts = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return -1
    return facts.st_size if stat.S_ISREG(facts.st_mode) else -1
