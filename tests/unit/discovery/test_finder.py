"""What the sources of peers tell, and what of it gets into the address book."""

from __future__ import annotations

from itertools import pairwise
from random import Random
from typing import Final

import pytest
import trio
import trio.testing

from furymesh.core.errors import EnvironmentFault
from furymesh.core.ids import FileId, NodeId, Process, discovery_tag
from furymesh.core.link import Address
from furymesh.discovery.book import MAX_OF_SOURCE, PeerBook, Source
from furymesh.discovery.finder import MAX_RETRY, Finder
from furymesh.discovery.source import Interests, Mapping, Sighting, Tell
from furymesh.net.interfaces import local_ipv4
from tests.waiting import until

SHARE, OTHER = FileId(b"s" * 32), FileId(b"o" * 32)
TAG = discovery_tag(SHARE)
ME: Process = (NodeId(b"m" * 32), b"myself")
PORT = 7654
FAR = "9.9.9.9"  # a public address


class Setting:
    """A finder with a book, told what sources see."""

    def __init__(self, linked: set[Process] | None = None) -> None:
        self.interests = Interests(PORT)
        self.interests.add(TAG, wanted=True)
        self.interests.add(discovery_tag(OTHER), wanted=False)
        self.book = PeerBook(Random(1), linked or set())
        self.reports: list[str] = []
        self.tags = {discovery_tag(share): share for share in (SHARE, OTHER)}
        self.finder = Finder(
            self.interests,
            self.book,
            me=ME,
            tags=self.tags,
            report=self.reports.append,
            rng=Random(1),
        )

    def see(
        self,
        host: str,
        port: int = 1000,
        *,
        share: FileId = SHARE,
        teller: str = "",
        process: Process | None = None,
        source: Source = Source.LAN,
    ) -> None:
        address = Address(host, port)
        tell = self.finder.listener(source, self.interests, self.tags)
        tell(Sighting(discovery_tag(share), address, teller, process))

    @property
    def known(self) -> list[str]:
        return [str(candidate.address) for candidate in self.book.candidates(SHARE)]


def test_a_sighting_becomes_a_candidate_of_its_share_and_source() -> None:
    setting = Setting()
    setting.see(FAR, source=Source.DHT)
    (candidate,) = setting.book.candidates(SHARE)
    assert candidate.address == Address(FAR, 1000)
    assert candidate.source is Source.DHT


def test_only_what_is_wanted_is_believed() -> None:
    setting = Setting()
    setting.see(FAR, share=OTHER)
    setting.see(FAR, share=FileId(b"x" * 32))
    assert not setting.book.candidates(OTHER)
    setting.interests.add(TAG, wanted=False)
    setting.see(FAR)
    assert not setting.known


@pytest.mark.parametrize(
    "host",
    ["node.example", "", "0.0.0.0", "::", "224.0.0.1", "ff02::1", "255.255.255.255", "240.0.0.1"],
)
def test_where_nobody_can_be_is_not_tried(host: str) -> None:
    setting = Setting()
    setting.see(host, teller="127.0.0.1")
    assert not setting.known


@pytest.mark.parametrize("port", [0, -1, 65536])
def test_no_port_no_peer(port: int) -> None:
    setting = Setting()
    setting.see(FAR, port)
    assert not setting.known


def test_loopback_is_believed_of_those_who_are_there() -> None:
    setting = Setting()
    setting.see("127.0.0.1", teller="192.0.2.9")
    setting.see("127.0.0.1")
    setting.see("fe80::1")
    assert not setting.known
    setting.see("127.0.0.1", teller="127.0.0.1")
    assert setting.known == ["127.0.0.1:1000"]


def test_nobody_on_the_internet_names_addresses_of_a_private_network() -> None:
    setting = Setting()
    private = ["10.1.2.3", "192.168.1.1", "127.0.0.1", "169.254.1.1", "fd00::1"]
    for host in private:
        setting.see(host, teller=FAR, source=Source.TRACKER)
        setting.see(host, source=Source.DHT)
    assert not setting.known
    for host in (*private, FAR):
        setting.see(host, teller="10.0.0.7", source=Source.TRACKER)
    assert setting.known == ["10.1.2.3:1000", "192.168.1.1:1000", "[fd00::1]:1000", f"{FAR}:1000"]


