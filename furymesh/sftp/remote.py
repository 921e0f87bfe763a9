"""The file operations of one server, in furymesh's errors."""

from __future__ import annotations

import contextlib
import posixpath
import stat
from collections.abc import AsyncIterator

import asyncssh

from furymesh.core.errors import EnvironmentFault, FuryMeshError, NotFoundError, ProtocolError
from furymesh.core.paths import shown
from furymesh.sftp.faults import disk_full, remotely
from furymesh.sftp.pipeline import REQUEST_BYTES
from furymesh.sftp.sound import Status

READ = asyncssh.FXF_READ
WRITE = asyncssh.FXF_WRITE
CREATE = asyncssh.FXF_CREAT
EMPTY = asyncssh.FXF_TRUNC
ONLY_NEW = asyncssh.FXF_EXCL

_PRIVATE = asyncssh.SFTPAttrs(permissions=0o600)


class Remote:
    """A server that a connection leads to."""

    def __init__(self, client: asyncssh.SFTPClient, host: str) -> None:
        self._client = client
        self.host = host
        limits = client.limits
        self.read_bytes = min(limits.max_read_len, REQUEST_BYTES)
        self.write_bytes = min(limits.max_write_len, REQUEST_BYTES)

    async def status(self, path: str, *, follow: bool = False) -> Status | None:
        """What lies at `path`, None if nothing does."""
        look = self._client.stat if follow else self._client.lstat
        try:
            with remotely(self.host, path, "look at"):
                return self._status(path, await look(path))
        except NotFoundError:
            return None

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
        return Status(mode, size, modified)

    @contextlib.asynccontextmanager
    async def opened(self, path: str, flags: int) -> AsyncIterator[asyncssh.SFTPClientFile]:
        """An open file; a new one is for its owner only."""
        action = "write" if flags & WRITE else "read"
        with remotely(self.host, path, action):
            file = await self._client.open(path, flags, _PRIVATE, encoding=None, block_size=0)
        try:
            yield file
        except BaseException:
            with contextlib.suppress(asyncssh.Error, OSError):
                await file.close()
            raise
        with remotely(self.host, path, action):
            await file.close()

    @contextlib.asynccontextmanager
    async def writing(self, path: str) -> AsyncIterator[None]:
        """Around writes: SFTP has no word for a full disk, so after a failure its room is asked."""
        try:
            with remotely(self.host, path, "write"):
                yield
        except EnvironmentFault as fault:
            if isinstance(fault.__cause__, asyncssh.SFTPFailure) and await self._is_full(path):
                what = f"cannot write {shown(path)} on {shown(self.host)}"
                raise disk_full(what) from fault.__cause__
            raise

    async def _is_full(self, path: str) -> bool:
        try:
            with remotely(self.host, path, "look at"):
                disk = await self._client.statvfs(posixpath.dirname(path) or ".")
        except FuryMeshError:
            return False
        return bool(disk.bavail * disk.frsize < self.write_bytes)

    async def settle(
        self, file: asyncssh.SFTPClientFile, path: str, mode: int, modified: int
    ) -> None:
        """Give an open file its mode and time, and make it durable where the server can."""
        attributes = asyncssh.SFTPAttrs(
            permissions=stat.S_IMODE(mode) & 0o777, atime=modified, mtime=modified
        )
        async with self.writing(path):
            await file.setstat(attributes)
            with contextlib.suppress(asyncssh.SFTPOpUnsupported):
                await file.fsync()

    async def replace(self, temporary: str, target: str, aside: str) -> None:
        """Rename, over what has the name.

        Atomic with OpenSSH's posix-rename. Without it an old target is moved to
        `aside` first: for a moment nothing has its name, and if the rename fails
        it gets it back.
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
                f"cannot create {shown(path)} on {shown(self.host)}:"
                " something that is not a directory is in the way"
            )

    async def entries(self, path: str) -> AsyncIterator[tuple[str, Status]]:
        """Names in a directory, unchecked, and what they are; links are not followed."""
        listing = self._client.scandir(path)
        while True:
            with remotely(self.host, path, "read"):
                try:
                    entry = await anext(listing)
                except StopAsyncIteration:
                    return
                name = entry.filename
                text = name if isinstance(name, str) else name.decode()
            if text not in (".", ".."):
                yield text, self._status(posixpath.join(path, text), entry.attrs)
