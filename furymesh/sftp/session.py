"""One SSH connection, and what is done on it: coroutines of its loop's thread."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import asyncssh

from furymesh.core.errors import FuryMeshError
from furymesh.sftp.faults import HostKey, Seen, connecting, remotely
from furymesh.sftp.folders import Tree, fetch, send, walk
from furymesh.sftp.how import How, Transferred
from furymesh.sftp.options import AnyPath, Options
from furymesh.sftp.paths import local_path, remote_path
from furymesh.sftp.pipeline import MAX_PACKET, WINDOW_BYTES, reading
from furymesh.sftp.remote import Remote
from furymesh.sftp.sound import Status

CLOSE_SECONDS = 5.0  # what has not ended by then is left to the system


class Session:
    """A connection that is logged in, with the SFTP subsystem running."""

    def __init__(self, connection: asyncssh.SSHClientConnection, remote: Remote) -> None:
        self._connection = connection
        self._remote = remote

    @classmethod
    async def open(cls, options: Options) -> Session:
        """Raises HandshakeError, UnavailableError, UsageError."""
        seen = Seen()
        with connecting(options, seen):
            connection = await asyncssh.connect(
                client_factory=lambda: _Client(seen),
                window=WINDOW_BYTES,
                max_pktsize=MAX_PACKET,
                **options.for_ssh(),
            )
            try:
                async with asyncio.timeout(options.timeout):
                    client = await connection.start_sftp_client()
                    home = await client.realpath(".")
            except BaseException:
                await _close(connection)
                raise
        key = connection.get_server_host_key()
        user = connection.get_extra_info("username", "")
        server = (key.public_data if key else b"", user)
        return cls(connection, Remote(client, options.host, server, str(home)))

    async def close(self) -> None:
        """Disconnect at once; ends within CLOSE_SECONDS."""
        await _close(self._connection)

    async def write(self, local: AnyPath, remote: str, how: How) -> Transferred:
        return await send(self._remote, local_path(local), remote_path(remote), how)

    async def read(self, remote: str, local: AnyPath, how: How) -> Transferred:
        return await fetch(self._remote, remote_path(remote), local_path(local), how)

    async def look(self, path: str) -> Status | Tree:
        """What a file is like, or what is in a folder; raises as `read`."""
        status = await self._remote.found(remote_path(path))
        return await walk(self._remote, path) if status.is_directory else status

    async def open_file(self, path: str) -> OpenFile:
        """A regular file, which the caller closes; raises as `read`."""
        source = self._remote.source(remote_path(path))
        file, status = await source.__aenter__()
        return OpenFile(self._remote, path, file, status, source)


class OpenFile:
    """A file on the server, open for reading anywhere in it; `status` is that at its opening."""

    def __init__(
        self,
        remote: Remote,
        path: str,
        file: asyncssh.SFTPClientFile,
        status: Status,
        source: contextlib.AbstractAsyncContextManager[object],
    ) -> None:
        self._remote = remote
        self._path = path
        self._file = file
        self.status = status
        self._source = source

    async def read(self, offset: int, length: int) -> bytes:
        """Raises SourceChangedError where the file ends before, and what requests raise."""
        with remotely(self._remote.host, self._path, "read"):
            async with reading(
                self._file, offset, offset + length, self._remote.read_bytes
            ) as blocks:
                return b"".join([block async for block in blocks])

    async def close(self) -> None:
        """Ends within CLOSE_SECONDS, whatever the server says: nothing is lost with it."""
        with contextlib.suppress(FuryMeshError, TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._source.__aexit__(None, None, None)


class _Client(asyncssh.SSHClient):
    """Notes what the server shows, and believes nothing more than is known."""

    def __init__(self, seen: Seen) -> None:
        self._seen = seen

    def validate_host_public_key(
        self, host: str, addr: str, port: int, key: asyncssh.SSHKey
    ) -> bool:
        self._seen.host_key = HostKey(host, addr, port, key)
        return False

    def password_auth_requested(self) -> None:
        self._seen.takes_password = True

    def kbdint_auth_requested(self) -> Any:
        self._seen.takes_password = True
        return NotImplemented  # then the password answers, if there is one


async def _close(connection: asyncssh.SSHClientConnection) -> None:
    connection.abort()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(CLOSE_SECONDS):
            await connection.wait_closed()
