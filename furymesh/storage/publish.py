"""Publishing: a verified part gets its final name.

Always true: the final name is either not there, what it was before, or the
whole verified download, whenever one looks and wherever the process dies. That
follows from the order: sizes, modes and contents first, each synced; then the
directories; then one rename; then the directory that holds the name.

Who dies after the rename, before the resume data is deleted, finds the part
gone (or, after replacing a folder, the old folder in its place) and asks
`find_published`: a rename changes the name of an inode and nothing else.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import stat
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from furymesh.core.errors import EnvironmentFault, VerificationError
from furymesh.core.layout import EntryKind, Layout
from furymesh.core.paths import shown
from furymesh.storage.files import (
    check_replaceable,
    fsync_dir,
    make_directories_beneath,
    open_beneath,
    open_directory_beneath,
    open_root,
    translating,
)
from furymesh.storage.part_names import fitting_name
from furymesh.storage.renames import rename_exchange, rename_no_replace

# A person with this many copies wants another directory, and a loop must end.
MAX_SUFFIX = 9999
MAX_EXTENSION_BYTES = 32  # with its dot; what comes after a name's last dot and is kept


def publish(
    part: Path,
    final: Path,
    layout: Layout,
    *,
    executable: bool = False,
    overwrite: bool = False,
    inodes: Sequence[int] = (),
) -> Path:
    """Rename the verified `part` to `final`, or to a free name like it; durable on return.

    An existing ``name.ext`` makes it ``name_1.ext``, ``name_2.ext`` and so on.
    With `overwrite` a file replaces a file or link, and a folder a folder, atomically.
    `executable` is for a single file; a folder's entries say it themselves.
    `inodes`, where given, are of the files that were verified, in the layout's order.
    Returns the name that was used.

    Raises VerificationError if the part does not have the files, inodes and sizes it
    should, DiskFullError, or EnvironmentFault; the part is then still there.
    """
    if not final.parent.is_dir():
        raise EnvironmentFault(
            f"cannot finish {shown(str(final))}: its directory does not exist; create it,"
            " then run this again"
        )
    if layout.single:
        _settle_file(part, layout.files[0].size, executable, inodes)
    else:
        _settle_folder(part, layout, inodes)
    published = _replace(part, final, layout.single) if overwrite else _place(part, final)
    fsync_dir(final.parent)
    return published


def publish_in(directory: int, part: str, final: Path, size: int) -> None:
    """`publish` a file in an open directory, replacing what has the final name.

    Raises VerificationError, DiskFullError, EnvironmentFault.
    """
    with translating(final, "finish"):
        check_replaceable(final.name, directory)
        _settle(directory, (part,), final, size, False)
        os.rename(part, final.name, src_dir_fd=directory, dst_dir_fd=directory)
        os.fsync(directory)


def find_published(final: Path, inode: int) -> Path | None:
    """The name under which an earlier `publish` to `final` put the part of this inode.

    Inodes are used again, so what is found still wants verifying. Raises
    EnvironmentFault.
    """
    with translating(final.parent, "read"):
        for candidate in _candidates(final):
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                if candidate.lstat().st_ino == inode:
                    return candidate
    return None


# --- contents -----------------------------------------------------------------


def _settle_file(part: Path, size: int, executable: bool, inodes: Sequence[int]) -> None:
    parent = open_root(part.parent)
    try:
        with translating(part, "finish"):
            _settle(parent, (part.name,), part, size, executable, *inodes)
    finally:
        os.close(parent)


def _settle_folder(part: Path, layout: Layout, inodes: Sequence[int]) -> None:
    """Sync the whole tree, bottom up, making sure that it is exactly the layout's."""
    parent = open_root(part.parent)
    try:
        with translating(part, "finish"):
            root = open_directory_beneath(parent, (part.name,))
    finally:
        os.close(parent)
    try:
        with translating(part, "finish"):
            for path in layout.directories:
                make_directories_beneath(root, path.split("/"))
            for number, file in enumerate(layout.files):
                executable = file.kind is EntryKind.EXECUTABLE
                components, known = layout.components(number), inodes[number : number + 1]
                _settle(root, components, part / file.path, file.size, executable, *known)
            for directory, names in _tree(layout).items():
                _settle_directory(root, directory, names, part)
    finally:
        os.close(root)


