"""Peers found through a DHT of real nodes on loopback."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random

import pytest
import trio
import trio.testing
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from furymesh.core import node_record
from furymesh.core.ids import DiscoveryTag, info_hash
from furymesh.core.link import Address
from furymesh.discovery import dht_entrances, dht_source
from furymesh.discovery.dht import Dht, DhtSettings, open_dht
from furymesh.discovery.dht_source import DhtSource
from furymesh.discovery.source import Interests, Mapping, Sighting
from furymesh.net.identity import Identity
from tests.dht import DhtNetwork, announced
from tests.waiting import stays, until

TAG, OTHER_TAG = DiscoveryTag(bytes(range(32))), DiscoveryTag(bytes(range(1, 33)))
SEED_HOST, PEER_HOST, OTHER_HOST = "127.0.0.20", "127.0.0.21", "127.0.0.22"
MOVED_HOST = "127.0.0.23"
PORT, OTHER_PORT = 7654, 7655


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dht_source, "FIRST_PAUSE", 0.2)
    monkeypatch.setattr(dht_source, "LAST_PAUSE", 0.4)
    monkeypatch.setattr(dht_source, "BURST", 50)
    monkeypatch.setattr(dht_source, "RECORD_LOOK_SECONDS", 0.2)


class Node:
    """A source at work, what interests it and what it told."""

    def __init__(self, port: int) -> None:
        self.interests = Interests(port)
        self.told: list[Sighting] = []

    def addresses(self, tag: DiscoveryTag = TAG) -> set[str]:
        return {str(sighting.address) for sighting in self.told if sighting.tag == tag}


@asynccontextmanager
async def running(
    network: DhtNetwork,
    host: str,
    *,
    port: int = PORT,
    entrance: int = 0,
    identity: Identity | None = None,
    settings: DhtSettings | None = None,
    hosts: list[str] | None = None,
) -> AsyncIterator[Node]:
    node = Node(port)
    settings = settings or DhtSettings((network.entrances[entrance],), host)
    source = DhtSource(settings, lambda: hosts or [host], Random(host), identity=identity)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(source.run, node.interests, node.told.append)
        yield node
        nursery.cancel_scope.cancel()


def identity() -> Identity:
    return Identity(Ed25519PrivateKey.generate())


@asynccontextmanager
async def stranger(network: DhtNetwork) -> AsyncIterator[Dht]:
    """A node that does as it likes."""
    async with open_dht(DhtSettings((network.entrances[-1],), OTHER_HOST)) as dht:
        await dht.joined.wait()
        yield dht


async def test_who_announces_a_share_is_found_by_who_wants_it(dht_nodes: DhtNetwork) -> None:
    async with running(dht_nodes, SEED_HOST) as seed, running(dht_nodes, PEER_HOST) as peer:
        seed.interests.add(TAG, wanted=False)
        peer.interests.add(TAG, wanted=True)
        await until(lambda: peer.addresses() == {f"{SEED_HOST}:{PORT}"}, 10)
        assert not seed.told  # it has no use for peers


async def test_who_is_announced_later_is_found_all_the_same(dht_nodes: DhtNetwork) -> None:
    async with running(dht_nodes, PEER_HOST) as peer, stranger(dht_nodes) as dht:
        peer.interests.add(TAG, wanted=True)
        peer.interests.add(OTHER_TAG, wanted=True)
        dht.announce(info_hash(OTHER_TAG), PORT)
        await until(lambda: peer.addresses(OTHER_TAG), 10)
        assert not peer.addresses()  # itself above all
        async with running(dht_nodes, SEED_HOST) as seed:
            seed.interests.add(TAG, wanted=False)
            await until(lambda: peer.addresses() == {f"{SEED_HOST}:{PORT}"}, 10)


async def test_what_is_wanted_no_more_is_not_told_of(dht_nodes: DhtNetwork) -> None:
    async with running(dht_nodes, PEER_HOST) as peer, stranger(dht_nodes) as dht:
        for tag in (TAG, OTHER_TAG):
            peer.interests.add(tag, wanted=True)
            dht.announce(info_hash(tag), PORT)
        await until(lambda: peer.addresses() and peer.addresses(OTHER_TAG), 10)
        peer.interests.add(TAG, wanted=False)
        await trio.testing.wait_all_tasks_blocked()
        peer.told.clear()
        await until(lambda: len(peer.told) >= 3, 10)  # in as many lookups
        assert not peer.addresses()


@pytest.mark.parametrize("linked", [0, 1])
async def test_who_was_told_only_of_the_dead_looks_on(
    dht_nodes: DhtNetwork, monkeypatch: pytest.MonkeyPatch, linked: int
) -> None:
    monkeypatch.setattr(dht_source, "LAST_PAUSE", 100.0)
    lookups: list[bytes] = []
    look_up = Dht.get_peers

    def counted(dht: Dht, tag: bytes) -> None:
        lookups.append(tag)
        look_up(dht, tag)

    monkeypatch.setattr(Dht, "get_peers", counted)
    async with running(dht_nodes, PEER_HOST) as peer, stranger(dht_nodes) as dht:
        peer.interests.peers = lambda tag: linked
        dht.announce(info_hash(TAG), 7001)
        peer.interests.add(TAG, wanted=True)
        if not linked:
            await until(lambda: peer.addresses() == {f"{OTHER_HOST}:7001"}, 10)
            dht.announce(info_hash(TAG), 7002)
            await until(lambda: f"{OTHER_HOST}:7002" in peer.addresses(), 10)
        else:
            twice = 2 * [info_hash(TAG)]  # a link is seen after the first pause
            await until(lambda: lookups == twice, 10)
            await stays(lambda: lookups == twice, 4 * dht_source.FIRST_PAUSE)


async def test_who_accepts_no_links_announces_nothing(dht_nodes: DhtNetwork) -> None:
    async with (
        running(dht_nodes, SEED_HOST, port=0) as mute,
        running(dht_nodes, PEER_HOST) as peer,
    ):
        mute.interests.add(TAG, wanted=True)
        peer.interests.add(TAG, wanted=True)
        await until(lambda: mute.addresses() == {f"{PEER_HOST}:{PORT}"}, 10)
        assert not peer.told


async def test_a_lookup_tells_of_so_many_and_of_nobody_twice(
    dht_nodes: DhtNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dht_source, "MAX_TOLD", 3)
    monkeypatch.setattr(dht_source, "LAST_PAUSE", 100.0)
    monkeypatch.setattr(dht_source, "FIRST_PAUSE", 100.0)
    async with running(dht_nodes, PEER_HOST) as peer, stranger(dht_nodes) as dht:
        for port in range(7001, 7007):
            dht.announce(info_hash(TAG), port)
        await announced(dht, info_hash(TAG), 6)
        peer.interests.add(TAG, wanted=True)
        await until(lambda: len(peer.told) >= 3, 10)
        await stays(lambda: len(peer.told) == len(peer.addresses()) == 3, 0.2)


async def test_shares_are_announced_again_when_this_machine_has_other_addresses(
    dht_nodes: DhtNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dht_source, "ADDRESS_SECONDS", 0.1)
    hosts = [SEED_HOST]
    async with (
        running(dht_nodes, SEED_HOST, hosts=hosts) as seed,
        running(dht_nodes, PEER_HOST, entrance=1) as peer,
    ):
        seed.interests.add(TAG, wanted=False)
        peer.interests.add(TAG, wanted=True)
        await until(lambda: peer.addresses() == {f"{SEED_HOST}:{PORT}"}, 10)
        seed.interests.port = OTHER_PORT  # tells this announce from the one before
        hosts.append(MOVED_HOST)
        await until(lambda: f"{SEED_HOST}:{OTHER_PORT}" in peer.addresses(), 10)


@pytest.mark.slow
async def test_who_has_another_address_is_announced_there(
    dht_nodes: DhtNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The node at the address before is gone, too: the others take 15 s to give that up."""
    monkeypatch.setattr(dht_source, "ADDRESS_SECONDS", 0.1)
    hosts = [SEED_HOST]
    monkeypatch.setattr(dht_entrances, "address_towards", lambda host, port: hosts[0])
    anywhere = DhtSettings((dht_nodes.entrances[0],))
    async with (
        running(dht_nodes, SEED_HOST, settings=anywhere, hosts=hosts) as seed,
        running(dht_nodes, PEER_HOST, entrance=1) as peer,
    ):
        seed.interests.add(TAG, wanted=False)
        peer.interests.add(TAG, wanted=True)
        await until(lambda: peer.addresses() == {f"{SEED_HOST}:{PORT}"}, 10)
        hosts[0] = MOVED_HOST
        await until(lambda: f"{MOVED_HOST}:{PORT}" in peer.addresses(), 60)


