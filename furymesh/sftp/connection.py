"""The face for trio: one SSH connection, and transfers on it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Self

import asyncssh
import trio_asyncio

from furymesh.core.errors import UsageError
from furymesh.sftp.faults import connecting
from furymesh.sftp.folders import fetch, send
from furymesh.sftp.how import TEMP_SUFFIX, How, Progress, Transferred, Verify
from furymesh.sftp.options import CONNECT_SECONDS, Options
from furymesh.sftp.remote import Remote


class AsyncConnection:
    """A connection to an SFTP server: ``async with AsyncConnection("host") as connection``.

    Several transfers may run on it at once.
    """

    def __init__(
        self,
        host: str,
        port: int | None = None,
        username: str | None = None,
        password: str | None = None,
        *,
        keys: Sequence[str | PathLike[str]] | None = None,
        passphrase: str | None = None,
        agent: bool = True,
        config: str | PathLike[str] | None = None,
        known_hosts: str | PathLike[str] | None = None,
        timeout: float = CONNECT_SECONDS,
    ) -> None:
        """What is not given is 22, this user's name, and the keys in ~/.ssh and in the agent.

        `keys` are paths of private keys, `passphrase` opens them. `config` is read
        as ssh reads ~/.ssh/config, which is not read by itself. The server's host
        key must be in `known_hosts` (else ~/.ssh/known_hosts or
        /etc/ssh/ssh_known_hosts): there is no way around that.
        """
        self._options = Options(
            host,
            port,
            username,
            password,
            None if keys is None else tuple(Path(key) for key in keys),
            passphrase,
            agent,
            None if config is None else Path(config),
            None if known_hosts is None else Path(known_hosts),
            timeout,
        )
        self._exits: AsyncExitStack | None = None
        self._remote: Remote | None = None
        self._loop: trio_asyncio.BaseTrioEventLoop | None = None

    async def __aenter__(self) -> Self:
        """Connect; raises HandshakeError, UnavailableError, UsageError."""
        exits = AsyncExitStack()
        try:
            self._loop = await exits.enter_async_context(trio_asyncio.open_loop())
            client = await trio_asyncio.aio_as_trio(self._connect, loop=self._loop)(exits)
        except BaseException:
            await exits.aclose()
            raise
        self._remote = Remote(client, self._options.host)
        self._exits = exits
        return self

    async def _connect(self, exits: AsyncExitStack) -> asyncssh.SFTPClient:
        host = self._options.host
        with connecting(host):
            connection = await asyncssh.connect(**self._options.for_ssh())
            exits.push_async_callback(self._disconnect, connection)
            return await connection.start_sftp_client()

    async def _disconnect(self, connection: asyncssh.SSHClientConnection) -> None:
        async def disconnect() -> None:
            connection.abort()
            await connection.wait_closed()

        await trio_asyncio.aio_as_trio(disconnect, loop=self._loop)()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        exits, self._exits, self._remote = self._exits, None, None
        if exits:
            # The loop's nurseries are not told of the error: it would come out in a group.
            await exits.aclose()

    async def sftp_write(
        self,
        local: str | PathLike[str],
        remote: str,
        atomic: bool = False,
        resume: bool = False,
        *,
        verify: Verify = "tail",
        progress: Progress | None = None,
        temp_suffix: str = TEMP_SUFFIX,
    ) -> Transferred:
        """Upload a file or folder to the path `remote`; modes and times are kept.

        `atomic`: a file lies at `remote` + `temp_suffix` until it is whole, and
        is renamed then; where the server lacks OpenSSH's posix-rename, an old
        file is moved aside for that moment. A failure removes the temporary
        file, unless `resume` is to find it.

        `resume`: go on with what is there of a file. `verify` says what of that
        is compared with the source first: the "tail", or all if the source is
        younger; all ("full"); or nothing but the "size". What differs is
        sent anew. A file that is there with at least the source's size, and
        agrees, is left as it is.

        `progress` gets bytes done and bytes in all, in the thread of the event
        loop: it should be quick. The files of a folder are handled one by one,
        links in it are left out.

        Raises NotFoundError, UsageError, SourceChangedError, LinkClosedError,
        DiskFullError, EnvironmentFault, ProtocolError.
        """
        how = How(atomic, resume, verify, temp_suffix)
        return await self._run(lambda there: send(there, Path(local), remote, how, progress))

    async def sftp_read(
        self,
        remote: str,
        local: str | PathLike[str],
        atomic: bool = False,
        resume: bool = False,
        *,
        verify: Verify = "tail",
        progress: Progress | None = None,
        temp_suffix: str = TEMP_SUFFIX,
    ) -> Transferred:
        """Download a file or folder to the path `local`; as `sftp_write`, the other way.

        What this returns of is durable. Names in a remote folder that could mean
        another place on some system are refused, links in it are left out.
        Raises as `sftp_write`, and AlreadyRunningError while another download
        writes to the same file.
        """
        how = How(atomic, resume, verify, temp_suffix)
        return await self._run(lambda there: fetch(there, remote, Path(local), how, progress))

    async def _run(self, transfer: Callable[[Remote], Awaitable[Transferred]]) -> Transferred:
        if self._remote is None:
            raise UsageError("the connection is not open: use it in `async with`")
        result: Transferred = await trio_asyncio.aio_as_trio(transfer, loop=self._loop)(
            self._remote
        )
        return result
