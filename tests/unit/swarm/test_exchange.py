"""What members of a share tell each other of the others, and what of it is believed."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import pytest

from furymesh.discovery.book import Source
from furymesh.net.addresses import packed_ip
from furymesh.swarm import exchange
from furymesh.wire import messages as m
from tests.unit.swarm.lab import lab, member
from tests.waiting import until

PUBLIC, LAN, OTHER_LAN = "9.9.9.9", "192.168.1.20", "10.0.0.7"
EVERYWHERE = (
    *(PUBLIC, "2606:4700::1111", LAN, OTHER_LAN, "172.16.0.1", "100.64.0.1", "fd00::1"),
    *("127.0.0.1", "::1", "::ffff:127.0.0.1", "169.254.169.254", "fe80::1", "0.0.0.0", "224.0.0.1"),
)


@pytest.mark.parametrize(
    ("teller", "believed"),
    [
        ("8.8.8.8", {PUBLIC, "2606:4700::1111"}),
        ("2606:4700::2222", {PUBLIC, "2606:4700::1111"}),
        (
            "192.168.1.1",
            {PUBLIC, "2606:4700::1111", LAN, OTHER_LAN, "172.16.0.1", "100.64.0.1", "fd00::1"},
        ),
    ],
)
async def test_only_who_is_in_a_private_network_leads_into_one(
    teller: str, believed: set[str], tmp_path: Path
) -> None:
    async with lab(tmp_path, "one", "two") as (one, two):
        await member(one, two)
        share = next(iter(one.swarm.shares.values()))
        (link,) = one.swarm.links.values()
        fetcher: Any = object()  # that there is one is enough
        share.fetcher = fetcher
        link.remote = (teller, 7000)
        told = [m.PeerAddress(packed_ip(host), 7001, b"") for host in EVERYWHERE]
        one.swarm.learnt(share, link, told)
        share.fetcher = None
        candidates = one.swarm.book.candidates(share.file_id)
        assert {candidate.address.host for candidate in candidates} == believed
        assert {candidate.source for candidate in candidates} == {Source.EXCHANGE}


@pytest.mark.parametrize(
    ("newcomer", "told"), [("8.8.8.8", {PUBLIC}), ("192.168.1.1", {PUBLIC, LAN})]
)
async def test_nobody_on_the_internet_is_told_where_others_are_in_a_private_network(
    newcomer: str, told: set[str], tmp_path: Path
) -> None:
    async with lab(tmp_path, "one", "two", "three", "four") as (one, *others):
        for peer in others:
            await member(one, peer)
        share = next(iter(one.swarm.shares.values()))
        await until(lambda: len(share.members) == 3)
        links = list(one.swarm.links.values())
        for link, host in zip(links, (newcomer, PUBLIC, LAN), strict=True):
            link.remote = (host, 7000)
        sent: list[m.Message] = []
        links[0].send = lambda message, answer=False: sent.append(message)  # type: ignore
        exchange.introduce(share, links[0], Random(1))
        (peers,) = sent
        assert isinstance(peers, m.Peers)
        assert {_host(peer) for peer in peers.peers} == told


def _host(peer: m.PeerAddress) -> str:
    return ".".join(map(str, peer.ip))


async def test_of_a_private_share_nothing_is_told_and_nothing_is_believed(tmp_path: Path) -> None:
    async with lab(tmp_path, "one", "two", "three") as (one, *others):
        for peer in others:
            await member(one, peer)
        share = next(iter(one.swarm.shares.values()))
        await until(lambda: len(share.members) == 2)
        share.private = True
        fetcher: Any = object()  # that there is one is enough
        share.fetcher = fetcher
        (link, _) = one.swarm.links.values()
        sent: list[m.Message] = []
        link.send = lambda message, answer=False: sent.append(message)  # type: ignore
        exchange.introduce(share, link, Random(1))
        assert not sent
        one.swarm.learnt(share, link, [m.PeerAddress(packed_ip(PUBLIC), 7001, b"")])
        share.fetcher = None
        assert not one.swarm.book.candidates(share.file_id)
