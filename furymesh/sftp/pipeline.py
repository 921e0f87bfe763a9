"""What is in flight: several requests at once, answered in order, bounded in bytes.

Answers are taken in the order in which the requests were made. So what has been
written is always a prefix, on either side, and a broken transfer goes on at the
size that it finds.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

import asyncssh

from furymesh.core.errors import ProtocolError, SourceChangedError

# The largest request that OpenSSH takes is 256 KiB less 1 KiB; fewer are dearer,
# and where a server says less than this, less it is.
REQUEST_BYTES = 255 * 1024
# In flight for a file: a gigabit at 30 ms.
WINDOW_BYTES = 4 * 1024 * 1024
# One packet of what a server sends; twice what OpenSSH reads from its files at a time.
MAX_PACKET = 256 * 1024

MAX_REQUESTS = 128  # in flight, however small a server wants them: each is a task

T = TypeVar("T")


class Window(Generic[T]):
    """Requests under way, first in, first out; leaving it cancels what is left."""

    def __init__(self, request_bytes: int) -> None:
        self._depth = min(max(1, WINDOW_BYTES // request_bytes), MAX_REQUESTS)
        self._tasks: deque[asyncio.Task[T]] = deque()

    @property
    def full(self) -> bool:
        return len(self._tasks) >= self._depth

    def __bool__(self) -> bool:
        return bool(self._tasks)

    def add(self, request: Coroutine[Any, Any, T]) -> None:
        self._tasks.append(asyncio.ensure_future(request))

    async def first(self) -> T:
        """The answer to the oldest request."""
        answer = await self._tasks[0]
        self._tasks.popleft()
        return answer

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def _read_whole(file: asyncssh.SFTPClientFile, offset: int, length: int) -> bytes:
    """All of the bytes asked for; raises SourceChangedError where the file ends before."""
    data: bytes = await file.read(length, offset)
    while len(data) < length:  # a server may answer with less than was asked
        more: bytes = await file.read(length - len(data), offset + len(data))
        if not more:
            raise SourceChangedError("a file on the server became shorter meanwhile; try again")
        data += more
    if len(data) > length:
        raise ProtocolError("the server sent more than was asked for; try another server")
    return data


@contextlib.asynccontextmanager
async def reading(
    file: asyncssh.SFTPClientFile, start: int, end: int, request_bytes: int
) -> AsyncIterator[AsyncIterator[bytes]]:
    """The bytes from `start` to `end`, block after block; each raises as `_read_whole`."""
    async with Window[bytes](request_bytes) as window:

        async def blocks() -> AsyncGenerator[bytes, None]:
            asked = start
            while asked < end or window:
                while asked < end and not window.full:
                    length = min(request_bytes, end - asked)
                    window.add(_read_whole(file, asked, length))
                    asked += length
                yield await window.first()

        async with contextlib.aclosing(blocks()) as stream:
            yield stream


async def in_thread(function: Callable[..., T], *arguments: Any, **options: Any) -> T:
    """What takes a while on a disk, in a thread.

    Who is cancelled waits for it, since files are closed next. The result is lost
    then, so it must be nothing that wants closing.
    """
    job = asyncio.ensure_future(asyncio.to_thread(function, *arguments, **options))
    try:
        return await asyncio.shield(job)
    finally:
        while not job.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([job])
        if not job.cancelled():
            job.exception()  # whoever was cancelled will not ask
