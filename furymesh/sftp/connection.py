"""The face for trio: one SSH connection, and transfers on it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from types import TracebackType
from typing import Self, Unpack

import trio

from furymesh.core.errors import UsageError
from furymesh.sftp.folders import Tree
from furymesh.sftp.how import How, More, Transferred
from furymesh.sftp.loop import Loop
from furymesh.sftp.options import AnyPath, Options
from furymesh.sftp.session import CLOSE_SECONDS, OpenFile, Session
from furymesh.sftp.sound import Status


class AsyncConnection(Options):
    """A connection to an SFTP server: ``async with AsyncConnection("host") as connection``.

    The arguments are those of `Options`. Several transfers may run on it at once.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        self._loop: Loop | None = None
        self._session: Session | None = None

    async def __aenter__(self) -> Self:
        """Connect; raises HandshakeError, UnavailableError, UsageError."""
        self._loop = Loop()
        try:
            self._session = await self._loop.run_under_trio(Session.open(self))
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._stop()

    async def _stop(self) -> None:
        loop, session, self._session = self._loop, self._session, None
        if loop is None:
            return
        with trio.CancelScope(shield=True):  # each step ends by itself
            if session is not None:
                await loop.run_under_trio(session.close())
            await trio.to_thread.run_sync(loop.stop, CLOSE_SECONDS)

    async def sftp_write(
        self,
        local: AnyPath,
        remote: str,
        atomic: bool = False,
        resume: bool = False,
        **more: Unpack[More],
    ) -> Transferred:
        """Upload a file or folder to the path `remote`; modes and times are kept.

        The options are those of `How`. Where the server lacks OpenSSH's
        posix-rename, `atomic` moves an old file aside for the moment of the
        rename. Links in a folder are left out.

        Raises NotFoundError, UsageError, SourceChangedError, AlreadyRunningError,
        LinkClosedError, DiskFullError, EnvironmentFault, ProtocolError.
        """
        how = _under_trio(How(atomic, resume, **more))
        loop, session = self._opened()
        return await loop.run_under_trio(session.write(local, remote, how))

    async def sftp_read(
        self,
        remote: str,
        local: AnyPath,
        atomic: bool = False,
        resume: bool = False,
        **more: Unpack[More],
    ) -> Transferred:
        """Download a file or folder to the path `local`; as `sftp_write`, the other way.

        What this returns of is durable. Names in a remote folder that could mean
        another place on some system are refused, links in it are left out.
        """
        how = _under_trio(How(atomic, resume, **more))
        loop, session = self._opened()
        return await loop.run_under_trio(session.read(remote, local, how))

    async def look(self, remote: str) -> Status | Tree:
        """What a file is like, or what is in a folder; raises as `sftp_read`."""
        loop, session = self._opened()
        return await loop.run_under_trio(session.look(remote))

    @contextlib.asynccontextmanager
    async def open_file(self, remote: str) -> AsyncIterator[RangedFile]:
        """A regular file, to read parts of; raises as `sftp_read`."""
        loop, session = self._opened()
        file = await loop.run_under_trio(session.open_file(remote))
        try:
            yield RangedFile(loop, file)
        finally:
            with trio.CancelScope(shield=True):  # closing a file has its own time limit
                await loop.run_under_trio(file.close())

    def _opened(self) -> tuple[Loop, Session]:
        if self._loop is None or self._session is None:
            raise UsageError("the connection is not open: use it in `async with`")
        return self._loop, self._session


class RangedFile:
    """A file on a server. `size` in bytes and `modified` in seconds are those at its opening."""

    def __init__(self, loop: Loop, file: OpenFile) -> None:
        self._loop = loop
        self._file = file
        self.size = file.status.size
        self.modified = file.status.modified

    async def read(self, offset: int, length: int) -> bytes:
        """Exactly these bytes; several calls may be under way at once.

        Raises SourceChangedError where the file ends before, LinkClosedError,
        EnvironmentFault, ProtocolError.
        """
        return await self._loop.run_under_trio(self._file.read(offset, length))


def _under_trio(how: How) -> How:
    """Let the progress be told in trio's thread: it may touch what is trio's."""
    progress = how.progress
    if progress is None:
        return how
    token = trio.lowlevel.current_trio_token()

    def tell(done: int, total: int) -> None:
        trio.from_thread.run_sync(progress, done, total, trio_token=token)

    return replace(how, progress=tell)
