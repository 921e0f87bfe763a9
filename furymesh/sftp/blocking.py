"""The face for programs without an event loop."""

from __future__ import annotations

import contextlib
from types import TracebackType
from typing import Self, Unpack

from furymesh.core.errors import UsageError
from furymesh.sftp.how import How, More, Transferred
from furymesh.sftp.loop import Loop
from furymesh.sftp.options import AnyPath, Options
from furymesh.sftp.session import CLOSE_SECONDS, Session


class Connection(Options):
    """A connection to an SFTP server, open from the start until `close` or the end of `with`.

    Arguments and methods are those of `AsyncConnection`, but block. Several
    threads may use it at once; `progress` is called in a thread of its own.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        self._loop = Loop()
        try:
            self._session = self._loop.run(Session.open(self))
        except BaseException:
            self._loop.stop(CLOSE_SECONDS)
            raise

    def close(self) -> None:
        """Disconnect; transfers under way in other threads fail."""
        with contextlib.suppress(UsageError):  # it is closed already
            self._loop.run(self._session.close())
        self._loop.stop(CLOSE_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def sftp_write(
        self,
        local: AnyPath,
        remote: str,
        atomic: bool = False,
        resume: bool = False,
        **more: Unpack[More],
    ) -> Transferred:
        """Upload a file or folder; see `AsyncConnection.sftp_write`."""
        return self._loop.run(self._session.write(local, remote, How(atomic, resume, **more)))

    def sftp_read(
        self,
        remote: str,
        local: AnyPath,
        atomic: bool = False,
        resume: bool = False,
        **more: Unpack[More],
    ) -> Transferred:
        """Download a file or folder; see `AsyncConnection.sftp_read`."""
        return self._loop.run(self._session.read(remote, local, How(atomic, resume, **more)))
