"""Finding peers on the local network: what is sent, when, and what is believed."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from itertools import pairwise
from random import Random

import pytest
import trio
import trio.testing

from furymesh.core.ids import DiscoveryTag, NodeId
from furymesh.discovery import lan as lan_module
from furymesh.discovery.lan import HEARD_OF_ONE, MAX_MACHINES, MAX_PORTS, PORT_SECONDS, Lan
from furymesh.discovery.source import Interests, Sighting
from furymesh.net import interfaces, multicast
from furymesh.net.multicast import GROUP_V4, IP_MULTICAST_ALL, PORT
from furymesh.wire.datagrams import (
    MAX_TAGS,
    Discover,
    Offer,
    Service,
    decode,
    encode_discover,
    encode_offer,
)
from tests.waiting import stays, until

LISTENING = 40_404
SETTLED = 0.2  # seconds in which an answer comes, if one does


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers of one node need not be spread."""
    monkeypatch.setattr(lan_module, "ANSWER_DELAY", 0.02)


class Stranger:
    """Somebody on this machine with a socket, at 127.0.0.1 or another such address."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.setblocking(False)
        self.sock.bind((host, 0))
        self.node_id, self.instance = NodeId(os.urandom(32)), os.urandom(8)
        self._heard: list[tuple[bytes, tuple[str, int]]] = []
        loopback = struct.pack("=4s4si", bytes(4), bytes(4), socket.if_nametoindex("lo"))
        self.sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, loopback)

    def ask(self, *tags: DiscoveryTag, service: Service = Service.SWARM) -> bytes:
        raw = encode_discover(Discover(service, self.node_id, self.instance, tags))
        self.sock.sendto(raw, (GROUP_V4, PORT))
        return raw

    def heard(self) -> list[tuple[bytes, tuple[str, int]]]:
        """All that came so far."""
        with suppress(BlockingIOError):
            while True:
                self._heard.append(self.sock.recvfrom(2000))
        return self._heard

    def offer(self, to: tuple[str, int], *tags: DiscoveryTag, port: int = 1000) -> None:
        raw = encode_offer(Offer(Service.SWARM, self.node_id, self.instance, port, tags), 2000)
        self.sock.sendto(raw, to)


@pytest.fixture
def stranger() -> Iterator[Stranger]:
    someone = Stranger()
    with someone.sock:
        yield someone


@contextmanager
def listening() -> Iterator[socket.socket]:
    """A socket that hears what is asked on the loopback interface."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.setsockopt(socket.IPPROTO_IP, IP_MULTICAST_ALL, 0)
        sock.bind((GROUP_V4, PORT))
        index = socket.if_nametoindex("lo")
        group = struct.pack("=4s4si", socket.inet_aton(GROUP_V4), bytes(4), index)
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group)
        yield sock


async def questions(
    sock: socket.socket, about: DiscoveryTag, count: int = 1
) -> list[tuple[str, int]]:
    """Who asks about a share, the next so many times."""
    found: list[tuple[str, int]] = []
    with trio.fail_after(10):
        while len(found) < count:
            await trio.lowlevel.wait_readable(sock)
            raw, sender = sock.recvfrom(2000)
            message = decode(raw)
            if isinstance(message, Discover) and about in message.tags:
                found.append(sender)
    return found


class Running:
    def __init__(self) -> None:
        self.interests = Interests(LISTENING)
        self.node_id, self.instance = NodeId(os.urandom(32)), os.urandom(8)
        self.seen: list[Sighting] = []
        self.lan = Lan(self.node_id, self.instance, ["0.0.0.0"], Random(1))


@asynccontextmanager
async def running(*listening: str) -> AsyncIterator[Running]:
    it = Running()
    if listening:
        it.lan = Lan(it.node_id, it.instance, listening, Random(1))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(it.lan.run, it.interests, it.seen.append)
        await trio.testing.wait_all_tasks_blocked()
        yield it
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def asking(tag: DiscoveryTag) -> AsyncIterator[tuple[Running, tuple[str, int]]]:
    """A node that wants a share, and where it hears answers: whence its questions come."""
    with listening() as sock:
        async with running() as node:
            node.interests.add(tag, wanted=True)
            ((_, port),) = await questions(sock, tag)
            yield node, ("127.0.0.1", port)


def fresh() -> DiscoveryTag:
    return DiscoveryTag(os.urandom(32))


async def test_an_answer_names_what_was_asked_and_nothing_else(stranger: Stranger) -> None:
    one, other, unknown = fresh(), fresh(), fresh()
    async with running() as node:
        for tag in (one, other):
            node.interests.add(tag, wanted=False)
        asked = stranger.ask(one, unknown)
        await until(stranger.heard)
        await stays(lambda: len(stranger.heard()) == 1, SETTLED)
        ((raw, _),) = stranger.heard()
    assert decode(raw) == Offer(Service.SWARM, node.node_id, node.instance, LISTENING, (one,))
    assert len(raw) <= len(asked)


async def test_what_is_not_here_is_not_answered(stranger: Stranger) -> None:
    async with running() as node:
        node.interests.add(fresh(), wanted=True)
        stranger.ask(fresh())
        stranger.sock.sendto(b'{"type":"DISCOVER"}', (GROUP_V4, PORT))
        stranger.sock.sendto(os.urandom(1000), (GROUP_V4, PORT))
        await stays(lambda: not stranger.heard(), SETTLED)


async def test_the_answer_comes_from_where_links_are_accepted(stranger: Stranger) -> None:
    tag = fresh()
    async with running("127.0.0.5") as node:
        node.interests.add(tag, wanted=False)
        stranger.ask(tag)
        await until(stranger.heard)
        ((_, sender),) = stranger.heard()
    assert sender[0] == "127.0.0.5"


