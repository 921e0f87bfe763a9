"""Looking at a path that is to be shared: its files, in order, and their facts."""

from __future__ import annotations

import os
import stat
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from furymesh.core.errors import InvalidManifestError, NotFoundError, UsageError
from furymesh.core.layout import Entry, EntryKind, Layout
from furymesh.core.paths import check_table, shown
from furymesh.core.table import MAX_ENTRIES
from furymesh.storage.files import translating

SETTLE_NS = 20_000_000  # longer than the coarsest tick (10 ms)
SETTLE_LOOK_SECONDS = 0.001
_CLOCK_REALTIME_COARSE = 5  # Linux; the clock of file times, which the time module does not name
_NEVER = -1  # a change time


class Facts(NamedTuple):
    """What tells that a file is still the one that was hashed.

    The change time moves on every write and cannot be set back. So equal facts
    mean equal content, provided that the first ones were taken when the clock
    had moved on since the last write (`settle`) and nobody had the file open
    for writing (`furymesh.storage.writers`).
    """

    dev: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> Facts:
        return cls(
            status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
        )

    def unproven(self) -> Facts:
        """Facts that no file ever has: its content must be hashed to be trusted."""
        return self._replace(ctime_ns=_NEVER)

    @property
    def is_proof(self) -> bool:
        return self.ctime_ns != _NEVER


def settle(facts: Sequence[Facts]) -> None:
    """Wait until a write would show: two within one tick of the clock leave the same times."""
    if facts:
        newest = max(facts, key=lambda fact: fact.ctime_ns)
        while not is_settled(newest):
            threading.Event().wait(SETTLE_LOOK_SECONDS)  # time.sleep asks a clock that may jump


def is_settled(facts: Facts) -> bool:
    """Whether a write from now on would show in the times of the file."""
    newest = facts.ctime_ns
    return not 0 <= time.time_ns() - newest < SETTLE_NS or _file_time_ns() > newest


def _file_time_ns() -> int:
    """What the kernel would write into a file now; 0 if it does not say."""
    try:
        return time.clock_gettime_ns(_CLOCK_REALTIME_COARSE)
    except OSError:
        return 0


@dataclass(frozen=True, slots=True)
class Scan:
    """A file or folder as it was found.

    `facts` go with `layout.files`, one each; `entries` is the file table, None
    for a single file; `skipped` are the paths of links, pipes, sockets and
    devices, which a share does not carry.
    """

    path: Path
    layout: Layout
    facts: tuple[Facts, ...]
    entries: tuple[Entry, ...] | None
    skipped: tuple[str, ...]
    executable: bool = False


def scan(path: Path) -> Scan:
    """Look at a file or folder without reading content.

    Links on the way to `path` are followed, links below it are skipped. Raises
    NotFoundError, UsageError (not shareable: a device, a name other systems
    refuse, too many files) and EnvironmentFault.
    """
    with translating(path, "read"):
        real = Path(os.path.realpath(path))
        try:
            status = os.stat(real, follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError):
            raise NotFoundError(f"there is no file or folder at {shown(str(path))}") from None
        if stat.S_ISREG(status.st_mode):
            layout = Layout.of_file(status.st_size)
            executable = bool(status.st_mode & stat.S_IXUSR)
            return Scan(real, layout, (Facts.of(status),), None, (), executable)
        if not stat.S_ISDIR(status.st_mode):
            raise UsageError(
                f"{shown(str(path))} is neither a file nor a folder: share one of those"
            )
        return _scan_folder(real)


def _scan_folder(root: Path) -> Scan:
    found: list[tuple[bytes, Entry, Facts | None]] = []
    skipped: list[str] = []
    for path, status in _walk(root, skipped):
        kind = _kind(status.st_mode)
        facts = None if kind is EntryKind.DIRECTORY else Facts.of(status)
        entry = Entry(path, kind, facts.size if facts else 0)
        found.append((os.fsencode(path), entry, facts))
        if len(found) > MAX_ENTRIES:
            raise UsageError(
                f"{shown(str(root))} holds more than {MAX_ENTRIES} files:"
                " share its parts one by one"
            )
    found.sort(key=lambda item: item[0])
    entries = tuple(entry for _, entry, _ in found)
    try:
        check_table(entry.path for entry in entries)
    except InvalidManifestError as error:
        raise UsageError(f"cannot share {shown(str(root))}: {error}; rename it first") from None
    facts_in_order = tuple(facts for _, _, facts in found if facts)
    return Scan(root, Layout(entries), facts_in_order, entries, tuple(sorted(skipped)))


def _walk(root: Path, skipped: list[str]) -> Iterator[tuple[str, os.stat_result]]:
    """Files and empty directories below `root`; what is neither goes to `skipped`."""
    pending = [""]
    while pending:
        directory = pending.pop()
        empty = True
        here = root / directory
        # Named here, for of a large folder the name says what to do, that of the root does not.
        with translating(here, "read"), os.scandir(here) as children:
            for child in children:
                path = f"{directory}/{child.name}" if directory else child.name
                if child.is_dir(follow_symlinks=False):
                    pending.append(path)
                elif child.is_file(follow_symlinks=False):
                    yield path, child.stat(follow_symlinks=False)
                else:
                    skipped.append(path)
                    continue
                empty = False
        if empty and directory:
            yield directory, os.stat(root / directory, follow_symlinks=False)


def _kind(mode: int) -> EntryKind:
    if stat.S_ISDIR(mode):
        return EntryKind.DIRECTORY
    return EntryKind.EXECUTABLE if mode & stat.S_IXUSR else EntryKind.FILE
