"""Reading the stream of a share from the files it is made of."""

from __future__ import annotations

import errno
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path

from furymesh.core import sealing
from furymesh.core.errors import SourceChangedError
from furymesh.core.geometry import Geometry
from furymesh.core.layout import Layout
from furymesh.core.paths import shown
from furymesh.core.sealing import Sealer
from furymesh.storage.fdcache import FdCache
from furymesh.storage.files import open_root, translating
from furymesh.storage.scan import Facts

# A chunk that is to be sealed, or hashed again, is made whole and asked for in parts.
# A few are kept, so that the parts requested by a few peers at once cost one each.
MAX_WHOLE_CHUNKS = 4

_NOWAIT: int | None = getattr(os, "RWF_NOWAIT", None)


class Content:
    """The stream of a share, read by chunk; safe to use from several threads.

    `root` is the shared file or folder itself. With a `sealer` the stream is the
    sealed one and `geometry` its own. With `facts`, one per file of the layout,
    every read checks that the file is still the one that was hashed; what is
    not gets a second chance with `matches` (a chunk and its bytes), if that is
    given: a chunk is still good if its digest is. Without facts, the caller
    checks digests.
    """

    def __init__(
        self,
        root: Path,
        layout: Layout,
        geometry: Geometry,
        sealer: Sealer | None = None,
        facts: Sequence[Facts] | None = None,
        *,
        matches: Callable[[int, memoryview], bool] | None = None,
    ) -> None:
        """Raises EnvironmentFault if the folder cannot be opened."""
        self.geometry = geometry
        self._root = root
        self._layout = layout
        self._sealer = sealer
        self._facts = facts
        self._matches = matches
        self._files = FdCache(open_root(root.parent if layout.single else root))
        self._scratch = threading.local()
        self._whole: OrderedDict[int, bytearray] = OrderedDict()
        self._whole_lock = threading.Lock()
        # The flags of reads that must not wait; None once they are known not to work.
        self._nowait = None if sealer or not layout.single else _NOWAIT

    def read_into(self, chunk: int, start: int, view: memoryview) -> None:
        """Fill `view` with the bytes of a chunk from `start` on.

        The range lies within the chunk: what a peer asks for is checked before.
        Raises SourceChangedError if a file is gone, shorter or another one,
        and EnvironmentFault.
        """
        if self._sealer is None:
            changed = self._read_plain(self.geometry.offset(chunk) + start, view)
            if changed is None:
                return
            if self._matches is None:
                raise changed
        view[:] = memoryview(self._whole_chunk(chunk))[start : start + len(view)]

    def read_chunk_into(self, chunk: int, view: memoryview) -> int:
        """Put a whole chunk at the start of `view`; returns its length in bytes.

        Raises as `read_into` does.
        """
        length = self.geometry.length(chunk)
        if self._sealer is None:
            changed = self._read_plain(self.geometry.offset(chunk), view[:length])
        else:
            offset, plain_length = sealing.plain_range(self.geometry, chunk)
            plain = self._plain_buffer()[:plain_length]
            changed = self._read_plain(offset, plain)
            self._sealer.seal_into(chunk, plain, view)
        if changed and not (self._matches and self._matches(chunk, view[:length])):
            raise changed
        return length

    def resident_read_into(self, chunk: int, start: int, view: memoryview) -> bool:
        """As `read_into`, but only if no disk need be waited for; False if not done.

        Works for one plain file that has been read from before and whose bytes
        are in memory. What is wrong with the file is left for `read_into` to say.
        """
        if self._nowait is None:
            return False
        with self._files.borrow_if_open(self._names(0)) as fd:
            if fd is None:
                return False
            try:
                offset = self.geometry.offset(chunk) + start
                got = os.preadv(fd, [view], offset, self._nowait)
                return got == len(view) and self._unchanged(0, fd)
            except OSError as error:
                if error.errno == errno.EOPNOTSUPP:
                    # tmpfs lacks the flag and needs it least: all of it is memory.
                    self._nowait = 0 if _is_tmpfs(os.fstat(fd).st_dev) else None
                return False

    def close(self) -> None:
        """Close the files; reads under way finish first."""
        self._files.close()

    def _read_plain(self, offset: int, view: memoryview) -> SourceChangedError | None:
        """Fill `view`; returns what there is to say of a file with other facts."""
        at, changed = 0, None
        for file, file_offset, length in self._layout.segments(offset, len(view)):
            if not self._read_file(file, file_offset, view[at : at + length]):
                changed = self._changed(file, "has changed")
            at += length
        return changed

    def _read_file(self, file: int, offset: int, view: memoryview) -> bool:
        """Fill `view`; False if the file is not for certain the one that was hashed.

        The facts are looked at after the bytes: a write shows in them before it
        shows in what is read.
        """
        with translating(self._path(file), "read"):
            try:
                with self._files.borrow(self._names(file)) as fd:
                    got = os.preadv(fd, [view], offset)
                    while 0 < got < len(view):  # a signal or a network disk may cut a read
                        more = os.preadv(fd, [view[got:]], offset + got)
                        got = got + more if more else 0
                    if not got:
                        raise self._changed(file, "has changed")
                    if self._unchanged(file, fd):
                        return True
                    if not os.fstat(fd).st_nlink:  # removed or replaced, and still readable
                        raise self._changed(file, "has changed")
                    return False
            except (FileNotFoundError, NotADirectoryError):
                raise self._changed(file, "is gone") from None

    def _unchanged(self, file: int, fd: int) -> bool:
        return self._facts is None or Facts.of(os.fstat(fd)) == self._facts[file]

    def _changed(self, file: int, what: str) -> SourceChangedError:
        return SourceChangedError(
            f"{shown(str(self._path(file)))} {what} since it was hashed: share it again"
        )

    def _names(self, file: int) -> tuple[str, ...]:
        return (self._root.name,) if self._layout.single else self._layout.components(file)

    def _path(self, file: int) -> Path:
        return self._root if self._layout.single else self._root / self._layout.files[file].path

    def _plain_buffer(self) -> memoryview:
        """This thread's buffer for the plaintext of one chunk."""
        if not hasattr(self._scratch, "view"):
            self._scratch.view = memoryview(bytearray(self.geometry.chunk_size))
        view: memoryview = self._scratch.view
        return view

    def _whole_chunk(self, chunk: int) -> bytearray:
        with self._whole_lock:
            if chunk in self._whole:
                self._whole.move_to_end(chunk)
                return self._whole[chunk]
        whole = bytearray(self.geometry.length(chunk))
        self.read_chunk_into(chunk, memoryview(whole))
        with self._whole_lock:
            self._whole[chunk] = whole
            if len(self._whole) > MAX_WHOLE_CHUNKS:
                self._whole.popitem(last=False)
        return whole


def _is_tmpfs(device: int) -> bool:
    """Whether the file system with this device number lives in memory."""
    number = f"{os.major(device)}:{os.minor(device)}"
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as mounts:
            fields = (line.split() for line in mounts)
            return any(f[2] == number and f[f.index("-") + 1] == "tmpfs" for f in fields)
    except (OSError, IndexError, ValueError):
        return False