async def test_one_who_asks_without_end_gets_few_answers(stranger: Stranger) -> None:
    tag = fresh()
    async with running() as node:
        node.interests.add(tag, wanted=False)
        for _ in range(20):
            for _ in range(25):
                stranger.ask(tag)
            await trio.testing.wait_all_tasks_blocked()
        await until(stranger.heard)
        await stays(lambda: len(stranger.heard()) <= 3 * HEARD_OF_ONE, SETTLED)


async def test_questions_are_repeated_ever_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lan_module, "FIRST_PAUSE", 0.2)
    tag = fresh()
    with listening() as sock:
        async with running() as node:
            node.interests.add(tag, wanted=True)
            times = []
            for _ in range(4):
                await questions(sock, tag)
                times.append(trio.current_time())
    pauses = [after - before for before, after in pairwise(times)]
    assert pauses == sorted(pauses)
    assert pauses[0] < 0.5 < pauses[-1]


async def test_who_has_many_peers_asks_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lan_module, "LONG_PAUSE", 0.2)
    for peers, least, most in ((0, 0.1, 0.6), (1, 0.6, 5.0)):
        tag = fresh()
        with listening() as sock:
            async with running() as node:
                node.interests.peers = lambda tag, count=peers: count  # type: ignore[misc]
                node.interests.add(tag, wanted=True)
                await questions(sock, tag, 2)  # the first pause is the same for all
                begun = trio.current_time()
                await questions(sock, tag)
                assert least < trio.current_time() - begun < most


async def test_what_becomes_wanted_is_asked_for_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lan_module, "FIRST_PAUSE", 60.0)
    first, second = fresh(), fresh()
    with listening() as sock:
        async with running() as node:
            for tag in (first, second):
                node.interests.add(tag, wanted=True)
                await questions(sock, tag)


async def test_many_shares_share_datagrams_and_all_have_their_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lan_module, "LONG_PAUSE", 0.2)
    wanted = {fresh() for _ in range(10 * MAX_TAGS)}
    asked: set[DiscoveryTag] = set()
    with listening() as sock:
        async with running() as node:
            for tag in wanted:
                node.interests.add(tag, wanted=True)
            with trio.fail_after(10):
                while asked < wanted:
                    await trio.lowlevel.wait_readable(sock)
                    message = decode(sock.recv(2000))
                    if message.node_id == node.node_id:
                        asked.update(message.tags)


async def test_what_was_not_asked_for_is_not_believed(stranger: Stranger) -> None:
    tag = fresh()
    async with asking(tag) as (node, there):
        stranger.offer(there, fresh())
        stranger.offer(there, tag, fresh())
        await until(lambda: node.seen)
    (seen,) = node.seen
    assert (seen.tag, seen.address.host, seen.address.port) == (tag, "127.0.0.1", 1000)
    assert seen.address.node_id is None
    assert seen.process == (stranger.node_id, stranger.instance)


async def test_one_machine_names_few_ports(stranger: Stranger) -> None:
    tag = fresh()
    async with asking(tag) as (node, there):
        for port in range(1000, 1000 + HEARD_OF_ONE):
            stranger.offer(there, tag, port=port)
        await until(lambda: len(node.seen) == MAX_PORTS)
        await stays(lambda: len(node.seen) == MAX_PORTS, SETTLED)
    assert {seen.address.port for seen in node.seen} == set(range(1000, 1000 + MAX_PORTS))


async def test_no_more_is_read_of_one_machine_than_its_share(stranger: Stranger) -> None:
    tag = fresh()
    async with asking(tag) as (node, there):
        for _ in range(10):
            for _ in range(30):
                stranger.offer(there, tag)
            await trio.testing.wait_all_tasks_blocked()
        await until(lambda: len(node.seen) >= HEARD_OF_ONE)
        await stays(lambda: len(node.seen) <= 3 * HEARD_OF_ONE, SETTLED)


async def test_who_accepts_no_links_does_not_answer(stranger: Stranger) -> None:
    tag = fresh()
    async with running() as node:
        node.interests.port = 0
        node.interests.add(tag, wanted=True)
        stranger.ask(tag)
        await stays(lambda: not stranger.heard(), SETTLED)


async def test_when_nobody_elsewhere_can_be_asked_it_says_why(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loopback = [one for one in interfaces.interfaces() if one.name == "lo"]
    monkeypatch.setattr(multicast, "interfaces", lambda: loopback)
    tag = fresh()
    async with asking(tag) as (node, _):
        assert node.lan.troubles == ("local network: there is no interface but loopback",)


async def test_machines_that_lied_are_forgotten_for_others() -> None:
    lan = Running().lan
    for number in range(3 * MAX_MACHINES):
        assert lan._is_believed(f"10.1.{number >> 8}.{number & 255}", 1000)
    assert len(lan._ports) == MAX_MACHINES


async def test_a_machine_may_name_other_ports_later(
    autojump_clock: trio.testing.MockClock,
) -> None:
    lan = Running().lan
    for _ in range(3):
        believed = [lan._is_believed("10.1.2.3", port) for port in range(1000, 1000 + MAX_PORTS)]
        assert all(believed)
        assert not lan._is_believed("10.1.2.3", 999)
        autojump_clock.jump(PORT_SECONDS + 1)


async def test_a_flood_raises_nothing() -> None:
    tag, rng = fresh(), Random(3)
    async with asking(tag) as (node, there):
        for number in range(2 * MAX_MACHINES):
            liar = Stranger(f"127.1.{number >> 8}.{number & 255}")
            with liar.sock:
                liar.offer(there, tag)
                liar.sock.sendto(rng.randbytes(rng.randrange(1400)), there)
            if number % 32 == 0:
                await trio.testing.wait_all_tasks_blocked()
        await until(lambda: node.seen)
