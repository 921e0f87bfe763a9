"""Trackers as a rendezvous: this node announces its shares there and asks who else did.

Any BitTorrent tracker does, over HTTP (BEP 3) or UDP (BEP 15). It learns an
info-hash, an address and a port, and whether something is missing; nothing
leads from there to the share.

A private share is never announced. But a tracker that a link names is part of the
link, so it may be asked for that one share: a source of its own, with interests
that hold nothing else.
"""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from random import Random, SystemRandom
from typing import Final, NamedTuple

import trio

from furymesh.core.errors import ProtocolError, UnavailableError
from furymesh.core.ids import DiscoveryTag, info_hash
from furymesh.core.link import Tracker
from furymesh.discovery.announcing import Schedule, Turn
from furymesh.discovery.book import Source
from furymesh.discovery.source import Interests, Sighting, Tell
from furymesh.discovery.tracker_http import HttpAsker
from furymesh.discovery.tracker_udp import UdpAsker
from furymesh.net.addresses import may_be_mapped
from furymesh.net.resolving import NO_HOST, resolved
from furymesh.wire.tracker import PEER_ID_SIZE, Announce, Answer, Refusal

STOP_SECONDS = 2.0  # for taking back at the end what was announced


class _Client(NamedTuple):
    """Who uses a tracker: for which shares, and who hears of their peers."""

    interests: Interests
    tell: Tell


class _Part(NamedTuple):
    """Shares to take part in."""

    announced: frozenset[DiscoveryTag]
    wanted: frozenset[DiscoveryTag]

    @classmethod
    def of(cls, interests: Interests) -> _Part:
        return cls(interests.announced, interests.wanted)


class Trackers:
    """What one process says to trackers. Made by `open_trackers`.

    Always true: a tracker is asked by one worker over each address family, however
    many sources name it, so it hears of what happens in the order in which it does.
    A worker lasts while a source uses it, and until what was announced is taken back.
    """

    def __init__(self, nursery: trio.Nursery, rng: Random) -> None:
        self._nursery = nursery
        self._workers: dict[tuple[Tracker, int], _Worker] = {}
        self.rng = rng
        # Who announces: at random, and anew each time, so that nothing links two runs.
        self.peer_id, self.key = os.urandom(PEER_ID_SIZE), rng.getrandbits(32)
        self.answered = trio.Event()  # set once one of them has answered

    def source(self, trackers: Iterable[Tracker]) -> TrackerSource:
        """A source of peers that asks these, within the block of `open_trackers`."""
        return TrackerSource(self, trackers)

    def workers(self, tracker: Tracker) -> list[_Worker]:
        """Those that ask a tracker: it lists the address that it was asked from, and so
        is asked from one of each family."""
        return [self._worker(tracker, family) for family in _families(tracker.address.host)]

    def trouble(self, tracker: Tracker) -> str | None:
        """What is wrong with a tracker, safe to show; nothing if it works over one family."""
        asking = (self._workers.get((tracker, f)) for f in _families(tracker.address.host))
        words = [worker.trouble for worker in asking if worker and worker.trouble is not None]
        if not words or not all(words):
            return None
        # A host that has no address of one kind is no news.
        return next((word for word in words if word != NO_HOST), NO_HOST)

    def end(self) -> None:
        """Let every worker say its last words; no source may be at work any more."""
        for worker in self._workers.values():
            worker.end()

    def _worker(self, tracker: Tracker, family: int) -> _Worker:
        key = (tracker, family)
        if key not in self._workers:
            self._workers[key] = _Worker(self, tracker, family)
            self._nursery.start_soon(self._work, key)
        return self._workers[key]

    async def _work(self, key: tuple[Tracker, int]) -> None:
        try:
            await self._workers[key].run()
        finally:
            del self._workers[key]


@asynccontextmanager
async def open_trackers(rng: Random | None = None) -> AsyncIterator[Trackers]:
    """Within the block trackers may be asked; then what was announced is taken back."""
    async with trio.open_nursery() as nursery:
        trackers = Trackers(nursery, rng or SystemRandom())
        try:
            yield trackers
        finally:
            trackers.end()


class TrackerSource:
    """Some trackers as a source of peers: `PeerSource` says what may be expected.

    What was announced is taken back soon after it ended, not before it has.
    """

    source: Final = Source.TRACKER

    def __init__(self, all_trackers: Trackers, trackers: Iterable[Tracker]) -> None:
        self._all = all_trackers
        self._trackers = tuple(dict.fromkeys(trackers))

    @property
    def troubles(self) -> tuple[str, ...]:
        """As `PeerSource.troubles` says: trackers without their paths."""
        return tuple(
            f"tracker {tracker.scheme}://{tracker.address}: {trouble}"
            for tracker in self._trackers
            if (trouble := self._all.trouble(tracker)) is not None
        )

    async def run(self, interests: Interests, tell: Tell) -> None:
        """Announce and look, until cancelled."""
        client = _Client(interests, tell)
        workers = [worker for tracker in self._trackers for worker in self._all.workers(tracker)]
        for worker in workers:
            worker.join(client)
        try:
            while True:
                await interests.changed()
                for worker in workers:
                    worker.look()
        finally:
            for worker in workers:
                worker.leave(client)


