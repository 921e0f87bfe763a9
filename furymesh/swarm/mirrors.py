"""Mirrors of a download: peers that cannot speak our protocol.

A `Feed` carries out for one mirror what the scheduler asks of it, as a link does for
a peer: each chunk is a *lane*, a request of its own or a few. The bytes arrive,
are verified and stored like any other.

Always true: a lane is in `Feed.lanes` while the scheduler says that the mirror owes
its chunk, and nothing is taken from it afterwards; a mirror that was dropped is
asked for nothing more in this download.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import trio

from furymesh.core.errors import LinkClosedError, UnavailableError
from furymesh.core.ids import NodeId
from furymesh.core.link import Mirror
from furymesh.core.peer_state import MIRROR_REQUESTS
from furymesh.net.tasks import open_tasks
from furymesh.net.throttle import Budget, take_turn
from furymesh.sources.content import Content, Part
from furymesh.sources.opening import open_server
from furymesh.sources.source import MirrorBusyError, Server, Take, UnfitMirrorError
from furymesh.wire import messages as m

if TYPE_CHECKING:
    from furymesh.swarm.feeds import Feeds
    from furymesh.swarm.swarm import Swarm

# For people and programs: how a mirror was come by, and states of peers as well.
FOUND = "mirror"
CONNECTING, CONNECTED = "connecting", "connected"
FIRST_BACKOFF = 1.0  # seconds before a mirror that failed is tried again, doubled each time
MAX_BACKOFF = 30.0
BUSY_SECONDS = 10.0  # of rest, where a busy mirror does not say for how long
SFTP_REQUESTS = 16  # small files under way: one connection carries them all
# After which a mirror that fell silent, and whose chunks went to others, is tried again.
REVIVE_SECONDS = 5.0


@dataclass(slots=True, eq=False)
class Lane:
    """One chunk on its way from a mirror."""

    feed: Feed
    chunk: int
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)

    @property
    def number(self) -> int:
        return self.feed.number

    @property
    def who(self) -> tuple[NodeId | None, str, str]:
        return None, self.feed.place, FOUND

    def divert(self) -> None:
        self.scope.cancel()


class Feed:
    """One mirror of one download. `run` it."""

    def __init__(self, mirror: Mirror, number: int, *, own: bool, private: bool) -> None:
        """`number` is for the scheduler; `own` and `private` are as in `open_server`."""
        self.number = number
        self.place = mirror.place
        self.state = "waiting for the manifest"  # for people
        self.dropped = False
        self.lanes: dict[int, Lane] = {}
        self._mirror = mirror
        self._own = own
        self._private = private
        self._at_once = trio.CapacityLimiter(
            SFTP_REQUESTS if mirror.scheme == "sftp" else MIRROR_REQUESTS
        )
        self._feeds: Feeds
        self._content: Content
        self._budgets: Sequence[Budget] = ()
        self._server: Server
        self._tasks: trio.Nursery | None = None

    @property
    def connected(self) -> bool:
        """Whether it brings what it is asked for."""
        return self.state == CONNECTED

    async def run(self, feeds: Feeds, content: Content, budgets: Sequence[Budget]) -> None:
        """Bring chunks until cancelled or dropped."""
        self._feeds, self._content, self._budgets = feeds, content, budgets
        backoff = FIRST_BACKOFF
        while not self.dropped:
            self.state = CONNECTING
            try:
                await self._serve()
            except UnfitMirrorError as error:
                self.drop(str(error))
            except UnavailableError as error:
                if self.connected:
                    backoff = FIRST_BACKOFF
                self._failed(error)
                await trio.sleep(max(_rest(error), backoff))
                backoff = min(2 * backoff, MAX_BACKOFF)
        feeds.dropped(self)

    def drop(self, reason: str) -> None:
        """Ask it for nothing more: it is of no use, or a liar."""
        if self.dropped:
            return
        self.dropped = True
        self.state = reason
        if self._tasks is not None:
            self._tasks.cancel_scope.cancel()

    def _failed(self, error: UnavailableError) -> None:
        """It will be tried again, unless it was dropped meanwhile."""
        if not self.dropped:
            self.state = str(error)

    def open_beside(self) -> AbstractAsyncContextManager[Server]:
        """The place of the manifest beside it, to read from."""
        return open_server(self._mirror.manifest, own=self._own, private=self._private)

    # --- what the scheduler asks ------------------------------------------------------

    def request(self, chunks: Sequence[int]) -> None:
        """Begin a lane for each of these chunks."""
        for chunk in chunks:
            lane = self.lanes[chunk] = Lane(self, chunk)
            assert self._tasks is not None  # it was told of as joined
            self._tasks.start_soon(self._bring, lane)

    def cancel(self, chunk: int) -> Lane | None:
        """Give up a lane; None if there is none."""
        lane = self.lanes.pop(chunk, None)
        if lane is not None:
            lane.scope.cancel()
        return lane

    # --- carrying out -----------------------------------------------------------------

    async def _serve(self) -> None:
        """One stretch of use, until something fails."""
        async with (
            open_server(self._mirror, own=self._own, private=self._private) as self._server,
            open_tasks() as self._tasks,
        ):
            if self.dropped:
                return  # meanwhile
            self._feeds.joined(self)
            try:
                while True:
                    await trio.sleep(REVIVE_SECONDS)
                    if not self.lanes:
                        self._feeds.lives(self)
            finally:
                self._feeds.left(self)

    async def _bring(self, lane: Lane) -> None:
        with lane.scope:
            start = m.Data(0, lane.chunk, 0, 0)
            # Who was given up is told at a checkpoint, and would take memory before that.
            while not lane.scope.cancel_called and self._feeds.place(lane, start) is None:
                await self._feeds.room()
            if lane.scope.cancel_called:
                return
            only = self._content.as_it_is(lane.chunk)
            if only is not None:
                await self._stream(lane, only)
            else:
                self._put(lane, 0, await self._content.read(lane.chunk, self._read_quietly))
            if self.lanes.get(lane.chunk) is lane:
                del self.lanes[lane.chunk]

    async def _stream(self, lane: Lane, part: Part) -> None:
        filled = 0

        def take(data: bytes) -> None:
            nonlocal filled
            self._put(lane, filled, data)
            filled += len(data)

        await self._read(part, take)

    async def _read_quietly(self, part: Part, take: Take) -> None:
        """Read what is not yet bytes of a chunk, but shows that the mirror lives."""

        def stir(data: bytes) -> None:
            take(data)
            self._feeds.stirs(self, len(data))

        await self._read(part, stir)

    def _put(self, lane: Lane, offset: int, data: bytes | bytearray) -> None:
        """Bytes of a lane's chunk have come."""
        if lane.scope.cancel_called:
            return
        piece = m.Data(0, lane.chunk, offset, len(data))
        view = self._feeds.place(lane, piece)
        assert view is not None  # a lane has its slab before anything is asked for
        view[:] = data
        self._feeds.filled(lane, piece)

    async def _read(self, part: Part, take: Take) -> None:
        """Read a range; what came before a connection broke is not asked for again."""
        offset, end = part.offset, part.offset + part.length
        while offset < end:
            limits = [budget.record for budget in self._budgets if budget.record]
            length = min([*limits, end - offset])
            await take_turn(self._budgets, length)
            try:
                async with self._at_once:
                    offset += await self._request(part, offset, length, take)
            except MirrorBusyError as error:
                others = self._at_once.borrowed_tokens
                if not others or error.seconds is not None:
                    raise
                self._at_once.total_tokens = others  # it serves no more at once

    async def _request(self, part: Part, offset: int, length: int, take: Take) -> int:
        """One request; returns the bytes that came, fewer only if some did."""
        came = 0
        asked = trio.current_time()

        def count(data: bytes) -> None:
            nonlocal came
            if not came:
                self._answered(trio.current_time() - asked)
            came += len(data)
            take(data)

        try:
            await self._server.read(part.path, part.size, offset, length, count)
        except LinkClosedError:
            if not came:
                raise
        return came

    def _answered(self, seconds: float) -> None:
        """The first bytes of an answer came, so long after it was asked for."""
        if self.dropped:  # the answer was on its way already
            return
        if not self.connected:
            self.state = CONNECTED
            self._feeds.answered(self)
        self._feeds.lives(self, seconds)


def _rest(error: UnavailableError) -> float:
    """Seconds for which a mirror asks to be left alone."""
    if not isinstance(error, MirrorBusyError):
        return 0.0
    return BUSY_SECONDS if error.seconds is None else error.seconds


def feeds_of(named: Mapping[Mirror, bool], swarm: Swarm, *, private: bool) -> tuple[Feed, ...]:
    """Feeds of mirrors, each with whether the user named it himself."""
    return tuple(
        Feed(mirror, swarm.new_number(), own=own, private=private) for mirror, own in named.items()
    )
