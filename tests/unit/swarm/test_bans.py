from __future__ import annotations

import pytest

from furymesh.core.ids import NodeId
from furymesh.storage.bans import Ban
from furymesh.swarm import bans as bans_module
from furymesh.swarm.bans import Bans

HERE, THERE = "c0000201", "c0000202"


def node(number: int) -> NodeId:
    return NodeId(number.to_bytes(32, "big"))


def test_banned_node_is_banned_everywhere() -> None:
    bans = Bans()
    bans.add(node(1), HERE)
    assert bans.holds(node(1), THERE)
    assert not bans.holds(node(2), HERE)


def test_second_bad_node_bans_the_address() -> None:
    bans = Bans()
    bans.add(node(1), HERE)
    bans.add(node(1), HERE)
    assert not bans.holds(node(3), HERE), "one node counts once"
    bans.add(node(2), HERE)
    assert bans.holds(node(3), HERE)
    assert not bans.holds(node(3), THERE)


def test_address_that_says_nothing_is_never_banned() -> None:
    bans = Bans()
    for number in range(5):
        bans.add(node(number), "")
    assert not bans.holds(node(9), "")


def test_restored_bans_count_and_are_not_kept_again() -> None:
    kept: list[Ban] = []
    bans = Bans()
    bans.keep = kept.append
    bans.restore([Ban(node(1), HERE), Ban(node(2), HERE)])
    assert bans.holds(node(3), HERE)
    assert not kept
    bans.add(node(3), HERE)
    assert kept == [Ban(node(3), HERE)]


def test_table_is_bounded_and_forgets_the_oldest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bans_module, "MAX_BANS", 3)
    bans = Bans()
    for number in range(5):
        bans.add(node(number), HERE if number < 2 else THERE)
    assert bans.nodes == {node(2), node(3), node(4)}
    assert not bans.holds(node(9), HERE), "its nodes were forgotten, so is the address"
    assert bans.holds(node(9), THERE)
