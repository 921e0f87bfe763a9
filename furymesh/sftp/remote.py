"""The file operations of one server, in furymesh's errors."""

from __future__ import annotations

import asyncio
import contextlib
import posixpath
import stat
import threading
from collections.abc import AsyncIterator, Iterator

import asyncssh

from furymesh.core.errors import (
    AlreadyRunningError,
    DiskFullError,
    EnvironmentFault,
    FuryMeshError,
    NotFoundError,
    ProtocolError,
)
from furymesh.core.paths import shown
from furymesh.core.table import MAX_ENTRIES
from furymesh.sftp.faults import disk_full, remotely
from furymesh.sftp.pipeline import REQUEST_BYTES
from furymesh.sftp.sound import Status

READ = asyncssh.FXF_READ
WRITE = asyncssh.FXF_WRITE
CREATE = asyncssh.FXF_CREAT
EMPTY = asyncssh.FXF_TRUNC
ONLY_NEW = asyncssh.FXF_EXCL
READ_ONLY = 1  # among the flags of a disk: statvfs@openssh.com

CLEANUP_SECONDS = 5.0  # a server that does not answer must not hold up a failure
LISTING_SECONDS = 60.0  # for the next name: answers without any could go on for ever

_PRIVATE = asyncssh.SFTPAttrs(permissions=0o600)

# What this process uploads to now: server, path. Connections may be of several threads.
_busy: set[tuple[object, str]] = set()
_busy_lock = threading.Lock()