def test_this_process_is_not_its_own_peer() -> None:
    setting = Setting()
    setting.see(FAR, process=ME)
    for host in local_ipv4():
        setting.see(host, PORT, teller=host)
    setting.interests.mapping = Mapping(40001, "1.2.3.4")
    setting.see("1.2.3.4", 40001)
    assert not setting.known
    setting.see("1.2.3.4", PORT)  # another one behind that router
    assert setting.known


def test_a_process_that_is_linked_is_not_dialled() -> None:
    linked = {(NodeId(b"n" * 32), b"instance")}
    setting = Setting(linked)
    setting.see(FAR, process=(NodeId(b"n" * 32), b"instance"))
    assert setting.book.due(SHARE, 0.0) is None
    linked.clear()
    assert setting.book.due(SHARE, 0.0) is not None


def test_made_up_peers_of_one_source_leave_room_for_another() -> None:
    setting = Setting()
    for number in range(1_000):
        setting.see(f"9.9.{number >> 8}.{number & 255}", source=Source.DHT)
    assert len(setting.known) == MAX_OF_SOURCE
    setting.see("10.0.0.1", teller="10.0.0.1", source=Source.LAN)
    assert len(setting.known) == MAX_OF_SOURCE + 1


class Failing:
    """A source that works for a while, fails, and is tried again."""

    source: Final = Source.TRACKER
    troubles = ("it is slow",)

    def __init__(self, works: float = 0.0) -> None:
        self.begun: list[float] = []
        self.works = works

    async def run(self, interests: Interests, tell: Tell) -> None:
        self.begun.append(trio.current_time())
        async with trio.open_nursery():
            await trio.sleep(self.works)
            raise EnvironmentFault("no network")


class Seeing:
    """A source that sees one peer and goes on looking."""

    source: Final = Source.LAN
    troubles = ()

    async def run(self, interests: Interests, tell: Tell) -> None:
        tell(Sighting(TAG, Address(FAR, 1000)))
        await trio.sleep_forever()


async def run_for(setting: Setting, seconds: float, *sources: Failing | Seeing) -> None:
    with trio.move_on_after(seconds):
        await setting.finder.run(sources)


async def test_a_source_that_fails_is_tried_again_ever_later_and_reported_once(
    autojump_clock: trio.testing.MockClock,
) -> None:
    setting, failing = Setting(), Failing()
    await run_for(setting, 3600, failing)
    assert setting.reports == ["no network"]
    pauses = [after - before for before, after in pairwise(failing.begun)]
    assert pauses[0] < 10
    assert all(later > 1.1 * earlier for earlier, later in pairwise(pauses[:5]))
    assert max(pauses) <= 1.25 * MAX_RETRY
    assert len(failing.begun) > 10


async def test_a_source_that_fails_stops_no_other(autojump_clock: trio.testing.MockClock) -> None:
    setting = Setting()
    await run_for(setting, 100, Failing(), Seeing())
    assert setting.known == [f"{FAR}:1000"]


async def test_who_worked_for_long_is_soon_tried_again_and_reported_again(
    autojump_clock: trio.testing.MockClock,
) -> None:
    setting, failing = Setting(), Failing(works=2000.0)
    await run_for(setting, 6100, failing)
    assert len(failing.begun) == 4
    assert len(setting.reports) == 3


async def test_it_knows_which_sources_work_and_what_is_wrong_with_others(
    autojump_clock: trio.testing.MockClock,
) -> None:
    setting, failing = Setting(), Failing(works=10.0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run_for, setting, 60, failing, Seeing())
        await until(lambda: setting.finder.troubles)
        assert setting.finder.looking(TAG) == (Source.LAN, Source.TRACKER)
        assert setting.finder.looking(discovery_tag(OTHER)) == ()
        assert setting.finder.troubles == ("it is slow",)
        await until(lambda: setting.reports, 60)
        assert setting.finder.looking(TAG) == (Source.LAN,)
        assert setting.finder.troubles == ("no network",)
        await until(lambda: len(failing.begun) == 2, 60)
        assert setting.finder.troubles == ("it is slow",)
    assert setting.finder.looking(TAG) == ()
