"""Peers through BitTorrent's mainline DHT.

A share is announced under an info-hash derived from its discovery tag, as a
torrent would be, and looked up there. A node also stores where it is under its
node id, signed: whoever knows the id finds it after it moved.

Always true: requests of each kind leave no faster than their pace, and those
that somebody waits for, lookups, do not queue behind announces.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable, Iterable, Set
from contextlib import suppress
from random import Random
from typing import Final, Generic, TypeVar

import trio

from furymesh.core import node_record
from furymesh.core.ids import DiscoveryTag, NodeId, info_hash
from furymesh.core.link import Address
from furymesh.discovery.book import Source
from furymesh.discovery.dht import Dht, DhtSettings, open_dht
from furymesh.discovery.source import Interests, Sighting, Tell
from furymesh.net.identity import Identity
from furymesh.net.tasks import open_tasks
from furymesh.net.throttle import Budget

ANNOUNCE_SECONDS = 15 * 60.0  # nodes forget after 30 minutes; every second one may get lost
RECORD_SECONDS = 30 * 60.0  # items are kept for two hours
RECORD_LOOK_SECONDS = 60.0  # between two looks whether the record still fits
ADDRESS_SECONDS = 5.0  # between two looks at the addresses of this machine
# Between two lookups while nobody is linked: the first may come before this node has
# met others, the last ones are for peers that come later.
FIRST_PAUSE = 1.0
LAST_PAUSE = 5 * 60.0
# A lookup asks about 60 nodes, some 8 KB in all. One a second is what libtorrent's own
# upload limit lets through; a node with a thousand shares needs it for announces.
REQUESTS_PER_SECOND = 1.0
BURST = 8  # requests at once after a rest: the shares that somebody just added
MAX_TOLD = 100  # addresses of one lookup; a swarm node links to ten
JITTER = 0.1  # part of a pause, so that nodes started together do not ask together

T = TypeVar("T", bound=Hashable)
Hosts = Callable[[], Iterable[str]]


class DhtSource:
    """The DHT as a source of peers."""

    source: Final = Source.DHT

    def __init__(
        self, settings: DhtSettings, hosts: Hosts, rng: Random, *, identity: Identity | None = None
    ) -> None:
        """`hosts` gives this machine's IP addresses on which links are accepted. With
        `identity` its record is kept stored: for one process of a node, which lasts.
        """
        self._settings = settings
        self._hosts = hosts
        self._rng = rng
        self._identity = identity
        self._dht: Dht | None = None  # while it runs

    @property
    def troubles(self) -> tuple[str, ...]:
        """As `PeerSource.troubles` says."""
        trouble = self._dht.trouble if self._dht is not None else ""
        return (f"DHT: {trouble}",) if trouble else ()

    async def run(self, interests: Interests, tell: Tell) -> None:
        """As `PeerSource.run` says."""
        async with open_dht(self._settings) as self._dht:
            try:
                await self._run(self._dht, interests, tell)
            finally:
                self._dht = None

    async def _run(self, dht: Dht, interests: Interests, tell: Tell) -> None:
        await dht.joined.wait()
        run = _Run(dht, interests, tell, self._hosts, self._rng)
        async with open_tasks() as nursery:
            nursery.start_soon(run.follow_addresses)
            if self._identity is not None and interests.port:
                nursery.start_soon(run.publish, self._identity)
            await run.follow_interests(nursery)


class _Run:
    """What lasts as long as one session of the DHT."""

    def __init__(
        self, dht: Dht, interests: Interests, tell: Tell, hosts: Hosts, rng: Random
    ) -> None:
        self._dht = dht
        self._interests = interests
        self._tell = tell
        self._hosts = hosts
        self._rng = rng
        self._announces = _Pace()
        self._lookups = _Pace()
        self._moved = trio.Event()  # since what was announced last

    async def follow_interests(self, nursery: trio.Nursery) -> None:
        """Announce, look and seek as the interests say, and as they change."""
        announcing = _Tasks(nursery, self._announce)
        looking = _Tasks(nursery, self._look)
        seeking = _Tasks(nursery, self._seek)
        port = self._port
        while True:
            if port != self._port:
                port = self._port
                self._move()
            announcing.adjust(self._interests.announced)
            looking.adjust(self._interests.wanted)
            seeking.adjust(self._interests.sought)
            await self._interests.changed()

    async def follow_addresses(self) -> None:
        """See whether this machine has other addresses, and have all announced from those."""
        before = frozenset(self._hosts())
        while True:
            await self._sleep(ADDRESS_SECONDS)
            with suppress(OSError):  # no descriptor is left: the next look may have one
                now = frozenset(self._hosts())
                if now != before:
                    await self._dht.move()
                    before = now
                    self._move()

    def _move(self) -> None:
        """Have all announced anew: others reach this process in another way."""
        self._moved.set()
        self._moved = trio.Event()

    async def publish(self, identity: Identity) -> None:
        """Keep the node's record stored as it is now."""
        stored, stored_at = b"", 0.0
        while True:
            moved = self._moved
            places = [
                Address(host, self._interests.port_for(host))
                for host in sorted(self._own_hosts())
                if self._dht.entrances.believes(host, self._interests.port_for(host))
            ]
            record = node_record.encode(places)
            due = record != stored or trio.current_time() >= stored_at + RECORD_SECONDS
            if places and due:
                await self._announces.turn()
                if await self._dht.items.put(identity, node_record.SALT, record):
                    stored, stored_at = record, trio.current_time()
            with trio.move_on_after(self._jittered(RECORD_LOOK_SECONDS)):
                await moved.wait()

    @property
    def _port(self) -> int:
        """At which those who take part in this DHT reach this process."""
        private = self._dht.entrances.private
        return self._interests.port if private else self._interests.public_port

    async def _announce(self, tag: DiscoveryTag) -> None:
        while True:
            await self._announces.turn()
            moved = self._moved
            self._dht.announce(info_hash(tag), self._port)
            with trio.move_on_after(self._jittered(ANNOUNCE_SECONDS)):
                await moved.wait()

    async def _look(self, tag: DiscoveryTag) -> None:
        """Look for peers, and rarely once there are links to some: they tell of each other.

        Answers do not count: nodes of the DHT name who is gone for half an hour.
        """
        told: set[tuple[str, int]] = set()

        def found(peers: list[tuple[str, int]]) -> None:
            for host, port in peers:
                if len(told) >= MAX_TOLD:
                    return
                if (host, port) not in told and self._is_peer(host, port):
                    told.add((host, port))
                    self._tell(Sighting(tag, Address(host, port), self._dht.entrances.teller))

        pause = FIRST_PAUSE
        with self._dht.listening(info_hash(tag), found):
            while True:
                await self._lookups.turn()
                told.clear()
                self._dht.get_peers(info_hash(tag))
                await self._sleep(pause)
                linked = self._interests.peers(tag)
                pause = LAST_PAUSE if linked else min(2 * pause, LAST_PAUSE)

    async def _seek(self, sought: tuple[DiscoveryTag, NodeId]) -> None:
        """Look for the record of a node that is said to have a share."""
        tag, node_id = sought

        def found(record: bytes) -> None:
            for place in node_record.decode(record):
                if self._is_peer(place.host, place.port):
                    address = Address(place.host, place.port, node_id)
                    self._tell(Sighting(tag, address, self._dht.entrances.teller))

        pause = FIRST_PAUSE
        while True:
            await self._lookups.turn()
            await self._dht.items.get(node_id, node_record.SALT, newer=found)
            await self._sleep(pause)
            pause = min(2 * pause, LAST_PAUSE)

    def _own_hosts(self) -> set[str]:
        mapping = self._interests.mapping
        mapped = [mapping.host] if mapping is not None and mapping.host else []
        return {*self._hosts(), *self._dht.external, *mapped}

    def _is_peer(self, host: str, port: int) -> bool:
        own = port == self._interests.port_for(host) and host in self._own_hosts()
        return not own and self._dht.entrances.believes(host, port)

    async def _sleep(self, seconds: float) -> None:
        await trio.sleep(self._jittered(seconds))

    def _jittered(self, seconds: float) -> float:
        return seconds * self._rng.uniform(1 - JITTER, 1 + JITTER)


class _Tasks(Generic[T]):
    """One task for each of a changing set of things."""

    def __init__(self, nursery: trio.Nursery, work: Callable[[T], Awaitable[None]]) -> None:
        self._nursery = nursery
        self._work = work
        self._running: dict[T, trio.CancelScope] = {}

    def adjust(self, things: Set[T]) -> None:
        """From now on, work on these."""
        for gone in self._running.keys() - things:
            self._running.pop(gone).cancel()
        for new in things - self._running.keys():
            self._running[new] = trio.CancelScope()
            self._nursery.start_soon(self._run, new, self._running[new])

    async def _run(self, thing: T, scope: trio.CancelScope) -> None:
        with scope:
            await self._work(thing)


class _Pace:
    """Turns to make a request; first come, first served."""

    def __init__(self) -> None:
        self._budget = Budget(REQUESTS_PER_SECOND, credit=(BURST - 1) / REQUESTS_PER_SECOND)
        self._queue = trio.StrictFIFOLock()

    async def turn(self) -> None:
        async with self._queue:
            await trio.sleep_until(self._budget.spend(1))
