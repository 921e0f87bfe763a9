"""Hashing at the client in a session, of what must have a digest before it is announced.

The server hears now and then that this end gets on. One that hangs, at a disk that
is gone perhaps, says nothing, and so others soon have its turn.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import trio

from furymesh.storage.hashing import HashingStopped
from furymesh.sync.archive import Archive
from furymesh.sync.entries import FileInfo

SIGN_SECONDS = 15.0  # several in `server.SILENT_SECONDS`


class HashingAhead:
    """`done` of `total` bytes are hashed; nothing is being hashed while `total` is 0."""

    def __init__(
        self,
        archive: Archive,
        give_sign: Callable[[], Awaitable[None]],
        is_over: Callable[[], bool],
    ) -> None:
        """`is_over` tells, from another thread, whether the session is."""
        self.done = self.total = 0
        self._archive = archive
        self._give_sign = give_sign
        self._is_over = is_over

    async def hash(self, infos: Sequence[FileInfo]) -> list[FileInfo]:
        """These files with their digests, those left out that cannot be read."""
        self.done, self.total = 0, sum(info.size for info in infos)
        paths = [info.path for info in infos]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._give_signs)
            try:
                return await trio.to_thread.run_sync(
                    self._archive.hash, paths, self._count, self._is_over
                )
            except HashingStopped:
                await trio.sleep_forever()  # until who waits is cancelled with the session
            finally:
                self.total = 0
                nursery.cancel_scope.cancel()
        raise AssertionError("not reached")

    def _count(self, size: int) -> None:
        self.done += size

    async def _give_signs(self) -> None:
        said = 0
        while True:
            await trio.sleep(SIGN_SECONDS)
            if self.done > said:
                said = self.done
                await self._give_sign()