async def test_a_node_is_found_by_its_record_wherever_it_is_now(dht_nodes: DhtNetwork) -> None:
    me = identity()
    hosts = [SEED_HOST]
    async with (
        running(dht_nodes, PEER_HOST, entrance=1) as peer,
        running(dht_nodes, SEED_HOST, identity=me, hosts=hosts),
    ):
        peer.interests.add(TAG, wanted=True)
        peer.interests.seek(TAG, [me.node_id])
        await until(lambda: peer.addresses() == {str(Address(SEED_HOST, PORT, me.node_id))}, 10)
        hosts[0] = MOVED_HOST
        moved = str(Address(MOVED_HOST, PORT, me.node_id))
        await until(lambda: moved in peer.addresses(), 10)


async def test_where_a_router_lets_others_in_is_in_the_record(dht_nodes: DhtNetwork) -> None:
    me = identity()
    async with (
        running(dht_nodes, PEER_HOST, entrance=1) as peer,
        running(dht_nodes, SEED_HOST, identity=me) as seed,
    ):
        seed.interests.mapping = Mapping(40001, "1.2.3.4")
        peer.interests.add(TAG, wanted=True)
        peer.interests.seek(TAG, [me.node_id])
        mapped = str(Address("1.2.3.4", 40001, me.node_id))
        await until(lambda: mapped in peer.addresses(), 10)
        assert str(Address(SEED_HOST, PORT, me.node_id)) in peer.addresses()


