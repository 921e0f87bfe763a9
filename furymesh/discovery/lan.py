"""Peers on the local network: questions by multicast, answers to who asked.

Who wants shares asks for their discovery tags; who takes part in them answers
with the port where it accepts links, and says nothing by itself. Questions are
repeated with growing pauses, the longer the more peers are linked, and at once
when another share is wanted or an interface has come.

Always true: nothing is answered but questions for shares that are announced, at
most ANSWERS a second, and no sender gets this node to hold or do more than the
limits here allow. docs/discovery.md describes the datagrams.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from random import Random

import trio

from furymesh.core.errors import ProtocolError
from furymesh.core.gate import Gate
from furymesh.core.ids import DiscoveryTag, NodeId
from furymesh.core.link import Address
from furymesh.discovery.book import Source
from furymesh.discovery.source import Interests, Sighting, Tell
from furymesh.net.multicast import Multicast, Sender
from furymesh.wire.datagrams import (
    MAX_TAGS,
    Discover,
    Offer,
    Service,
    decode,
    encode_discover,
    encode_offer,
)

FIRST_PAUSE = 0.5  # seconds after a first question: a datagram may be lost
LONG_PAUSE = 8.0  # who began to take part is found within it
MAX_PAUSE = 32.0  # where as many peers are linked: about one answer a second is enough
# While datagrams have to be dropped, the answer that matters may be among them.
CROWDED_PAUSE = 2.0
LEAST_PAUSE = 0.1  # between two rounds, whatever happens
LOOK_SECONDS = 2.0  # between two looks for interfaces
MAX_QUESTIONS = 8  # datagrams of one round; other shares have their turn in the next
ANSWER_DELAY = 0.1  # seconds at most: many that answer do not do so at once
MAX_WAITING = 64  # answers on their way
ANSWERS = 50  # a second
HEARD_OF_ONE = 20  # datagrams a second that are read, of one machine
HEARD = 500  # of all: reading them takes about one per cent of a processor
MAX_PORTS = 8  # of one machine that are believed within PORT_SECONDS: few run more nodes
PORT_SECONDS = 60.0
MAX_MACHINES = 1024  # whose ports are remembered, the latest


class Lan:
    """Finds peers on the local network, and lets itself be found there."""

    source = Source.LAN

    def __init__(
        self, node_id: NodeId, instance: bytes, listening: Sequence[str], rng: Random
    ) -> None:
        """`listening` are the IP addresses to which this node's listeners are bound."""
        self._me = (node_id, instance)
        self._listening = tuple(listening)
        self._rng = rng
        self._heard = Gate(HEARD_OF_ONE, HEARD)
        self._answers = Gate(HEARD_OF_ONE, ANSWERS)
        self._ports: dict[str, tuple[float, set[int]]] = {}  # by machine, since when
        self._news = trio.Event()  # a share is wanted, or an interface has come
        self._interface_came = False
        self._waiting = 0
        self._trouble = ""

    @property
    def troubles(self) -> tuple[str, ...]:
        """As `PeerSource.troubles` says, of the last question."""
        return (f"local network: {self._trouble}",) if self._trouble else ()

    async def run(self, interests: Interests, tell: Tell) -> None:
        """Look and answer until cancelled; raises EnvironmentFault without any socket."""
        with Multicast(self._listening) as segments:
            async with trio.open_nursery() as nursery:

                def question(raw: memoryview, sender: Sender) -> None:
                    self._question(raw, sender, interests, segments, nursery)

                def answer(raw: memoryview, sender: Sender) -> None:
                    self._answer(raw, sender, interests, tell)

                nursery.start_soon(segments.listen, question, answer)
                nursery.start_soon(self._watch_interests, interests)
                nursery.start_soon(self._watch_interfaces, segments)
                await self._ask(interests, segments)

    # --- asking -----------------------------------------------------------------------

    async def _ask(self, interests: Interests, segments: Multicast) -> None:
        asked: frozenset[DiscoveryTag] = frozenset()
        pause, last, due = FIRST_PAUSE, -math.inf, math.inf
        refused = 0
        while True:
            self._news = trio.Event()
            now, wanted = trio.current_time(), interests.wanted
            asked &= wanted
            if wanted - asked or (wanted and self._interface_came):
                pause, due = FIRST_PAUSE, last + LEAST_PAUSE
            self._interface_came = False
            if wanted and now >= due:
                for question in self._questions(wanted, wanted - asked):
                    self._trouble = segments.ask(question)
                asked, last = wanted, now
                due = now + pause * self._rng.uniform(0.75, 1.25)
                # Not the answers count, which anybody can make up, but links.
                peers = min(map(interests.peers, wanted))
                longest = max(LONG_PAUSE, min(peers, MAX_PAUSE))
                if self._heard.refused > refused and not peers:
                    longest = CROWDED_PAUSE
                refused = self._heard.refused
                pause = min(2 * pause, longest)
            with trio.move_on_at(due if wanted else math.inf):
                await self._news.wait()

    def _questions(
        self, wanted: frozenset[DiscoveryTag], new: frozenset[DiscoveryTag]
    ) -> list[bytes]:
        """The datagrams of one round: first for what is new, then for some of the rest."""
        rest = sorted(wanted - new)
        self._rng.shuffle(rest)
        tags = [*new, *rest][: MAX_QUESTIONS * MAX_TAGS]
        return [
            encode_discover(Discover(Service.SWARM, *self._me, tuple(tags[at : at + MAX_TAGS])))
            for at in range(0, len(tags), MAX_TAGS)
        ]

    async def _watch_interests(self, interests: Interests) -> None:
        while True:
            await interests.changed()
            self._news.set()

    async def _watch_interfaces(self, segments: Multicast) -> None:
        while True:
            await trio.sleep(LOOK_SECONDS)
            if segments.look():
                self._interface_came = True
                self._news.set()

    # --- what is heard ----------------------------------------------------------------

    def _read(self, raw: memoryview, sender: Sender) -> Discover | Offer | None:
        """A message for the swarm from another process, if this is one."""
        if not self._heard.admits(sender[0], trio.current_time()):
            return None
        try:
            message = decode(raw)
        except ProtocolError:
            return None
        mine = (message.node_id, message.instance) == self._me
        return None if mine or message.service is not Service.SWARM else message

    def _question(
        self,
        raw: memoryview,
        sender: Sender,
        interests: Interests,
        segments: Multicast,
        nursery: trio.Nursery,
    ) -> None:
        room = len(raw)
        message = self._read(raw, sender)
        if not isinstance(message, Discover) or self._waiting >= MAX_WAITING:
            return
        if any(map(interests.is_announced, message.tags)) and self._answers.admits(
            sender[0], trio.current_time()
        ):
            self._waiting += 1
            nursery.start_soon(self._reply, message, room, sender, interests, segments)

    async def _reply(
        self,
        question: Discover,
        room: int,
        sender: Sender,
        interests: Interests,
        segments: Multicast,
    ) -> None:
        await trio.sleep(self._rng.uniform(0, ANSWER_DELAY))
        self._waiting -= 1
        tags = tuple(filter(interests.is_announced, question.tags))
        offer = Offer(Service.SWARM, *self._me, interests.port, tags)
        if tags and (raw := encode_offer(offer, room)):
            segments.answer(raw, sender)

    def _answer(self, raw: memoryview, sender: Sender, interests: Interests, tell: Tell) -> None:
        message = self._read(raw, sender)
        if not isinstance(message, Offer) or not self._is_believed(sender[0], message.port):
            return
        address, process = Address(sender[0], message.port), (message.node_id, message.instance)
        for tag in message.tags:
            if interests.is_wanted(tag):
                tell(Sighting(tag, address, teller=sender[0], process=process))

    def _is_believed(self, host: str, port: int) -> bool:
        """Whether a machine has not named too many ports of late."""
        now = trio.current_time()
        since, ports = self._ports.pop(host, (now, set()))
        if now - since > PORT_SECONDS:
            since, ports = now, set()
        self._ports[host] = since, ports
        if len(self._ports) > MAX_MACHINES:
            del self._ports[next(iter(self._ports))]
        if len(ports) >= MAX_PORTS and port not in ports:
            return False
        ports.add(port)
        return True
