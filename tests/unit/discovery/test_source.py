"""What sources are told of this node's shares."""

from __future__ import annotations

import trio
import trio.testing

from furymesh.core.ids import DiscoveryTag
from furymesh.discovery.source import Interests, Mapping
from tests.waiting import until

ONE, TWO = DiscoveryTag(b"1" * 32), DiscoveryTag(b"2" * 32)


def test_what_is_wanted_is_announced_too() -> None:
    interests = Interests(7654)
    interests.add(ONE, wanted=True)
    interests.add(TWO, wanted=False)
    assert interests.announced == {ONE, TWO}
    assert interests.wanted == {ONE}


def test_who_accepts_no_links_announces_nothing() -> None:
    interests = Interests(0)
    interests.add(ONE, wanted=True)
    assert interests.announced == set()
    assert interests.wanted == {ONE}


async def test_what_a_router_forwards_is_announced_to_the_internet() -> None:
    interests = Interests(7654)
    assert interests.public_port == 7654
    async with trio.open_nursery() as nursery:
        nursery.start_soon(interests.changed)
        await trio.testing.wait_all_tasks_blocked()
        interests.mapping = Mapping(40001, "1.2.3.4")
    assert (interests.port, interests.public_port) == (7654, 40001)
    assert str(interests.mapping) == "1.2.3.4:40001"
    assert [interests.port_for(host) for host in ("9.9.9.9", "10.0.0.9")] == [40001, 7654]
    assert interests.port_for("2606:4700::1111") == 7654  # no router maps that
    interests.mapping = None
    assert interests.public_port == 7654
    nobody = Interests(0)
    nobody.mapping = Mapping(40001, "1.2.3.4")
    assert nobody.public_port == 0


async def test_who_waits_hears_of_each_change_and_of_nothing_else() -> None:
    interests = Interests(7654)
    heard = []

    async def listen() -> None:
        while True:
            await interests.changed()
            heard.append(interests.wanted)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(listen)
        await trio.testing.wait_all_tasks_blocked()
        interests.add(ONE, wanted=True)
        await until(lambda: heard == [{ONE}])
        interests.add(ONE, wanted=True)
        interests.remove(TWO)
        await trio.testing.wait_all_tasks_blocked()
        assert len(heard) == 1
        interests.add(ONE, wanted=False)
        await until(lambda: heard[1:] == [set()])
        interests.remove(ONE)
        await until(lambda: len(heard) == 3)
        nursery.cancel_scope.cancel()
