"""Rate limits as a wrapper around a byte stream.

A `Budget` is a token bucket shared by every stream it limits, so a node's
limit holds over all its links together. A stream may wrap several budgets
(the node's and the download's): the tightest one rules.
"""

from __future__ import annotations

from collections.abc import Sequence

import trio

from furymesh.net.stream import ByteStream

# Bytes spent at a time: small enough that a limit holds over a second, large
# enough that waking up for each does not cost more than sending.
BURST_SECONDS = 0.05
MIN_BURST = 16 * 1024


class Budget:
    """So many bytes a second; None is no limit. May be changed while in use."""

    def __init__(self, rate: float | None = None) -> None:
        self.rate = rate
        self._free_at = 0.0  # when what was spent so far is paid off

    @property
    def burst(self) -> int | None:
        """The most bytes to spend at once; None is no limit."""
        return None if self.rate is None else max(int(self.rate * BURST_SECONDS), MIN_BURST)

    def spend(self, size: int) -> None:
        """Book `size` bytes; whoever comes next waits until they are paid off."""
        if self.rate is not None:
            self._free_at = max(self._free_at, trio.current_time()) + size / self.rate

    @property
    def delay(self) -> float:
        """Seconds until something may be spent again."""
        return 0.0 if self.rate is None else max(self._free_at - trio.current_time(), 0.0)

    async def wait(self) -> None:
        """Return when something may be spent again."""
        while (delay := self.delay) > 0:
            await trio.sleep(delay)


class ThrottledStream:
    """A byte stream held to upload and download budgets."""

    def __init__(
        self, stream: ByteStream, *, upload: Sequence[Budget], download: Sequence[Budget]
    ) -> None:
        self._stream = stream
        self._upload = upload
        self._download = download

    async def wait_readable(self, at_least: int = 1) -> None:
        for budget in self._download:
            await budget.wait()
        await self._stream.wait_readable(1 if self._download else at_least)

    def receive_nowait(self, view: memoryview) -> int | None:
        if any(budget.delay > 0 for budget in self._download):
            return None
        bursts = [budget.burst for budget in self._download]
        limit = min((burst for burst in bursts if burst is not None), default=len(view))
        size = self._stream.receive_nowait(view[:limit])
        if size:
            for budget in self._download:
                budget.spend(size)
        return size

    async def send_all(self, view: memoryview) -> None:
        sent = 0
        while sent < len(view):
            bursts = [budget.burst for budget in self._upload]
            step = min((burst for burst in bursts if burst is not None), default=len(view))
            for budget in self._upload:
                await budget.wait()
            part = view[sent : sent + step]
            for budget in self._upload:
                budget.spend(len(part))
            await self._stream.send_all(part)
            sent += len(part)

    def keep_unsent(self, size: int) -> None:
        self._stream.keep_unsent(size)

    def waiting(self) -> int:
        return self._stream.waiting()

    def refused_for(self) -> float:
        return self._stream.refused_for()

    def close(self) -> None:
        self._stream.close()
