"""Downloads whose ends know each other through a relay only: real sockets, one process."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
import trio

from furymesh.core.errors import UnavailableError
from furymesh.core.ids import discovery_tag
from furymesh.core.link import Address
from furymesh.discovery.book import MAX_TOLD, Source
from furymesh.net import secure_link
from furymesh.net.connect import Endpoint, listen
from furymesh.net.identity import load_or_create
from furymesh.net.outgoing import connect
from furymesh.net.relay import Relay
from furymesh.net.secure_link import SecureLink
from furymesh.swarm import admission, exchange, meetings, relays
from furymesh.swarm.meetings import MAX_MEETINGS
from furymesh.swarm.mirrors import CONNECTED
from furymesh.swarm.peers import known_peers
from furymesh.swarm.relays import RelayClient
from furymesh.wire import messages as m
from tests.unit.swarm.lab import Peer, blob, lab, manifest_of, only_link, wanting
from tests.waiting import stays, until

NOWHERE = ("127.0.0.1", 9)  # nobody listens there
SOMETHING: Any = object()  # a fetcher: that there is one is enough


@dataclass
class Bridge:
    """Two peers and a relay that both use."""

    seed: Peer
    leecher: Peer
    others: list[Peer]
    relay: Relay
    address: Address
    clients: list[RelayClient]

    async def known(self, data: bytes) -> None:
        """Wait until the leecher was introduced to the seed."""
        file_id = manifest_of(data).file_id
        await until(lambda: self.leecher.swarm.book.candidates(file_id))


@asynccontextmanager
async def bridge(place: Path, *others: str) -> AsyncIterator[Bridge]:
    (place / "relay").mkdir()
    endpoint = Endpoint(load_or_create(place / "relay"))
    listeners = listen(Address("127.0.0.1", 0))
    address = Address("127.0.0.1", listeners[0].getsockname()[1], endpoint.identity.node_id)

    async def refuse(link: SecureLink) -> None:
        raise AssertionError("the relay was taken for a peer")

    relay = Relay(endpoint, Random(3), refuse)
    try:
        async with lab(place, "seed", "leecher", *others) as peers:
            seed, leecher, *rest = peers
            seed.links.start_soon(endpoint.serve, listeners, relay.run_link)
            clients = [RelayClient(peer.swarm, address) for peer in peers]
            for client in clients:
                seed.links.start_soon(client.run)
            await until(
                lambda: relay.hosted == len(peers) and all(client.link for client in clients)
            )
            yield Bridge(seed, leecher, rest, relay, address, clients)
    finally:
        for sock in listeners:
            sock.close()


@pytest.fixture
def apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """The two cannot dial each other."""
    monkeypatch.setattr(meetings, "MEET_SECONDS", 0.0)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is shared anew is named at once."""
    monkeypatch.setattr(relays, "LOOK_SECONDS", 0.02)


@pytest.mark.usefixtures("apart")
async def test_a_download_runs_through_a_relay(tmp_path: Path) -> None:
    data = blob(40)
    async with bridge(tmp_path) as there:
        there.seed.serve(data)
        download = there.leecher.download(data)
        result = await download.run(there.leecher.links)
        assert result.path.read_bytes() == data
        assert only_link(there.leecher.swarm).relayed
        assert only_link(there.seed.swarm).relayed
        assert there.relay.sessions == 1
        (peer,) = known_peers(there.leecher.swarm)
        assert (peer.found, peer.relayed, peer.state) == ("relay", True, CONNECTED)
        # Where its bytes came from is the relay, which is nobody's address.
        assert not download._tally.helpers
        newcomer = there.clients[0].link
        assert newcomer is not None
        assert exchange._public_address(only_link(there.leecher.swarm), newcomer) is None


