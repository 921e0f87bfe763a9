"""Trees: what is to be sent or fetched, by the rules that shares have for their paths."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterable
from pathlib import Path

from furymesh.core.errors import (
    InvalidManifestError,
    NotFoundError,
    ProtocolError,
    UsageError,
)
from furymesh.core.paths import check_path, check_table, shown
from furymesh.core.table import MAX_ENTRIES
from furymesh.sftp.download import download
from furymesh.sftp.how import How, Meter, Progress, Transferred
from furymesh.sftp.pipeline import in_thread
from furymesh.sftp.remote import Remote
from furymesh.sftp.upload import Source, upload
from furymesh.storage.files import (
    fsync_dir,
    make_directories_beneath,
    open_beneath,
    open_root,
    translating,
)
from furymesh.storage.scan import Scan, scan


async def send(
    remote: Remote, local: Path, target: str, how: How, progress: Progress | None
) -> Transferred:
    """Upload a file or folder; the files of a folder are atomic and resumed one by one."""
    found = await in_thread(scan, local)
    layout = found.layout
    meter = Meter(layout.plain_size, progress)
    if layout.single:
        await _send_file(remote, found, (found.path.name,), target, how, meter)
        return Transferred(1, meter.moved, meter.reused)
    _check_suffix([file.path for file in layout.files], how)
    made: set[str] = set()
    for file in layout.files:
        await _make_parents(remote, target, posixpath.dirname(file.path), made)
        place = posixpath.join(target, file.path)
        await _send_file(remote, found, tuple(file.path.split("/")), place, how, meter)
    for directory in ("", *layout.directories):
        await _make_parents(remote, target, directory, made)
    return Transferred(len(layout.files), meter.moved, meter.reused, found.skipped)


async def _send_file(
    remote: Remote, found: Scan, names: tuple[str, ...], target: str, how: How, meter: Meter
) -> None:
    root = found.path.parent if found.layout.single else found.path
    source = await in_thread(_open_source, root, names)
    try:
        await upload(remote, source, target, how, meter)
    finally:
        os.close(source.fd)


def _open_source(root: Path, names: tuple[str, ...]) -> Source:
    path = root.joinpath(*names)
    root_fd = open_root(root)
    try:
        with translating(path, "read"):
            return Source(open_beneath(root_fd, names, os.O_RDONLY), path)
    finally:
        os.close(root_fd)


async def _make_parents(remote: Remote, root: str, directory: str, made: set[str]) -> None:
    """Make a directory below `root` with all above it; none may be a link, but to `root`."""
    names = directory.split("/") if directory else []
    for depth in range(len(names) + 1):
        path = posixpath.join(root, *names[:depth])
        if path not in made:
            await remote.make_directory(path, follow=not depth)
            made.add(path)


# --- from a server ------------------------------------------------------------


async def fetch(
    remote: Remote, source: str, target: Path, how: How, progress: Progress | None
) -> Transferred:
    """Download a file or folder; the files of a folder are atomic and resumed one by one."""
    status = await remote.status(source, follow=True)
    if status is None:
        raise NotFoundError(f"there is no {shown(source)} on {shown(remote.host)}; check the path")
    if not status.is_directory:
        meter = Meter(status.size, progress)
        await download(remote, source, target, how, meter)
        return Transferred(1, meter.moved, meter.reused)
    files, directories, skipped = await _walk(remote, source)
    _check_suffix(files, how)
    await in_thread(_make_tree, target, directories)
    meter = Meter(sum(files.values()), progress)
    for path in sorted(files):
        await download(remote, posixpath.join(source, path), target / path, how, meter)
    return Transferred(len(files), meter.moved, meter.reused, tuple(sorted(skipped)))


async def _walk(remote: Remote, root: str) -> tuple[dict[str, int], list[str], list[str]]:
    """Files below `root` with their sizes, directories, and what is neither, all checked."""
    files: dict[str, int] = {}
    directories: list[str] = []
    skipped: list[str] = []
    pending = [""]
    try:
        while pending:
            directory = pending.pop()
            async for name, status in remote.entries(posixpath.join(root, directory)):
                if "/" in name:
                    raise InvalidManifestError("refused a name with a slash in it")
                path = f"{directory}/{name}" if directory else name
                check_path(path)
                if status.is_directory:
                    directories.append(path)
                    pending.append(path)
                elif status.is_file:
                    files[path] = status.size
                else:
                    skipped.append(path)
                if len(files) + len(directories) + len(skipped) > MAX_ENTRIES:
                    raise InvalidManifestError(f"it holds more than {MAX_ENTRIES} files")
        check_table([*files, *_empty(directories, files)])
    except InvalidManifestError as error:
        where = f"{shown(root)} on {shown(remote.host)}"
        raise ProtocolError(f"cannot fetch {where}: {error}; rename it there") from error
    return files, directories, skipped


def _empty(directories: list[str], files: dict[str, int]) -> list[str]:
    """The directories with nothing below them, which is what a table lists."""
    parents = {posixpath.dirname(path) for path in (*files, *directories)}
    return [path for path in directories if path not in parents]


def _make_tree(root: Path, directories: list[str]) -> None:
    with translating(root, "create"):
        root.mkdir(exist_ok=True)
    fsync_dir(root.parent)
    root_fd = open_root(root)
    try:
        for directory in directories:
            with translating(root / directory, "create"):
                make_directories_beneath(root_fd, directory.split("/"))
    finally:
        os.close(root_fd)


def _check_suffix(paths: Iterable[str], how: How) -> None:
    """No file may have the name under which another one lies until it is whole."""
    for path in paths:
        if how.atomic and path.endswith(how.temp_suffix):
            raise UsageError(
                f"{shown(path)} ends like a temporary file; choose another temp_suffix"
            )