class Remote:
    """A server that a connection leads to."""

    def __init__(self, client: asyncssh.SFTPClient, host: str, server: object, home: str) -> None:
        """`server` tells this one from others; `home` is where relative paths begin."""
        self._client = client
        self.host = host
        self._server = server
        self._home = home
        limits = client.limits
        self.read_bytes = min(limits.max_read_len, REQUEST_BYTES)
        self.write_bytes = min(limits.max_write_len, REQUEST_BYTES)

    def on_host(self, path: str) -> str:
        """The path in messages."""
        return f"{shown(path)} on {shown(self.host)}"

    @contextlib.contextmanager
    def claimed(self, path: str) -> Iterator[None]:
        """Hold a path against other uploads of this process; raises AlreadyRunningError."""
        place = (self._server, posixpath.normpath(posixpath.join(self._home, path)))
        with _busy_lock:
            if place in _busy:
                raise AlreadyRunningError(
                    f"{self.on_host(path)} is being uploaded already; wait for that to end"
                )
            _busy.add(place)
        try:
            yield
        finally:
            with _busy_lock:
                _busy.remove(place)

    async def status(self, path: str, *, follow: bool = False) -> Status | None:
        """What lies at `path`, None if nothing does."""
        look = self._client.stat if follow else self._client.lstat
        try:
            with remotely(self.host, path, "look at"):
                return self._status(path, await look(path))
        except NotFoundError:
            return None

    async def found(self, path: str) -> Status:
        """What lies at `path` or where a link there leads; raises NotFoundError."""
        status = await self.status(path, follow=True)
        if status is None:
            raise NotFoundError(f"there is no {self.on_host(path)}; check the path")
        return status

    async def status_of(self, file: asyncssh.SFTPClientFile, path: str) -> Status:
        """What is known of an open file."""
        with remotely(self.host, path, "look at"):
            return self._status(path, await file.stat())

    def _status(self, path: str, attributes: asyncssh.SFTPAttrs) -> Status:
        mode, size, modified = attributes.permissions, attributes.size, attributes.mtime
        if mode is None or size is None or modified is None:
            raise ProtocolError(
                f"{shown(self.host)} does not tell type, size and time of {shown(path)};"
                " try another server"
            )
        accessed = modified if attributes.atime is None else attributes.atime
        return Status(mode, size, modified, accessed, attributes.uid)

    @contextlib.asynccontextmanager
    async def opened(self, path: str, flags: int) -> AsyncIterator[asyncssh.SFTPClientFile]:
        """An open file; a new one is for its owner only."""
        action = "write" if flags & WRITE else "read"
        request = self._client.open(path, flags, _PRIVATE, encoding=None, block_size=0)
        if flags & WRITE:
            async with self.writing(path):
                file = await request
        else:
            with remotely(self.host, path, action):
                file = await request
        try:
            yield file
        except BaseException:
            with contextlib.suppress(asyncssh.Error, OSError, TimeoutError):
                async with asyncio.timeout(CLEANUP_SECONDS):
                    await file.close()
            raise
        with remotely(self.host, path, action):
            await file.close()

    @contextlib.asynccontextmanager
    async def source(self, path: str) -> AsyncIterator[tuple[asyncssh.SFTPClientFile, Status]]:
        """A regular file, open for reading; anything else is not opened: a pipe would wait."""
        found = await self.found(path)
        if not found.is_file:
            what = "a folder" if found.is_directory else "neither a file nor a folder"
            raise EnvironmentFault(f"{self.on_host(path)} is {what}")
        async with self.opened(path, READ) as file:
            yield file, await self.status_of(file, path)

    @contextlib.asynccontextmanager
    async def writing(self, path: str) -> AsyncIterator[None]:
        """Around writes: SFTP has no word for what a disk refuses, so it is asked afterwards."""
        try:
            with remotely(self.host, path, "write"):
                yield
        except EnvironmentFault as fault:
            if isinstance(fault.__cause__, asyncssh.SFTPFailure):
                await self._blame_disk(path, fault.__cause__)
            raise

    async def _blame_disk(self, path: str, cause: asyncssh.SFTPFailure) -> None:
        """Raise what is wrong with the disk below `path`, if anything is."""
        try:
            with remotely(self.host, path, "look at"):
                disk = await self._client.statvfs(posixpath.dirname(path) or ".")
        except FuryMeshError:
            return
        what = f"cannot write {self.on_host(path)}"
        if disk.flags & READ_ONLY:
            raise EnvironmentFault(
                f"{what}: the disk there can only be read; choose another place"
            ) from cause
        if disk.bavail * disk.frsize < self.write_bytes:
            raise disk_full(what) from cause

    async def cut(self, file: asyncssh.SFTPClientFile, path: str, size: int) -> int:
        """Drop what lies beyond `size`, or all where a server cannot; returns what is left."""
        try:
            async with self.writing(path):
                await file.truncate(size)
        except DiskFullError:
            raise
        except EnvironmentFault:
            async with self.opened(path, WRITE | EMPTY):
                return 0
        return size

    async def describe(
        self, file: asyncssh.SFTPClientFile, path: str, modified: int, mode: int | None = None
    ) -> bool:
        """Give an open file its time, and mode; whether the server does that."""
        permissions = None if mode is None else stat.S_IMODE(mode) & 0o777
        attributes = asyncssh.SFTPAttrs(permissions=permissions, atime=modified, mtime=modified)
        try:
            with remotely(self.host, path, "write"):
                await file.setstat(attributes)
        except EnvironmentFault:
            return False
        return True

    async def sync(self, file: asyncssh.SFTPClientFile, path: str) -> None:
        """Make a file durable, where the server can."""
        async with self.writing(path):
            with contextlib.suppress(asyncssh.SFTPOpUnsupported):
                await file.fsync()

    async def replace(self, temporary: str, target: str, aside: str) -> None:
        """Rename, over what has the name.

        Atomic with OpenSSH's posix-rename. Without it an old target is moved to
        `aside` first: for a moment nothing has its name, and if the rename fails
        it gets it back. What dies in between leaves that to `recover`.
        """
        with remotely(self.host, target, "rename to"):
            try:
                await self._client.posix_rename(temporary, target)
                return
            except asyncssh.SFTPOpUnsupported:
                pass
        if await self.status(target) is None:
            await self._rename(temporary, target)
            return
        await self.remove(aside)
        await self._rename(target, aside)
        try:
            await self._rename(temporary, target)
        except BaseException:
            await self._rename(aside, target)
            raise
        await self.remove(aside)

    async def recover(self, target: str, aside: str) -> Status | None:
        """What lies at `target`, after the repair of a `replace` that was broken off."""
        found, old = await asyncio.gather(self.status(target), self.status(aside))
        if old is None or not old.is_file:
            return found
        if found is None:
            await self._rename(aside, target)
            return old
        await self.remove(aside)
        return found

    async def _rename(self, old: str, new: str) -> None:
        with remotely(self.host, new, "rename to"):
            await self._client.rename(old, new)

    async def remove(self, path: str) -> None:
        """Remove a file, if it is there."""
        with contextlib.suppress(NotFoundError), remotely(self.host, path, "remove"):
            await self._client.remove(path)

    async def make_directory(self, path: str, *, follow: bool) -> None:
        """See that `path` is a directory; a link to one will do only with `follow`."""
        found = await self.status(path, follow=follow)
        if found is None:
            with remotely(self.host, path, "create"):
                await self._client.mkdir(path)
        elif not found.is_directory:
            raise EnvironmentFault(
                f"cannot create {self.on_host(path)}:"
                " something that is not a directory is in the way"
            )

    async def entries(self, path: str) -> AsyncIterator[tuple[str, Status]]:
        """Names in a directory, unchecked, and what they are; links are not followed.

        A listing has an end: ProtocolError is raised after as many names as a
        folder may hold, and where no name comes for LISTING_SECONDS.
        """
        listing = self._client.scandir(path)
        for _ in range(MAX_ENTRIES + 3):  # ".", ".." and the end are no entries
            with remotely(self.host, path, "read"):
                try:
                    entry = await self._next(listing, path)
                except StopAsyncIteration:
                    return
                name = entry.filename
                text = name if isinstance(name, str) else name.decode()
            if text not in (".", ".."):
                yield text, self._status(posixpath.join(path, text), entry.attrs)
        raise ProtocolError(f"{self.on_host(path)} lists more than {MAX_ENTRIES} names; give it up")

    async def _next(
        self, listing: AsyncIterator[asyncssh.SFTPName], path: str
    ) -> asyncssh.SFTPName:
        task = asyncio.ensure_future(anext(listing))
        try:
            if not (await asyncio.wait([task], timeout=LISTING_SECONDS))[0]:
                raise ProtocolError(f"{self.on_host(path)} is not being listed; try again later")
            return task.result()
        finally:
            # Not waited for: a server that does not answer will not answer this either.
            task.cancel()
