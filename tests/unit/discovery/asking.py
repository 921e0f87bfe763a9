"""Sources of trackers at work in tests, and what they tell."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from furymesh.core.ids import DiscoveryTag
from furymesh.core.link import Tracker
from furymesh.discovery.source import Interests, Sighting
from furymesh.discovery.tracker import TrackerSource

ONE, TWO = DiscoveryTag(b"1" * 32), DiscoveryTag(b"2" * 32)


class Running:
    """A source at work: what it was told to do, and what it told."""

    def __init__(self, source: TrackerSource, interests: Interests) -> None:
        self.source = source
        self.interests = interests
        self.sightings: list[Sighting] = []
        self.scope = trio.CancelScope()
        self.ended = trio.Event()

    @property
    def addresses(self) -> set[str]:
        return {str(sighting.address) for sighting in self.sightings}

    @property
    def trouble(self) -> str:
        return "; ".join(self.source.troubles.values())

    async def run(self) -> None:
        with self.scope:
            await self.source.run(self.interests, self.sightings.append)
        self.ended.set()


@asynccontextmanager
async def open_source(
    *urls: str, port: int = 7001, wanted: bool = True, tags: tuple[DiscoveryTag, ...] = (ONE,)
) -> AsyncIterator[Running]:
    interests = Interests(port)
    for tag in tags:
        interests.add(tag, wanted=wanted)
    running = Running(TrackerSource(map(Tracker.parse, urls)), interests)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(running.run)
        try:
            yield running
        finally:
            running.scope.cancel()