class _Worker:
    """One tracker, asked over IPv4 or over IPv6."""

    def __init__(self, all_trackers: Trackers, tracker: Tracker, family: int) -> None:
        self._all = all_trackers
        self._tracker = tracker
        self._family = family
        # To tell those that reach this process from near, and from the internet.
        self._port = self._public_port = 0
        self._clients: list[_Client] = []
        self._left: list[_Part] = []  # what those had who left since the last look
        self._news = trio.Event()
        self._ending = False
        self._scope = trio.CancelScope(shield=True)
        self._schedule = Schedule(all_trackers.rng)
        self._threads = trio.CapacityLimiter(1)  # looks up one name at a time
        self._ip: str | None = None  # asked for again when it does not answer
        self._asker = (
            UdpAsker(tracker, all_trackers.rng)
            if tracker.scheme == "udp"
            else HttpAsker(tracker, self._threads)
        )
        self.trouble: str | None = None  # "": there is none; None: not asked yet

    def join(self, client: _Client) -> None:
        """Ask for this one, too."""
        self._clients.append(client)
        self.look()

    def leave(self, client: _Client) -> None:
        """Ask for it no more."""
        self._clients.remove(client)
        self._left.append(_Part.of(client.interests))
        self.look()

    def look(self) -> None:
        """Interests have changed."""
        self._news.set()

    def end(self) -> None:
        """Take back what was announced; what is being said is not broken off for that."""
        self._ending = True
        self._scope.deadline = trio.current_time() + STOP_SECONDS
        self.look()

    async def run(self) -> None:
        """Work until there is nothing to do, or its end is wanted: not until cancelled."""
        with self._scope:
            while True:
                if self._news.is_set():
                    self._news = trio.Event()
                    self._follow()
                now = trio.current_time()
                turn = None if self._ending else self._schedule.next(now, self._is_linked)
                if turn is not None:
                    await self._take(turn)
                    continue
                self._asker.close()  # intervals are long, and sockets few
                if self._ending or (not self._clients and self._schedule.over):
                    break
                with trio.move_on_at(self._schedule.wake):
                    await self._news.wait()
            with suppress(UnavailableError, ProtocolError):
                for turn in self._schedule.farewells():
                    await self._ask(turn)
        self._asker.close()

    def _follow(self) -> None:
        left, self._left = self._left, []
        present = [_Part.of(client.interests) for client in self._clients]
        if left:  # what they completed is told before it ends
            self._take_part([*left, *present])
        self._take_part(present)
        if self._clients:
            here = self._clients[0].interests  # as all of this process are
            if self._public_port != here.public_port:
                self._schedule.renew(trio.current_time())
            self._port, self._public_port = here.port, here.public_port

    def _take_part(self, parts: Iterable[_Part]) -> None:
        announced: set[DiscoveryTag] = set()
        wanted: set[DiscoveryTag] = set()
        for part in parts:
            announced |= part.announced
            wanted |= part.wanted
        self._schedule.follow(announced, wanted, trio.current_time())

    def _is_linked(self, tag: DiscoveryTag) -> bool:
        return any(client.interests.peers(tag) for client in self._clients)

    async def _take(self, turn: Turn) -> None:
        try:
            told = await self._ask(turn)
        except (UnavailableError, ProtocolError) as error:
            self._ip = None
            self._schedule.failed(turn, trio.current_time())
            self.trouble = str(error)
            return
        self._schedule.answered(turn, told, trio.current_time())
        if isinstance(told, Refusal):
            self.trouble = f"it refuses: {told.reason}"
            return
        self.trouble = ""
        self._all.answered.set()
        for client in self._clients:
            if client.interests.is_wanted(turn.tag):
                for peer in told.peers:
                    client.tell(Sighting(turn.tag, peer, teller=self._ip or ""))

    async def _ask(self, turn: Turn) -> Answer | Refusal:
        if self._ip is None:
            found = await resolved(self._tracker.address, self._threads, self._family)
            self._ip = found[0]
        announce = Announce(
            info_hash(turn.tag),
            self._all.peer_id,
            self._all.key,
            # Those whom it tells reach this process from where it does.
            self._public_port if may_be_mapped(self._ip) else self._port,
            turn.wanted,
            turn.event,
            turn.tracker_id,
        )
        return await self._asker.ask(self._ip, announce)


def _families(host: str) -> Sequence[int]:
    try:
        version = ipaddress.ip_address(host).version
    except ValueError:
        return (socket.AF_INET, socket.AF_INET6)
    return (socket.AF_INET if version == 4 else socket.AF_INET6,)