async def test_a_direct_link_is_preferred(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relays, "HEAD_START", 5.0)  # the machine may be busy
    data = blob(40)
    async with bridge(tmp_path) as there:
        there.seed.serve(data)
        result = await there.leecher.download(data).run(there.leecher.links)
        assert result.path.read_bytes() == data
        assert not only_link(there.leecher.swarm).relayed
        assert not only_link(there.seed.swarm).relayed
        await until(lambda: there.relay.sessions == 0)


@pytest.mark.usefixtures("apart")
async def test_a_direct_link_takes_the_place_of_a_relayed_one_and_not_the_other_way_round(
    tmp_path: Path,
) -> None:
    data = blob(3)
    async with bridge(tmp_path) as there:
        seed, leecher = there.seed, there.leecher
        share = seed.serve(data)
        await leecher.download(data).run(leecher.links)
        relayed = only_link(leecher.swarm)
        assert relayed.relayed
        direct = await leecher.dial(seed)
        await until(lambda: only_link(leecher.swarm) is direct)
        await until(lambda: not only_link(seed.swarm).relayed)
        assert relayed.farewell is m.Reason.DUPLICATE
        process = (seed.swarm.endpoint.identity.node_id, seed.swarm.endpoint.instance)
        again = await there.clients[1].reach(process, NOWHERE)
        assert again.relayed
        await leecher.swarm.run_link(again)
        assert only_link(leecher.swarm) is direct
        assert share.file_id in seed.swarm.shares


@pytest.mark.usefixtures("apart")
async def test_a_dead_direct_link_does_not_keep_out_one_through_a_relay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission, "PROBE_SECONDS", 0.1)
    async with bridge(tmp_path) as there:
        silent = await there.leecher.swarm.endpoint.dial(there.seed.address)  # nobody runs it
        await until(lambda: there.seed.swarm.links)
        dead = only_link(there.seed.swarm)
        process = there.seed.swarm.endpoint.process
        relayed = await there.clients[1].reach(process, NOWHERE)
        there.leecher.links.start_soon(there.leecher.swarm.run_link, relayed)
        await until(lambda: dead.closed_because and only_link(there.seed.swarm).relayed)
        assert relayed.closed_because is None
        silent.close()


