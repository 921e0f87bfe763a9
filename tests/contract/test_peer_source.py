"""What every source of peers must do, whatever it finds them by.

To put another source under these tests, add a `Kit` for it to KITS.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Final

import pytest
import trio

from furymesh.core.ids import DiscoveryTag, NodeId
from furymesh.core.link import Tracker
from furymesh.discovery.book import Source
from furymesh.discovery.dht import DhtSettings
from furymesh.discovery.dht_source import DhtSource
from furymesh.discovery.lan import Lan
from furymesh.discovery.source import Interests, PeerSource, Sighting, Tell
from furymesh.discovery.tracker import open_trackers
from tests.dht import dht_network
from tests.proc import descriptors
from tests.tracker_server import TestTracker, open_tracker
from tests.waiting import stays, until

PORT = 40_404
PATIENCE = 10.0  # seconds; what is found is found within one or two

MakeSource = Callable[[], PeerSource]


@dataclass(frozen=True)
class Kit:
    """How a source is tried: a world in which any number of them can be made."""

    world: Callable[[], AbstractAsyncContextManager[MakeSource]]
    # Seconds after which whatever would be found has been found.
    settled: float
    # Whether who leaves is known no more; others only stop renewing what they said.
    retracts: bool = True


@asynccontextmanager
async def lan_world() -> AsyncIterator[MakeSource]:
    def make() -> PeerSource:
        node_id, instance = NodeId(os.urandom(32)), os.urandom(8)
        return Lan(node_id, instance, ["0.0.0.0"], Random(instance))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("furymesh.discovery.lan.FIRST_PAUSE", 0.1)
        patch.setattr("furymesh.discovery.lan.LONG_PAUSE", 0.3)
        yield make


@asynccontextmanager
async def tracker_world(scheme: str) -> AsyncIterator[MakeSource]:
    async with open_tracker(TestTracker()) as tracker:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("furymesh.discovery.announcing.HUNGRY_SECONDS", 0.3)
            yield lambda: AtTracker(Tracker.parse(tracker.url(scheme)))


class AtTracker:
    """A node's trackers with the one source of theirs that is tried."""

    source: Final = Source.TRACKER
    troubles = ()

    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker

    async def run(self, interests: Interests, tell: Tell) -> None:
        async with open_trackers() as trackers:
            await trackers.source([self._tracker]).run(interests, tell)


@asynccontextmanager
async def dht_world() -> AsyncIterator[MakeSource]:
    numbers = itertools.count(20)
    # A network of its own: what is announced takes 15 seconds where somebody has died.
    with dht_network() as network, pytest.MonkeyPatch.context() as patch:
        patch.setattr("furymesh.discovery.dht_source.FIRST_PAUSE", 0.2)
        patch.setattr("furymesh.discovery.dht_source.LAST_PAUSE", 0.4)

        def make() -> PeerSource:
            host = f"127.0.0.{next(numbers)}"
            settings = DhtSettings((network.entrances[0],), host)
            return DhtSource(settings, lambda: [host], Random(host))

        yield make


KITS = {
    "lan": Kit(lan_world, settled=0.3),
    "http": Kit(partial(tracker_world, "http"), settled=0.5),
    "udp": Kit(partial(tracker_world, "udp"), settled=0.5),
    "dht": Kit(dht_world, settled=0.5, retracts=False),
}


@pytest.fixture(params=list(KITS.values()), ids=list(KITS))
def kit(request: pytest.FixtureRequest) -> Kit:
    chosen: Kit = request.param
    return chosen


@pytest.fixture
async def make(kit: Kit) -> AsyncIterator[MakeSource]:
    async with kit.world() as make:
        yield make


@pytest.fixture
def tag() -> DiscoveryTag:
    """One that nobody else on this network has."""
    return DiscoveryTag(os.urandom(32))


