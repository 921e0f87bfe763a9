"""The mirrors in use by one download, between their feeds and the scheduler."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import trio

from furymesh.core.scheduler import Action, Request, Scheduler
from furymesh.net.tasks import open_tasks
from furymesh.sources.content import Content
from furymesh.storage.workspace import Workspace
from furymesh.swarm.arrivals import Arrivals
from furymesh.swarm.events import Connected, Event, Note
from furymesh.swarm.mirrors import FOUND, Feed, Lane
from furymesh.swarm.progress import IdleClock, Tally
from furymesh.swarm.share import Share
from furymesh.wire import messages as m

if TYPE_CHECKING:
    from furymesh.swarm.fetching import Fetching


class Feeds:
    """Turns what feeds do into events of the scheduler, and its actions into lanes."""

    def __init__(
        self,
        fetching: Fetching,
        scheduler: Scheduler,
        arrivals: Arrivals,
        clock: IdleClock,
        tally: Tally,
        apply: Callable[[Sequence[Action]], None],
        tell: Callable[[Event], None],
    ) -> None:
        self._fetching = fetching
        self._scheduler = scheduler
        self._arrivals = arrivals
        self._clock = clock
        self._tally = tally
        self._apply = apply
        self._tell = tell
        self._feeds: dict[int, Feed] = {}

    async def run(self, share: Share, workspace: Workspace) -> None:
        """Use the mirrors of a share until cancelled, or all are dropped."""
        content = Content(workspace.layout, self._scheduler.ledger.geometry, workspace.sealer)
        budgets = (*share.swarm.endpoint.download, share.download)
        async with open_tasks() as nursery:
            for feed in share.mirrors:
                if workspace.sealed:
                    feed.drop("it has the plain files, and the link has no key to seal them")
                    self.dropped(feed)
                else:
                    nursery.start_soon(feed.run, self, content, budgets)

    def act(self, action: Action) -> None:
        """Carry out what the scheduler asks of a mirror."""
        feed = self._feeds.get(action.peer)
        if feed is None:
            return
        if isinstance(action, Request):
            feed.request(action.chunks)
            return
        for chunk in action.chunks:
            self._give_up(feed, chunk)

    # --- what feeds tell ------------------------------------------------------------

    def joined(self, feed: Feed) -> None:
        """A mirror may be asked for chunks."""
        now, scheduler = trio.current_time(), self._scheduler
        self._feeds[feed.number] = feed
        scheduler.peer_joined(now, feed.number, mirror=True)
        everything = scheduler.ledger.geometry.all_chunks
        self._apply(scheduler.peer_has(now, feed.number, everything))

    def left(self, feed: Feed) -> None:
        """A mirror is asked for nothing more."""
        del self._feeds[feed.number]
        for chunk in list(feed.lanes):
            self._give_up(feed, chunk)
        self._fetching.released(feed.number)
        self._apply(self._scheduler.peer_left(trio.current_time(), feed.number))

    def lives(self, feed: Feed, round_trip: float | None = None) -> None:
        """A mirror answered, or is to be tried again; `round_trip` in seconds."""
        if feed.number in self._feeds:  # or a task of it has not heard yet that it has left
            self._apply(self._scheduler.heard(trio.current_time(), feed.number, round_trip))

    def stirs(self, feed: Feed, size: int) -> None:
        """Bytes came that are not yet those of a chunk."""
        if feed.number in self._feeds:
            now = trio.current_time()
            self._scheduler.stirred(now, feed.number)
            self._clock.received(now, size)

    def answered(self, feed: Feed) -> None:
        """A mirror brings what it was asked for."""
        self._tell(Connected(None, feed.place, FOUND))

    def dropped(self, feed: Feed) -> None:
        """A mirror is not used any more, for what its state says."""
        self._tell(Note(f"mirror {feed.place} is not used: {feed.state}"))

    # --- bytes ----------------------------------------------------------------------

    def place(self, lane: Lane, data: m.Data) -> memoryview | None:
        """Where bytes of a lane's chunk go; None while there is no room."""
        return self._fetching.place(lane, data)

    async def room(self) -> None:
        await self._fetching.room()

    def filled(self, lane: Lane, data: m.Data) -> None:
        self._fetching.filled(lane, data)

    def _give_up(self, feed: Feed, chunk: int) -> None:
        lane = feed.cancel(chunk)
        if lane is not None:
            self._tally.wasted += self._arrivals.left(lane)
