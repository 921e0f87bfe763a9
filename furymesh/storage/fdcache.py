"""A bounded set of open files below one root, shared by threads.

A descriptor is *lent*: while a thread holds it, it is never closed, whatever
is evicted meanwhile. So at most `limit` idle descriptors are open, plus one
for every thread that is reading or writing at the moment.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

from furymesh.storage.files import open_beneath

# Far below the usual limit of 1,024 descriptors even with several shares in
# use, and plenty for the few files that lie under any one region of a stream.
MAX_OPEN_FILES = 64


@dataclass(slots=True)
class _Slot:
    fd: int
    borrowers: int = 0


class FdCache:
    """Least recently used descriptors of regular files below `root_fd`.

    `flags` are those of open(2). The cache takes over `root_fd` and closes it in
    `close`.
    """

    def __init__(
        self,
        root_fd: int,
        limit: int = MAX_OPEN_FILES,
        flags: int = os.O_RDONLY,
    ) -> None:
        self._root = _Slot(root_fd)
        self._limit = limit
        self._flags = flags
        self._lock = threading.Lock()
        self._slots: OrderedDict[tuple[str, ...], _Slot] = OrderedDict()
        self._closed = False

    @property
    def root_fd(self) -> int:
        """The root directory's descriptor, open until `close`."""
        return self._root.fd

    @contextlib.contextmanager
    def borrow(self, components: tuple[str, ...]) -> Iterator[int]:
        """Lend the descriptor of one file, opening it if need be; raises OSError."""
        slot = self._take(components) or self._open(components)
        try:
            yield slot.fd
        finally:
            self._give_back(components, slot)

    @contextlib.contextmanager
    def borrow_if_open(self, components: tuple[str, ...]) -> Iterator[int | None]:
        """As `borrow`, but None instead of an open that might wait for a disk."""
        slot = self._take(components)
        try:
            yield slot.fd if slot else None
        finally:
            if slot:
                self._give_back(components, slot)

    def close(self) -> None:
        """Close everything; what is lent is closed when it comes back."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            for slot in self._slots.values():
                if not slot.borrowers:
                    os.close(slot.fd)
            self._slots.clear()
            self._close_root_if_done()

    def _take(self, components: tuple[str, ...]) -> _Slot | None:
        with self._lock:
            slot = self._slots.get(components)
            if slot:
                slot.borrowers += 1
                self._slots.move_to_end(components)
            return slot

    def _open(self, components: tuple[str, ...]) -> _Slot:
        with self._lock:
            if self._closed:
                raise OSError(errno.EBADF, "it has been closed")
            self._root.borrowers += 1
        try:
            # Outside the lock: opening may wait for a disk, and others need not.
            mine = _Slot(open_beneath(self.root_fd, components, self._flags))
        finally:
            with self._lock:
                self._root.borrowers -= 1
                self._close_root_if_done()
        with self._lock:
            slot = mine if self._closed else self._slots.setdefault(components, mine)
            slot.borrowers += 1
            self._evict()
        if slot is not mine:
            os.close(mine.fd)
        return slot

    def _give_back(self, components: tuple[str, ...], slot: _Slot) -> None:
        with self._lock:
            slot.borrowers -= 1
            if not slot.borrowers and self._slots.get(components) is not slot:
                os.close(slot.fd)
            self._evict()

    def _close_root_if_done(self) -> None:
        # While a walk starts from it, its number must not pass to another file.
        if self._closed and not self._root.borrowers:
            os.close(self._root.fd)

    def _evict(self) -> None:
        excess = len(self._slots) - self._limit
        if excess <= 0:
            return
        idle = [name for name, slot in self._slots.items() if not slot.borrowers]
        for name in idle[:excess]:
            os.close(self._slots.pop(name).fd)