@pytest.mark.usefixtures("apart")
async def test_a_ban_holds_behind_a_relay_and_spares_the_relay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two bad nodes at one address would be reason to ban that, if it were theirs."""
    monkeypatch.setattr(secure_link, "is_loopback", lambda host: False)
    data = blob(40)
    async with bridge(tmp_path, "accomplice", "honest") as there:
        accomplice, honest = there.others
        bad = {peer.swarm.endpoint.identity.node_id for peer in (there.seed, accomplice)}
        bans = there.leecher.swarm.admission.bans
        async with trio.open_nursery() as nursery:
            nursery.start_soon(there.leecher.download(data).run, there.leecher.links)
            for peer in (there.seed, accomplice):
                peer.serve(data, wrong=-1)
            await until(lambda: bans.nodes == bad)
            link = await there.clients[1].reach(accomplice.swarm.endpoint.process, NOWHERE)
            await there.leecher.swarm.run_link(link)
            assert link.farewell is m.Reason.FORBIDDEN
            honest.serve(data)
        assert only_link(there.leecher.swarm).relayed
        direct = await there.leecher.dial(honest)
        await until(lambda: only_link(there.leecher.swarm) is direct)


@pytest.mark.usefixtures("apart")
async def test_who_is_banned_is_neither_looked_for_nor_answered_at_a_relay(tmp_path: Path) -> None:
    data = blob(3)
    async with bridge(tmp_path) as there:
        seed, leecher = (peer.swarm for peer in (there.seed, there.leecher))
        leecher.admission.bans.add(seed.endpoint.identity.node_id, "")
        there.seed.serve(data)
        share = await wanting(there.leecher, data)
        share.fetcher = SOMETHING
        rendezvous = there.relay._rendezvous
        await until(lambda: len(rendezvous._tagged.get(discovery_tag(share.file_id), ())) == 2)
        await stays(lambda: not leecher.book.candidates(share.file_id), 0.1)
        share.fetcher = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(there.clients[0].reach, leecher.endpoint.process, NOWHERE)
            await until(lambda: there.relay._summoned)
            await stays(lambda: there.relay._summoned, 0.1)
            nursery.cancel_scope.cancel()


# --- limits -----------------------------------------------------------------------------


def summons(there: Bridge, numbers: range, ip: tuple[int, ...]) -> None:
    """Have the relay summon the leecher for so many processes, of which there are none."""
    link = there.relay._rendezvous.link_to(there.leecher.swarm.endpoint.process)
    assert link is not None
    for number in numbers:
        link.send(m.Summons(bytes([number]) * 16, bytes([number]) * 32, bytes(8), bytes(ip), 9))


async def test_who_is_summoned_without_end_still_meets_whom_it_wants_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relays, "HEAD_START", 5.0)  # the machine may be busy
    async with bridge(tmp_path) as there:
        client, seed = there.clients[1], there.seed
        summons(there, range(2 * MAX_MEETINGS), (127, 0, 0, 1))
        await until(lambda: len(client._meetings) == relays.MAX_SUMMONED_MEETINGS)
        place = (seed.address.host, seed.address.port)
        link = await client.reach(seed.swarm.endpoint.process, place)
        assert not link.relayed
        link.close()


async def test_all_who_ask_from_one_machine_get_the_places_of_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relays, "is_loopback", lambda host: False)
    async with bridge(tmp_path) as there:
        client, most = there.clients[1], relays.MAX_SUMMONED_PER_MACHINE
        summons(there, range(2 * most), (127, 0, 0, 100))
        await until(lambda: len(client._meetings) == most)
        await stays(lambda: len(client._meetings) == most, 0.1)
        summons(there, range(10, 11), (127, 0, 0, 100))
        await stays(lambda: len(client._meetings) == most, 0.1)
        summons(there, range(20, 21), (127, 0, 0, 101))
        await until(lambda: len(client._meetings) == most + 1)


async def test_a_relay_on_the_internet_leads_into_no_private_network(tmp_path: Path) -> None:
    data = blob(3)
    async with bridge(tmp_path) as there:
        there.seed.serve(data)
        for client in there.clients:
            assert client.link is not None
            client.link.remote = ("9.9.9.9", client.link.remote[1])
            client._meetings.relay = "9.9.9.9"
        summons(there, range(1), (192, 168, 1, 1))
        await stays(lambda: not there.clients[1]._meetings, 0.1)
        # Whom it places there is reached all the same: through it.
        result = await there.leecher.download(data).run(there.leecher.links)
        assert result.path.read_bytes() == data
        assert only_link(there.leecher.swarm).relayed


@pytest.mark.usefixtures("apart")
async def test_a_relay_that_tells_of_many_leaves_room_for_others(tmp_path: Path) -> None:
    data = blob(3)
    async with bridge(tmp_path) as there:
        share = await wanting(there.leecher, data)
        share.fetcher = SOMETHING
        tag, book = discovery_tag(share.file_id), there.leecher.swarm.book
        await until(lambda: tag in there.relay._rendezvous._tagged)
        link = there.relay._rendezvous.link_to(there.leecher.swarm.endpoint.process)
        assert link is not None
        for number in range(2 * MAX_TOLD):
            ip = bytes([198, 51, 100, number])
            link.send(m.Introduction(tag, bytes([number]) * 32, bytes(8), ip, 7000))
        await until(lambda: len(book.candidates(share.file_id)) == MAX_TOLD)
        await stays(lambda: len(book.candidates(share.file_id)) == MAX_TOLD, 0.1)
        share.fetcher = None


@pytest.mark.usefixtures("apart")
async def test_private_shares_are_not_named(tmp_path: Path) -> None:
    private, public = blob(3, seed=1), blob(3, seed=2)
    async with bridge(tmp_path) as there:
        there.seed.serve(private).private = True
        there.seed.serve(public)
        downloads = [there.leecher.download(data) for data in (private, public)]
        for download in downloads:
            there.leecher.swarm.add(download.share)
            download.share.fetcher = download  # type: ignore[assignment]
        await there.known(public)
        (candidate,) = there.leecher.swarm.book.candidates(manifest_of(public).file_id)
        assert (candidate.source, candidate.relayed) == (Source.RELAY, True)
        assert not there.leecher.swarm.book.candidates(manifest_of(private).file_id)
        for download in downloads:
            there.leecher.swarm.remove(download.share.file_id)


async def test_the_public_address_is_learnt(tmp_path: Path) -> None:
    async with bridge(tmp_path) as there:
        for client, peer in zip(there.clients, (there.seed, there.leecher), strict=True):
            assert client.public_address is not None
            assert client.public_address[0] == "127.0.0.1"
            assert peer.swarm.endpoint.listen_port


async def test_a_relay_that_is_gone_is_dialled_again(tmp_path: Path) -> None:
    async with bridge(tmp_path) as there:
        link = there.clients[0].link
        assert link is not None
        link.close()
        await until(lambda: there.clients[0].link not in (None, link))
        await until(lambda: there.relay.hosted == 2)
        assert not there.clients[0].trouble


@pytest.mark.usefixtures("apart")
async def test_who_is_not_at_the_relay_is_not_reached(tmp_path: Path) -> None:
    async with bridge(tmp_path) as there:
        nobody = (there.seed.swarm.endpoint.identity.node_id, bytes(8))
        with pytest.raises(UnavailableError, match="not found"):
            await there.clients[1].reach(nobody, NOWHERE)


async def test_a_node_that_is_no_relay_is_said_to_be_none(tmp_path: Path) -> None:
    async with lab(tmp_path, "one", "two") as (one, two):
        said: list[str] = []
        two.swarm.report = said.append
        node_id = one.swarm.endpoint.identity.node_id
        client = RelayClient(two.swarm, replace(one.address, node_id=node_id))
        two.links.start_soon(client.run)
        await until(lambda: said)
        assert "is no relay" in said[0]
        assert client.trouble == said[0]


@pytest.mark.parametrize("late", [None, 0, 1])
async def test_both_ends_of_a_connection_that_both_dialled_agree_who_begins(
    tmp_path: Path, late: int | None
) -> None:
    async with lab(tmp_path, "one", "two") as peers:
        ends = sorted(
            (peer.swarm.endpoint for peer in peers),
            key=lambda end: (end.identity.node_id, end.instance),
        )
        links: dict[int, SecureLink] = {}

        async def meet(me: int, sock: socket.socket) -> None:
            them = (ends[1 - me].identity.node_id, ends[1 - me].instance)
            if late == me:
                await stays(lambda: not links, 0.1)
            links[me] = await ends[me].meet(sock, ("127.0.0.1", 9), them)

        async with trio.open_nursery() as nursery:
            for me, sock in enumerate(_connected()):
                nursery.start_soon(meet, me, sock)
        assert links[0].initiator
        assert not links[1].initiator
        for link in links.values():
            link.close()


async def test_who_dialled_begins_if_the_other_end_only_accepted(tmp_path: Path) -> None:
    async with lab(tmp_path, "one", "two") as peers:
        for here, there in (peers, peers[::-1]):
            sock = await connect(("127.0.0.1", there.address.port))
            other = there.swarm.endpoint
            them = (other.identity.node_id, other.instance)
            link = await here.swarm.endpoint.meet(sock, ("127.0.0.1", 9), them)
            assert link.initiator
            link.close()


def _connected() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        one = socket.create_connection(listener.getsockname())
        other, _ = listener.accept()
    return one, other
