"""Looking at a path that is to be shared: its files, in order, and their facts."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from furymesh.core.errors import InvalidManifestError, NotFoundError, UsageError
from furymesh.core.layout import Entry, EntryKind, Layout
from furymesh.core.paths import check_table, shown
from furymesh.core.table import MAX_ENTRIES
from furymesh.storage.files import translating


class Facts(NamedTuple):
    """What tells that a file is still the one that was hashed.

    The change time moves on every write and cannot be set back, so equal facts
    mean equal content on any honest file system.
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
        with os.scandir(root / directory) as children:
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
