"""Sources of trackers at work in tests, and what they tell."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from furymesh.core.ids import DiscoveryTag
from furymesh.core.link import Tracker
from furymesh.discovery.source import Interests, Sighting
from furymesh.discovery.tracker import Trackers, TrackerSource, open_trackers

ONE, TWO = DiscoveryTag(b"1" * 32), DiscoveryTag(b"2" * 32)


class Running:
    """A source at work: what it was told to do, and what it told."""

    def __init__(self, source: TrackerSource, interests: Interests) -> None:
        self.source = source
        self.interests = interests
        self.sightings: list[Sighting] = []

    @property
    def addresses(self) -> set[str]:
        return {str(sighting.address) for sighting in self.sightings}

    @property
    def trouble(self) -> str:
        """What is wrong with the one tracker, without its name."""
        return "; ".join(line.partition(": ")[2] for line in self.source.troubles)


@asynccontextmanager
async def open_source(
    *urls: str, port: int = 7001, wanted: bool = True, tags: tuple[DiscoveryTag, ...] = (ONE,)
) -> AsyncIterator[Running]:
    """A node that asks these trackers and no others."""
    async with (
        open_trackers() as trackers,
        one_source(trackers, *urls, port=port, wanted=wanted, tags=tags) as running,
    ):
        yield running


@asynccontextmanager
async def one_source(
    trackers: Trackers,
    *urls: str,
    port: int = 7001,
    wanted: bool = True,
    tags: tuple[DiscoveryTag, ...] = (ONE,),
) -> AsyncIterator[Running]:
    """One source of a node that may have others."""
    interests = Interests(port)
    for tag in tags:
        interests.add(tag, wanted=wanted)
    running = Running(trackers.source(map(Tracker.parse, urls)), interests)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(running.source.run, interests, running.sightings.append)
        yield running
        nursery.cancel_scope.cancel()
