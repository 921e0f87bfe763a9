"""Trees: what is to be sent or fetched, by the rules that shares have for their paths."""

from __future__ import annotations

import asyncio
import os
import posixpath
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from furymesh.core.errors import (
    InvalidManifestError,
    ProtocolError,
    UsageError,
)
from furymesh.core.paths import check_path, check_table, shown
from furymesh.core.table import MAX_ENTRIES
from furymesh.sftp.download import download
from furymesh.sftp.how import OLD_SUFFIX, How, Meter, Transferred
from furymesh.sftp.paths import check_file_name
from furymesh.sftp.pipeline import in_thread
from furymesh.sftp.remote import Remote
from furymesh.sftp.sound import Status
from furymesh.sftp.upload import Source, Upload
from furymesh.storage.files import (
    fsync_dir,
    make_directories_beneath,
    open_beneath,
    open_directory_beneath,
    open_root,
    translating,
)
from furymesh.storage.scan import scan


async def send(remote: Remote, local: Path, target: str, how: How) -> Transferred:
    """Upload a file or folder; the files of a folder are atomic and resumed one by one."""
    found = await in_thread(scan, local)
    layout = found.layout
    meter = Meter(layout.plain_size, how.progress)
    if layout.single:
        check_file_name(target)
        await _send_file(remote, found.path.parent, (found.path.name,), target, how, meter)
        return meter.result(1)
    paths = [file.path for file in layout.files]
    _check_suffix(paths, how)
    made: set[str] = set()
    for directory in ("", *map(posixpath.dirname, paths), *layout.directories):
        await _make_parents(remote, target, directory, made)

    async def send_one(path: str) -> None:
        place = posixpath.join(target, path)
        await _send_file(remote, found.path, tuple(path.split("/")), place, how, meter)

    await _for_each(paths, send_one, how.jobs)
    return meter.result(len(paths), found.skipped)


async def _send_file(
    remote: Remote, root: Path, names: tuple[str, ...], target: str, how: How, meter: Meter
) -> None:
    # Opened here, not in a thread: who is cancelled meanwhile would lose it open.
    path = root.joinpath(*names)
    root_fd = open_root(root)
    try:
        with translating(path, "read"):
            fd = open_beneath(root_fd, names, os.O_RDONLY)
    finally:
        os.close(root_fd)
    try:
        await Upload(remote, Source(fd, path), target, how, meter).run()
    finally:
        os.close(fd)


async def _make_parents(remote: Remote, root: str, directory: str, made: set[str]) -> None:
    """Make a directory below `root` with all above it; none may be a link, but to `root`."""
    names = directory.split("/") if directory else []
    for depth in range(len(names) + 1):
        path = posixpath.join(root, *names[:depth])
        if path not in made:
            await remote.make_directory(path, follow=not depth)
            made.add(path)


async def _for_each(
    paths: Iterable[str], work: Callable[[str], Awaitable[None]], jobs: int
) -> None:
    """Do it for all paths, `jobs` at a time; the first failure ends the others."""
    rest = iter(paths)

    async def worker() -> None:
        for path in rest:
            await work(path)

    tasks = [asyncio.ensure_future(worker()) for _ in range(jobs)]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


# --- from a server ------------------------------------------------------------


async def fetch(remote: Remote, source: str, target: Path, how: How) -> Transferred:
    """Download a file or folder; the files of a folder are atomic and resumed one by one."""
    status = await remote.found(source)
    if not status.is_directory:
        meter = Meter(status.size, how.progress)
        await download(remote, source, target.parent, (target.name,), how, meter)
        return meter.result(1)
    tree = await walk(remote, source)
    _check_suffix(tree.files, how)
    await in_thread(_make_tree, target, tree.directories)
    meter = Meter(sum(status.size for status in tree.files.values()), how.progress)

    async def fetch_one(path: str) -> None:
        place = posixpath.join(source, path)
        await download(remote, place, target, path.split("/"), how, meter)

    await _for_each(sorted(tree.files), fetch_one, how.jobs)
    return meter.result(len(tree.files), tuple(sorted(tree.skipped)))


@dataclass(frozen=True, slots=True)
class Tree:
    """What is below a folder on a server, its paths checked; `skipped` is neither of the others."""

    files: dict[str, Status]
    directories: list[str]
    skipped: list[str]

    @property
    def empty(self) -> list[str]:
        """The directories with nothing below them, which is what a table lists."""
        parents = {posixpath.dirname(path) for path in (*self.files, *self.directories)}
        return [path for path in self.directories if path not in parents]


async def walk(remote: Remote, root: str) -> Tree:
    """Look through a folder; raises ProtocolError for what no share may hold."""
    files: dict[str, Status] = {}
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
                    files[path] = status
                else:
                    skipped.append(path)
                if len(files) + len(directories) + len(skipped) > MAX_ENTRIES:
                    raise InvalidManifestError(f"it holds more than {MAX_ENTRIES} files")
        tree = Tree(files, directories, skipped)
        check_table([*files, *tree.empty])
    except InvalidManifestError as error:
        where = remote.on_host(root)
        raise ProtocolError(f"cannot fetch {where}: {error}; rename it there") from error
    return tree


def _make_tree(root: Path, directories: list[str]) -> None:
    """Make the directories, so that they last."""
    with translating(root, "create"):
        root.mkdir(exist_ok=True)
    fsync_dir(root.parent)
    root_fd = open_root(root)
    try:
        for directory in directories:
            with translating(root / directory, "create"):
                make_directories_beneath(root_fd, directory.split("/"))
        for directory in ("", *directories):
            with translating(root / directory, "sync"):
                fd = open_directory_beneath(root_fd, directory.split("/") if directory else ())
                try:
                    os.fsync(fd)
                finally:
                    os.close(fd)
    finally:
        os.close(root_fd)


def _check_suffix(paths: Iterable[str], how: How) -> None:
    """No file may have the name under which another one lies until it is whole."""
    for path in paths:
        if how.atomic and path.removesuffix(OLD_SUFFIX).endswith(how.temp_suffix):
            raise UsageError(
                f"{shown(path)} ends like a temporary file; choose another temp_suffix"
            )
