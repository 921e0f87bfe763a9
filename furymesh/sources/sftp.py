"""A mirror over SFTP: reads at offsets, over one connection with a verified host key."""

from __future__ import annotations

import stat
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager

import trio

from furymesh.core.errors import FuryMeshError, UnavailableError
from furymesh.core.layout import Entry, EntryKind
from furymesh.core.link import Mirror
from furymesh.core.paths import shown
from furymesh.sftp import AsyncConnection
from furymesh.sftp.connection import RangedFile
from furymesh.sftp.folders import Tree
from furymesh.sftp.url import parse
from furymesh.sources.guard import Guard
from furymesh.sources.source import Found, Take, UnfitMirrorError

# Bytes at a time: a read has enough in flight for any road, and what came shows that
# the server lives.
READ_BYTES = 512 * 1024
MAX_OPEN = 16  # files that stay open; a server allows some hundred


class SftpServer:
    """One mirror; see `Server`."""

    def __init__(
        self, connection: AsyncConnection, mirror: Mirror, open_files: AsyncExitStack
    ) -> None:
        self._connection = connection
        self._mirror = mirror
        self._open_files = open_files
        self._files: dict[str, RangedFile] = {}
        self._opening = trio.Lock()

    async def read(self, path: str, size: int, offset: int, length: int, take: Take) -> None:
        with _translating():
            async with self._opened(path) as file:
                if file.size != size:
                    what = shown(path) or "the file"
                    raise UnfitMirrorError(f"{what} has {file.size} bytes there, not {size}")
                end = offset + length
                for start in range(offset, end, READ_BYTES):
                    take(await file.read(start, min(READ_BYTES, end - start)))

    async def size(self) -> int:
        with _translating():
            async with self._opened("") as file:
                return file.size

    async def look(self) -> Found:
        with _translating():
            there = await self._connection.look(self._path(""))
        if isinstance(there, Tree):
            return _folder(there)
        return Found((Entry("", EntryKind.FILE, there.size),), single=True, times=(there.modified,))

    def _path(self, path: str) -> str:
        return parse(str(self._mirror.below(path))).path

    @asynccontextmanager
    async def _opened(self, path: str) -> AsyncIterator[RangedFile]:
        opening = self._connection.open_file(self._path(path))
        async with self._opening:
            if path not in self._files and len(self._files) < MAX_OPEN:
                self._files[path] = await self._open_files.enter_async_context(opening)
        if path in self._files:
            yield self._files[path]
        else:
            async with opening as file:
                yield file


def _folder(tree: Tree) -> Found:
    """What a share of the folder would have if it were made where the folder is."""
    entries = [Entry(path, EntryKind.DIRECTORY, 0) for path in tree.empty]
    for path, status in tree.files.items():
        kind = EntryKind.EXECUTABLE if status.mode & stat.S_IXUSR else EntryKind.FILE
        entries.append(Entry(path, kind, status.size))
    entries.sort(key=lambda entry: entry.path.encode())
    times = tuple(tree.files[path].modified for path in sorted(tree.files))
    return Found(tuple(entries), skipped=tuple(sorted(tree.skipped)), times=times)


@asynccontextmanager
async def connected(mirror: Mirror, guard: Guard) -> AsyncIterator[SftpServer]:
    """A server to read from; raises as `Server` does."""
    address = mirror.address
    ip = await guard.ip(address)
    async with AsyncExitStack() as exits:
        with _translating():
            connection = AsyncConnection(
                address.host, address.port, mirror.user or None, address=ip
            )
            await exits.enter_async_context(connection)
        yield SftpServer(connection, mirror, await exits.enter_async_context(AsyncExitStack()))


@contextmanager
def _translating() -> Iterator[None]:
    """Only what is about the network may be better later."""
    try:
        yield
    except (UnavailableError, UnfitMirrorError):
        raise
    except FuryMeshError as error:
        raise UnfitMirrorError(str(error)) from None