class Running:
    """A source at work, and what it told."""

    def __init__(self, port: int = PORT) -> None:
        self.interests = Interests(port)
        self.seen: list[Sighting] = []

    def found(self, tag: DiscoveryTag, port: int = PORT) -> bool:
        return any(seen.tag == tag and seen.address.port == port for seen in self.seen)


@asynccontextmanager
async def running(source: PeerSource, port: int = PORT) -> AsyncIterator[Running]:
    told = Running(port)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(source.run, told.interests, told.seen.append)
        yield told
        nursery.cancel_scope.cancel()


async def test_who_takes_part_is_found(make: MakeSource, tag: DiscoveryTag) -> None:
    async with running(make()) as one, running(make(), PORT + 1) as other:
        one.interests.add(tag, wanted=False)
        other.interests.add(tag, wanted=True)
        await until(lambda: other.found(tag), PATIENCE)


async def test_two_who_both_look_find_each_other(make: MakeSource, tag: DiscoveryTag) -> None:
    async with running(make()) as one, running(make(), PORT + 1) as other:
        one.interests.add(tag, wanted=True)
        other.interests.add(tag, wanted=True)
        await until(lambda: other.found(tag) and one.found(tag, PORT + 1), PATIENCE)


async def test_who_comes_later_is_found_too(kit: Kit, make: MakeSource, tag: DiscoveryTag) -> None:
    async with running(make(), PORT + 1) as other:
        other.interests.add(tag, wanted=True)
        await stays(lambda: not other.found(tag), kit.settled)
        async with running(make()) as one:
            one.interests.add(tag, wanted=False)
            await until(lambda: other.found(tag), PATIENCE)


async def test_only_addresses_are_told_and_only_of_what_is_wanted(
    kit: Kit, make: MakeSource, tag: DiscoveryTag
) -> None:
    idle = DiscoveryTag(os.urandom(32))
    async with running(make()) as one, running(make(), PORT + 1) as other:
        for share in (tag, idle):
            one.interests.add(share, wanted=False)
        other.interests.add(idle, wanted=False)
        other.interests.add(tag, wanted=True)
        await until(lambda: other.found(tag), PATIENCE)
        await stays(lambda: {seen.tag for seen in other.seen} == {tag}, kit.settled)
        assert one.seen == []


async def test_who_has_left_is_not_found(kit: Kit, make: MakeSource, tag: DiscoveryTag) -> None:
    if not kit.retracts:
        pytest.skip("what was said there cannot be taken back")
    async with running(make()) as one, running(make(), PORT + 1) as other:
        one.interests.add(tag, wanted=False)
        other.interests.add(tag, wanted=True)
        await until(lambda: other.found(tag), PATIENCE)
        one.interests.remove(tag)
        still_found = True
        with trio.fail_after(PATIENCE):
            while still_found:  # it may take a moment to be taken back
                async with running(make(), PORT + 2) as third:
                    third.interests.add(tag, wanted=True)
                    await until(lambda: third.found(tag, PORT + 1), PATIENCE)
                    still_found = third.found(tag)


async def test_who_accepts_no_links_is_not_found(
    kit: Kit, make: MakeSource, tag: DiscoveryTag
) -> None:
    async with running(make(), 0) as one, running(make()) as other:
        one.interests.add(tag, wanted=True)
        other.interests.add(tag, wanted=True)
        await until(lambda: one.found(tag), PATIENCE)
        # A tracker lists who asks, too.
        await stays(lambda: {seen.address.port for seen in other.seen} <= {PORT}, kit.settled)


async def test_nothing_stays_open(make: MakeSource, tag: DiscoveryTag) -> None:
    before = descriptors()
    for _ in range(3):
        async with running(make()) as one, running(make(), PORT + 1) as other:
            one.interests.add(tag, wanted=False)
            other.interests.add(tag, wanted=True)
            await until(lambda: other.found(tag), PATIENCE)
    await until(lambda: descriptors() == before)
