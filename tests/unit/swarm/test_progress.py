from __future__ import annotations

from typing import Any

from furymesh.core.ids import NodeId
from furymesh.swarm.member import Member
from furymesh.swarm.progress import USEFUL_RATE, IdleClock, Tally


class Time:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_trickle_is_not_progress() -> None:
    time = Time()
    clock = IdleClock(time)
    for _ in range(200):
        time.now += 0.5
        clock.received(time.now, 8)
    assert clock.idle == 100.0


def test_slow_line_is_progress() -> None:
    time = Time()
    clock = IdleClock(time)
    for _ in range(20):
        time.now += 10.0
        clock.received(time.now, 16 * USEFUL_RATE)
        assert clock.idle == 0.0


def test_own_work_stops_the_clock_and_resets_it() -> None:
    time = Time()
    clock = IdleClock(time)
    time.now += 5
    assert clock.idle == 5
    with clock.local_work():
        time.now += 50
        with clock.local_work():
            assert clock.idle == 0
        assert clock.idle == 0
    assert clock.idle == 0
    time.now += 1
    assert clock.idle == 1


def test_tally_names_who_brought_what() -> None:
    link: Any = type("Link", (), {})()
    link.node_id, link.remote, link.initiator = NodeId(bytes(32)), ("127.0.0.1", 7), True
    link.found = "lan"
    link.relayed = False
    tally = Tally()
    for size in (100, 50):
        tally.credit(Member(link, 1), size)
    (peer,) = tally.contributions
    assert (peer.bytes, peer.chunks, peer.address) == (150, 2, "127.0.0.1:7")
    assert tally.fetched == 150
    assert list(tally.helpers) == [("127.0.0.1", 7)]
    assert tally.rate(1.0) == 0.0
    tally.fetched += 300
    assert tally.rate(2.0) == 300.0