@pytest.mark.slow
async def test_a_node_that_comes_back_at_another_port_is_found(dht_nodes: DhtNetwork) -> None:
    """Its node of the DHT has died, too: the others take 15 s to give that up."""
    me = identity()
    async with running(dht_nodes, PEER_HOST, entrance=1) as peer:
        peer.interests.add(TAG, wanted=True)
        peer.interests.seek(TAG, [me.node_id])
        async with running(dht_nodes, SEED_HOST, port=7001, identity=me):
            before = str(Address(SEED_HOST, 7001, me.node_id))
            await until(lambda: before in peer.addresses(), 10)
        async with running(dht_nodes, SEED_HOST, port=7002, identity=me):
            after = str(Address(SEED_HOST, 7002, me.node_id))
            await until(lambda: after in peer.addresses(), 60)


async def test_a_record_is_looked_up_only_while_its_share_is_wanted() -> None:
    interests = Interests(PORT)
    me = identity().node_id
    interests.add(TAG, wanted=True)
    interests.seek(TAG, [me])
    assert interests.sought == {(TAG, me)}
    interests.add(TAG, wanted=False)
    assert not interests.sought
    interests.remove(TAG)
    interests.add(TAG, wanted=True)
    assert not interests.sought


async def test_garbage_under_a_node_id_is_no_address(dht_nodes: DhtNetwork) -> None:
    liar, honest = identity(), identity()
    async with running(dht_nodes, PEER_HOST) as peer, stranger(dht_nodes) as dht:
        assert await dht.items.put(liar, node_record.SALT, os.urandom(500))
        record = node_record.encode([Address("127.0.0.99", PORT)])
        assert await dht.items.put(honest, node_record.SALT, record)
        peer.interests.add(TAG, wanted=True)
        peer.interests.seek(TAG, [liar.node_id, honest.node_id])
        expected = str(Address("127.0.0.99", PORT, honest.node_id))
        await until(lambda: peer.addresses() == {expected}, 10)


async def test_nobody_but_the_node_moves_its_record(dht_nodes: DhtNetwork) -> None:
    """A record under another key is another record, whatever it says."""
    me, liar = identity(), identity()
    record = node_record.encode([Address(SEED_HOST, PORT)])
    async with stranger(dht_nodes) as dht:
        assert await dht.items.put(me, node_record.SALT, record)
        forged = Identity(liar.private)
        object.__setattr__(forged, "node_id", me.node_id)  # signs with a key that does not fit
        await dht.items.put(forged, node_record.SALT, b"1 127.0.0.66:1", 1.0)
        async with open_dht(DhtSettings((dht_nodes.entrances[0],), PEER_HOST)) as reader:
            await reader.joined.wait()
            assert await reader.items.get(me.node_id, node_record.SALT) == record


async def test_lookups_do_not_wait_for_a_thousand_announces(
    dht_nodes: DhtNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dht_source, "BURST", 1)
    async with running(dht_nodes, PEER_HOST) as peer, stranger(dht_nodes) as dht:
        dht.announce(info_hash(TAG), PORT)
        for number in range(1000):
            peer.interests.add(DiscoveryTag(number.to_bytes(32)), wanted=False)
        peer.interests.add(TAG, wanted=True)
        await until(lambda: peer.addresses() == {f"{OTHER_HOST}:{PORT}"}, 10)


async def test_a_whole_run_remembers_the_nodes_it_met(
    dht_nodes: DhtNetwork, tmp_path: Path
) -> None:
    state = tmp_path / "dht.state"
    first = DhtSettings((dht_nodes.entrances[0],), PEER_HOST, state=state)
    async with stranger(dht_nodes) as dht:
        dht.announce(info_hash(TAG), PORT)
        for settings in (first, DhtSettings((), PEER_HOST, state=state)):
            async with running(dht_nodes, PEER_HOST, settings=settings) as peer:
                peer.interests.add(TAG, wanted=True)
                await until(peer.addresses, 10)
                assert peer.addresses() == {f"{OTHER_HOST}:{PORT}"}
            dht_nodes.kill(dht_nodes.entrances[0])
