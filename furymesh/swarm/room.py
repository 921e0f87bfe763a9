"""Waiting for room on the disk: what a download does instead of failing when there is none.

Always true:

* while `paused` nothing is asked for, and nothing that arrives late is kept;
* a download goes on only when there is room for more than the next chunk, what
  the full disk has lost is withdrawn from peers and from the resume data, and
  it is to be fetched again. To sync it once more would prove nothing: the pages
  of a failed sync may be gone, and the next one would not say so.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import trio

from furymesh.core.errors import DiskFullError
from furymesh.core.scheduler import TICK
from furymesh.storage.files import free_space
from furymesh.storage.part import PartStore
from furymesh.storage.resume import ResumeData
from furymesh.swarm.events import Event, Note
from furymesh.swarm.progress import IdleClock

ROOM_POLL_SECONDS = 1.0  # between looks at a full disk
MAX_POLL_SECONDS = 16.0  # where a quota, which no look shows, keeps the disk full
ROOM_CHUNKS = 4  # free before a download goes on: what may arrive until the next look
MIN_ROOM_BYTES = 64 * 1024  # for names and resume data, when nothing is to come


class Holdable(Protocol):
    """The fetching side of a download, as far as a full disk concerns it."""

    @property
    def storing(self) -> bool: ...

    @property
    def missing_bytes(self) -> int: ...

    def hold(self) -> None: ...

    def lost(self, bad: int) -> None: ...

    def proceed(self) -> None: ...


class DiskRoom:
    """Holds one download while its disk is full."""

    def __init__(
        self,
        fetching: Holdable,
        part: PartStore,
        resume: ResumeData | None,
        reserve: int,
        chunk_size: int,
        clock: IdleClock,
        tell: Callable[[Event], None],
    ) -> None:
        """`reserve` are the bytes to leave free on the disk, `chunk_size` bytes too."""
        self.paused = False
        self._fetching = fetching
        self._part = part
        self._resume = resume
        self._reserve = reserve
        self._wanted = ROOM_CHUNKS * chunk_size
        self._clock = clock
        self._tell = tell
        self._poll = ROOM_POLL_SECONDS
        self._missing = -1  # bytes when it went on for the last time
        self._short = trio.Event()

    def ran_out(self, error: DiskFullError) -> None:
        """Something found the disk full: hold everything until there is room again."""
        self._lose()  # at once: nobody may be given what the disk may have dropped
        if self.paused:
            return
        self.paused = True
        self._tell(Note(f"paused: {error.what}; goes on by itself when there is room"))
        self._fetching.hold()
        self._short.set()

    async def run(self) -> None:
        """See to every pause until cancelled; raises EnvironmentFault."""
        while True:
            await self._short.wait()
            with self._clock.local_work():
                await self._recover()
            self._short = trio.Event()
            self.paused = False
            self._missing = self._fetching.missing_bytes
            self._tell(Note("there is room again: going on"))
            self._fetching.proceed()

    async def _recover(self) -> None:
        in_vain = self._fetching.missing_bytes == self._missing
        self._poll = min(2 * self._poll, MAX_POLL_SECONDS) if in_vain else ROOM_POLL_SECONDS
        while True:
            await self._wait()
            while self._fetching.storing:
                await trio.sleep(TICK)
            try:
                await trio.to_thread.run_sync(self._forget, self._lose())
            except DiskFullError:
                continue
            return

    async def _wait(self) -> None:
        """Until the disk has room, for one look at least: a quota is not seen by looking."""
        directory = self._part.path.parent
        to_come = max(min(self._fetching.missing_bytes, self._wanted), MIN_ROOM_BYTES)
        while True:
            await trio.sleep(self._poll)
            if await trio.to_thread.run_sync(free_space, directory) >= self._reserve + to_come:
                return

    def _lose(self) -> int:
        """Fetch again what a sync has failed to save; returns the mask of it."""
        lost = self._part.unsaved
        if lost:
            self._fetching.lost(lost)
        return lost

    def _forget(self, lost: int) -> None:
        if lost and self._resume is not None:
            self._resume.lose_all(lost)
        self._part.start_over(lost)