def _settle(
    root: int,
    components: tuple[str, ...],
    shown_as: Path,
    size: int,
    executable: bool,
    inode: int | None = None,
) -> None:
    fd = open_beneath(root, components, os.O_RDONLY)
    try:
        facts = os.fstat(fd)
        if inode is not None and facts.st_ino != inode:
            raise VerificationError(
                f"{shown(str(shown_as))} is another file than the one that was downloaded:"
                " something else replaced it; run this again to repair it"
            )
        if facts.st_size != size:
            raise VerificationError(
                f"{shown(str(shown_as))} has {facts.st_size} bytes instead of {size}:"
                " something else wrote to it; run this again to repair it"
            )
        if executable:
            # Whoever may read it may run it, as a compiler would have it.
            os.fchmod(fd, stat.S_IMODE(facts.st_mode) | (facts.st_mode & 0o444) >> 2)
        os.fsync(fd)
    finally:
        os.close(fd)


def _settle_directory(root: int, directory: tuple[str, ...], names: set[str], part: Path) -> None:
    fd = open_directory_beneath(root, directory)
    try:
        strangers = sorted(set(os.listdir(fd)) - names)
        if strangers:
            where = part.joinpath(*directory, strangers[0])
            raise VerificationError(
                f"{shown(str(where))} does not belong to this download: move it away,"
                " then run this again"
            )
        os.fsync(fd)
    finally:
        os.close(fd)


def _tree(layout: Layout) -> dict[tuple[str, ...], set[str]]:
    """The names in each directory, the deepest directories first."""
    names: defaultdict[tuple[str, ...], set[str]] = defaultdict(set)
    names[()] = set()
    for path in layout.directories:
        names[tuple(path.split("/"))] = set()
    for path in itertools.chain(layout.directories, (file.path for file in layout.files)):
        components = tuple(path.split("/"))
        for depth, name in enumerate(components):
            names[components[:depth]].add(name)
    return dict(sorted(names.items(), key=lambda item: -len(item[0])))


# --- the name -----------------------------------------------------------------


def _place(part: Path, final: Path) -> Path:
    for candidate in _candidates(final):
        try:
            rename_no_replace(part, candidate)
        except FileExistsError:
            continue
        return candidate
    raise EnvironmentFault(
        f"cannot finish {shown(str(final))}: {MAX_SUFFIX} files of that name are there already;"
        " choose another --output"
    )


def _replace(part: Path, final: Path, single: bool) -> Path:
    if single:
        with translating(final, "replace"):
            check_replaceable(final)
            os.rename(part, final)
    elif final.is_dir() and not final.is_symlink():
        rename_exchange(part, final)
        fsync_dir(final.parent)
        # The new folder has the name; what the part is called now is the old one.
        with translating(part, "remove"):
            shutil.rmtree(part)
    else:
        try:
            rename_no_replace(part, final)
        except FileExistsError:
            raise EnvironmentFault(
                f"cannot replace {shown(str(final))} by a folder: it is not one;"
                " choose another --output"
            ) from None
    return final


def _candidates(final: Path) -> Iterator[Path]:
    return map(final.with_name, numbered_names(final.name))


def numbered_names(name: str) -> Iterator[str]:
    """The names to try for a file: ``a.txt``, then ``a_1.txt``, ``a_2.txt`` and so on."""
    yield name
    stem, extension = os.path.splitext(name)
    # What is longer is no type of file, and would leave no room for the number.
    if len(os.fsencode(extension)) > MAX_EXTENSION_BYTES:
        stem, extension = name, ""
    for number in range(1, MAX_SUFFIX + 1):
        yield fitting_name(stem, f"_{number}{extension}")
