"""Rate limits as a wrapper around a byte stream.

A `Budget` is a rate shared by every stream it limits, so a node's limit holds
over all its links together. A stream may be under several budgets: the
tightest one rules.

Always true of a budget: its time is handed out in the order of asking, a
quantum at a time, so links that want more than there is get equal parts; and
what was handed out never runs ahead of the rate by more than the budget's credit
and one quantum for each link.
"""

from __future__ import annotations

from collections.abc import Sequence

import trio

from furymesh.net.stream import ByteStream

# Time that passed unused may be made up for, up to this: wake-ups come late, and
# a peer needs a round trip to ask for more. It is also the most that is spent in
# one go after a rest: a hundredth of what may be spent in ten seconds.
CREDIT_SECONDS = 0.1
# The same for one download of several: its chunks come behind those of others on the
# same link, and it cannot spend anything meanwhile.
SHARED_CREDIT_SECONDS = 0.3
# Bytes spent at a time: few enough that links take turns and that none is silent
# for long, enough that waking up for each costs little beside moving them.
QUANTUM_SECONDS = 0.004
MIN_QUANTUM = 4 * 1024
# A record is of use only when it is whole: at a low rate it is made short, or a link
# would seem to bring nothing for as long as it takes.
RECORD_SECONDS = 0.25


class Budget:
    """So many bytes a second; None is no limit. May be changed while in use.

    Up to `credit` seconds in which nothing was spent are made up for.
    """

    def __init__(self, rate: float | None = None, *, credit: float = CREDIT_SECONDS) -> None:
        self.rate = rate
        self._free_at = 0.0  # when what was booked so far is paid off
        self._credit = credit

    @property
    def quantum(self) -> int | None:
        """The most bytes to spend at once; None is no limit."""
        return None if self.rate is None else max(int(self.rate * QUANTUM_SECONDS), MIN_QUANTUM)

    @property
    def record(self) -> int | None:
        """The most bytes of a chunk to send as one piece; None is no limit."""
        return None if self.rate is None else max(int(self.rate * RECORD_SECONDS), MIN_QUANTUM)

    @property
    def reached(self) -> bool:
        """Whether all of it is being spent: more streams would not bring more."""
        return self.rate is not None and self._free_at >= trio.current_time() - self._credit

    def spend(self, size: int) -> float:
        """Book `size` bytes, which may be negative to give some back.

        Returns when (in trio's time) they are due; whoever books next comes after.
        """
        now = trio.current_time()
        if self.rate is None:
            return now
        due = max(self._free_at, now - self._credit)
        self._free_at = due + size / self.rate
        return due


class ThrottledStream:
    """A byte stream held to upload and download budgets."""

    def __init__(
        self, stream: ByteStream, *, upload: Sequence[Budget], download: Sequence[Budget]
    ) -> None:
        self._stream = stream
        self._upload = upload
        self._download = download
        self._content: Budget | None = None
        self._booked: Sequence[Budget] = ()  # where the bytes that may be received now are
        self._granted = 0  # how many those are

    def charge(self, content: Budget | None) -> None:
        """What is received from now on belongs to this budget besides those of the stream."""
        self._content = content

    async def wait_readable(self, at_least: int = 1) -> None:
        if not self._quantum():
            await self._stream.wait_readable(at_least)
            return
        await self._stream.wait_readable()
        if not self._granted and (quantum := self._quantum()):
            # Booked only now: a link on which nothing comes takes nobody's turn.
            self._booked = self._budgets()
            await take_turn(self._booked, quantum)
            self._granted = quantum

    def receive_nowait(self, view: memoryview) -> int | None:
        if not self._granted:
            return None if self._quantum() else self._stream.receive_nowait(view)
        size = self._stream.receive_nowait(view[: self._granted])
        for budget in self._booked:
            budget.spend((size or 0) - self._granted)
        self._granted = 0
        return size

    def _budgets(self) -> Sequence[Budget]:
        return self._download if self._content is None else (*self._download, self._content)

    def _quantum(self) -> int:
        return turn_size(self._budgets())

    async def send_all(self, view: memoryview) -> None:
        sent = 0
        while sent < len(view):
            part = view[sent : sent + (turn_size(self._upload) or len(view))]
            await take_turn(self._upload, len(part))
            await self._stream.send_all(part)
            sent += len(part)

    def keep_unsent(self, seconds: float, rate: float) -> None:
        self._stream.keep_unsent(seconds, rate)

    def waiting(self) -> int:
        return self._stream.waiting()

    def refused_for(self) -> float:
        return self._stream.refused_for()

    def round_trip(self) -> float:
        return self._stream.round_trip()

    def close(self) -> None:
        self._stream.close()


def turn_size(budgets: Sequence[Budget]) -> int:
    """The most bytes to move at once; 0 is no limit."""
    return min((budget.quantum for budget in budgets if budget.quantum), default=0)


async def take_turn(budgets: Sequence[Budget], size: int) -> None:
    """Book `size` bytes everywhere, and return when they are due."""
    due = max((budget.spend(size) for budget in budgets), default=0.0)
    if due > trio.current_time():
        await trio.sleep_until(due)
