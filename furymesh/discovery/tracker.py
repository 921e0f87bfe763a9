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
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from random import Random, SystemRandom

import trio

from furymesh.core.errors import ProtocolError, UnavailableError
from furymesh.core.ids import info_hash
from furymesh.core.link import Tracker
from furymesh.discovery.announcing import Schedule, Turn
from furymesh.discovery.book import Source
from furymesh.discovery.source import Interests, Sighting, Tell
from furymesh.discovery.tracker_http import HttpAsker
from furymesh.discovery.tracker_places import resolve
from furymesh.discovery.tracker_udp import UdpAsker
from furymesh.net.addresses import may_mean
from furymesh.wire.tracker import PEER_ID_SIZE, Announce, Answer, Event, Refusal

STOP_SECONDS = 2.0  # for taking back at the end what was announced

Note = Callable[[int, str | None], None]  # a family, and what is wrong with it


@dataclass(frozen=True, slots=True)
class _Self:
    """Who announces: at random, and anew each time, so that nothing links two runs."""

    peer_id: bytes
    key: int
    port: int


class TrackerSource:
    """Some trackers, each asked by a task or two: `PeerSource` says what may be expected."""

    source = Source.TRACKER

    def __init__(self, trackers: Iterable[Tracker], rng: Random | None = None) -> None:
        self._trackers = tuple(dict.fromkeys(trackers))
        self._rng = rng or SystemRandom()
        # A tracker without its path, and what is wrong with it; safe to show. One that
        # works over IPv4 or IPv6 has no entry.
        self.troubles: dict[str, str] = {}
        self.answered = trio.Event()  # set once one of them has answered

    async def run(self, interests: Interests, tell: Tell) -> None:
        """Announce and look, until cancelled; then what was announced is taken back."""
        me = _Self(os.urandom(PEER_ID_SIZE), self._rng.getrandbits(32), interests.port)
        self.troubles.clear()
        async with trio.open_nursery() as nursery:
            for tracker in self._trackers:
                note = self._noter(tracker)
                # A tracker lists the address that it was asked from: one of each family.
                for family in _families(tracker.address.host):
                    work = _Work(tracker, family, me, tell, note, self._rng)
                    nursery.start_soon(work.run, interests)

    def _noter(self, tracker: Tracker) -> Note:
        name = f"{tracker.scheme}://{tracker.address}"
        works: dict[int, bool] = {}

        def note(family: int, trouble: str | None) -> None:
            works[family] = trouble is None
            if trouble is None:
                self.answered.set()
            if any(works.values()):
                self.troubles.pop(name, None)
            elif trouble is not None:
                self.troubles[name] = trouble

        return note


class _Work:
    """One tracker, asked over IPv4 or over IPv6."""

    def __init__(
        self, tracker: Tracker, family: int, me: _Self, tell: Tell, note: Note, rng: Random
    ) -> None:
        self._tracker = tracker
        self._family = family
        self._me = me
        self._tell = tell
        self._note = note
        self._schedule = Schedule(rng)
        self._ip: str | None = None  # asked for again when it does not answer
        over_udp = tracker.scheme == "udp"
        self._asker = UdpAsker(tracker, rng) if over_udp else HttpAsker(tracker)

    async def run(self, interests: Interests) -> None:
        try:
            while True:
                self._schedule.follow(interests.announced, interests.wanted, trio.current_time())
                turn = self._schedule.next(trio.current_time())
                if turn is not None:
                    await self._take(turn)
                    continue
                with trio.move_on_at(self._schedule.wake):
                    await interests.changed()
        finally:
            with trio.move_on_after(STOP_SECONDS, shield=True):
                for turn in self._schedule.farewells():
                    await self._take(turn)
            self._asker.close()

    async def _take(self, turn: Turn) -> None:
        try:
            told = await self._ask(turn)
        except (UnavailableError, ProtocolError) as error:
            self._ip = None
            self._schedule.failed(turn, trio.current_time())
            self._note(self._family, str(error))
            return
        self._schedule.answered(turn, told, trio.current_time())
        trouble = f"it refuses: {told.reason}" if isinstance(told, Refusal) else None
        self._note(self._family, trouble)
        if isinstance(told, Answer) and turn.wanted and turn.event is not Event.STOPPED:
            for peer in told.peers:
                if may_mean(peer.host, self._ip or ""):
                    self._tell(Sighting(turn.tag, peer, teller=self._ip or ""))

    async def _ask(self, turn: Turn) -> Answer | Refusal:
        if self._ip is None:
            self._ip = await resolve(self._tracker.address, self._family)
        announce = Announce(
            info_hash(turn.tag),
            self._me.peer_id,
            self._me.key,
            self._me.port,
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
