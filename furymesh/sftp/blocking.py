"""The face for programs without an event loop: a thread runs the one for trio."""

from __future__ import annotations

import queue
import threading
from collections.abc import Awaitable, Callable
from functools import partial
from os import PathLike
from types import TracebackType
from typing import Any, Self

import trio

from furymesh.core.errors import UsageError
from furymesh.sftp.connection import AsyncConnection
from furymesh.sftp.how import TEMP_SUFFIX, Progress, Transferred, Verify

CANCEL_SECONDS = 10.0  # to remove a temporary file after Ctrl-C


class Connection:
    """A connection to an SFTP server, open from the start until `close` or the end of `with`.

    Arguments and methods are those of `AsyncConnection`, but block. Several
    threads may use it at once; `progress` is called in a thread of its own.
    """

    def __init__(self, host: str, *arguments: Any, **options: Any) -> None:
        """Connect; arguments and errors as for `AsyncConnection`."""
        self._connection = AsyncConnection(host, *arguments, **options)
        self._stop = trio.Event()
        self._opened: queue.SimpleQueue[trio.lowlevel.TrioToken | BaseException] = (
            queue.SimpleQueue()
        )
        self._thread = threading.Thread(target=self._live, name="furymesh-sftp", daemon=True)
        self._thread.start()
        opened = self._opened.get()
        if isinstance(opened, BaseException):
            self._thread.join()
            raise opened
        self._token = opened

    def _live(self) -> None:
        try:
            trio.run(self._hold)
        except BaseException as error:
            self._opened.put(error)

    async def _hold(self) -> None:
        async with self._connection:
            self._opened.put(trio.lowlevel.current_trio_token())
            await self._stop.wait()

    def close(self) -> None:
        """Disconnect; transfers under way in other threads fail."""
        if self._thread.is_alive():
            self._token.run_sync_soon(self._stop.set)
            self._thread.join()

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
        local: str | PathLike[str],
        remote: str,
        atomic: bool = False,
        resume: bool = False,
        *,
        verify: Verify = "tail",
        progress: Progress | None = None,
        temp_suffix: str = TEMP_SUFFIX,
    ) -> Transferred:
        """Upload a file or folder; see `AsyncConnection.sftp_write`."""
        return self._run(
            partial(
                self._connection.sftp_write,
                local,
                remote,
                atomic,
                resume,
                verify=verify,
                progress=progress,
                temp_suffix=temp_suffix,
            )
        )

    def sftp_read(
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
        """Download a file or folder; see `AsyncConnection.sftp_read`."""
        return self._run(
            partial(
                self._connection.sftp_read,
                remote,
                local,
                atomic,
                resume,
                verify=verify,
                progress=progress,
                temp_suffix=temp_suffix,
            )
        )

    def _run(self, transfer: Callable[[], Awaitable[Transferred]]) -> Transferred:
        scope = trio.CancelScope()
        ended = threading.Event()

        async def run() -> Transferred | None:
            try:
                with scope:
                    return await transfer()
                return None
            finally:
                ended.set()

        try:
            result = trio.from_thread.run(run, trio_token=self._token)
        except (trio.RunFinishedError, trio.Cancelled):
            raise UsageError("the connection is closed: open another one") from None
        except KeyboardInterrupt:
            self._token.run_sync_soon(scope.cancel)
            ended.wait(CANCEL_SECONDS)
            raise
        assert result is not None  # only an interrupt cancels, and that has been raised
        return result
