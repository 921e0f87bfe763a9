"""Which shares a node speaks of, to whom."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trio

from furymesh.discovery.book import MAX_TOLD, Source
from furymesh.net import secure_link
from furymesh.net.handler import Shareless
from furymesh.net.secure_link import SecureLink
from furymesh.wire import messages as m
from tests.unit.swarm.lab import blob, lab, manifest_of, only_link, wanting
from tests.waiting import stays, until

DATA = blob(40)
FILE_ID = manifest_of(DATA).file_id


@dataclass
class Curious(Shareless):
    """A stranger that keeps what it is told."""

    told: list[m.Message] = field(default_factory=list)

    def message(self, link: SecureLink, message: m.Message) -> None:
        self.told.append(message)


async def test_a_stranger_is_not_told_what_is_downloaded(tmp_path: Path) -> None:
    async with lab(tmp_path, "one", "two") as (one, two):
        one.links.start_soon(one.download(DATA).run, one.links)
        await until(lambda: one.swarm.shares)
        link = await two.swarm.endpoint.dial(one.address)
        curious = Curious()
        two.links.start_soon(link.run, curious)
        await until(lambda: one.swarm.links)
        link.send(m.Ping(1))
        await until(lambda: curious.told)
        await stays(lambda: curious.told == [m.Pong(1)], 0.1)


async def test_a_stranger_that_proves_it_knows_the_share_is_told(tmp_path: Path) -> None:
    async with lab(tmp_path, "one", "two") as (one, two):
        one.links.start_soon(one.download(DATA).run, one.links)
        await two.dial(one)
        await until(lambda: two.swarm.links)
        there = await wanting(two, DATA)
        await until(lambda: there.members and one.swarm.shares[FILE_ID].members)


async def test_who_was_dialled_for_one_share_is_not_told_of_another(tmp_path: Path) -> None:
    other = blob(3, seed=2)
    async with lab(tmp_path, "one", "two") as (one, two):
        curious = two.serve(other)
        two.serve(DATA)
        one.links.start_soon(one.download(other).run, one.links)
        one.links.start_soon(one.download(DATA, two).run, one.links)
        await until(lambda: FILE_ID in one.swarm.shares)
        await until(lambda: one.swarm.shares[FILE_ID].members)
        await stays(lambda: not curious.members, 0.1)


async def test_who_is_linked_is_asked_as_soon_as_it_is_named(tmp_path: Path) -> None:
    async with lab(tmp_path, "one", "two") as (one, two):
        two.serve(DATA)
        await two.dial(one)
        await until(lambda: one.swarm.links)
        link = only_link(one.swarm)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(one.download(DATA).run, one.links)
            await until(lambda: FILE_ID in one.swarm.shares)
            process = two.swarm.endpoint.process
            one.swarm.book.add(FILE_ID, two.address, Source.LAN, process=process)
        assert only_link(one.swarm) is link


async def test_a_download_from_who_is_linked_uses_that_link(tmp_path: Path) -> None:
    other = blob(3, seed=2)
    async with lab(tmp_path, "one", "two") as (one, two):
        two.serve(DATA)
        two.serve(other)
        await one.download(other, two).run(one.links)
        link = only_link(one.swarm)
        for _ in range(2):  # the same, too
            result = await one.download(DATA, two).run(one.links)
            assert result.path.read_bytes() == DATA
            assert only_link(one.swarm) is link
            one.swarm.remove(FILE_ID)


async def test_a_share_goes_on_when_a_link_takes_the_place_of_another(tmp_path: Path) -> None:
    async with lab(tmp_path, "one", "two") as peers:
        smaller, larger = sorted(peers, key=lambda peer: peer.swarm.endpoint.process)
        smaller.links.start_soon(smaller.download(DATA).run, smaller.links)
        first = await larger.dial(smaller)
        await until(lambda: larger.swarm.links)
        await wanting(larger, DATA)
        await until(lambda: FILE_ID in smaller.swarm.shares)
        share = smaller.swarm.shares[FILE_ID]
        await until(lambda: share.members)
        better = await smaller.dial(larger)
        await until(lambda: first.closed_because and better in share.members)


@pytest.mark.parametrize("machines", [1, 2])
async def test_all_nodes_of_a_machine_are_one_teller(
    machines: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(secure_link, "is_loopback", lambda host: False)
    async with lab(tmp_path, "one", "two", "three") as (one, *tellers):
        for peer in tellers:
            await peer.dial(one)
        await until(lambda: len(one.swarm.links) == 2)
        share = await wanting(one, DATA)
        fetcher: Any = object()  # that there is one is enough
        share.fetcher = fetcher
        for number, link in enumerate(one.swarm.links.values()):
            link.remote = (f"198.51.100.{number % machines}", link.remote[1])
            peers = [m.PeerAddress(bytes([203, 0, 113, at]), 7000 + number) for at in range(80)]
            one.swarm.learnt(share, link, peers)
        share.fetcher = None
        told = len(one.swarm.book.candidates(FILE_ID))
        assert told == (MAX_TOLD if machines == 1 else 160)
