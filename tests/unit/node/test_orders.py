from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from furymesh.core.errors import UsageError
from furymesh.core.ids import FileId
from furymesh.core.link import Address, Link, Mirror
from furymesh.node.orders import MAX_ORDER, DetachedOrder, Orders

FILE_ID = FileId(bytes(range(32)))


def order(output: Path | None = None) -> DetachedOrder:
    link = Link(FILE_ID, "film", (Address("192.0.2.1", 7000),), bytes(32))
    mirrors = (Mirror.parse("http://192.168.0.1/film"),)
    return DetachedOrder(link, output, (Address("::1", 7001),), True, "ab" * 32, mirrors)


def test_orders_survive(tmp_path: Path) -> None:
    orders = Orders(tmp_path)
    assert orders.list() == ([], [])
    orders.add(order(tmp_path / "out"))
    assert Orders(tmp_path).list() == ([order(tmp_path / "out")], [])
    orders.remove(FILE_ID)
    orders.remove(FILE_ID)
    assert orders.list() == ([], [])


def test_no_changed_bit_is_obeyed(tmp_path: Path) -> None:
    """Not even one that still makes sense, like another output."""
    orders = Orders(tmp_path)
    orders.add(order(tmp_path / "out"))
    (path,) = (tmp_path / "orders").iterdir()
    raw = path.read_bytes()
    for bit in range(0, len(raw) * 8, 7):  # all of them take a while
        changed = bytearray(raw)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        good, (problem,) = orders.list()
        assert good == [], f"bit {bit}"
        assert str(path) in problem


def test_orders_from_before_the_checksum_are_read(tmp_path: Path) -> None:
    orders = Orders(tmp_path)
    orders.add(order())
    (path,) = (tmp_path / "orders").iterdir()
    path.write_text(json.dumps(order().encode()))
    assert orders.list() == ([order()], [])


def test_order_with_a_key_is_nobody_elses_business(tmp_path: Path) -> None:
    Orders(tmp_path).add(order())
    (path,) = (tmp_path / "orders").iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"text"',
        b"{}",
        b'{"link": 7}',
        b'{"link": "nonsense"}',
        b'{"link": "' + b"ab" * 32 + b'", "peers": 5}',
        b'{"link": "' + b"ab" * 32 + b'", "peers": ["nowhere"]}',
        b"\xff\xfe",
        b" " * (MAX_ORDER + 1),
    ],
)
def test_damaged_orders_are_named_and_passed_over(tmp_path: Path, raw: bytes) -> None:
    orders = Orders(tmp_path)
    orders.add(order())
    bad = tmp_path / "orders" / ("00" * 32 + ".json")
    bad.write_bytes(raw)
    good, (problem,) = orders.list()
    assert good == [order()]
    assert str(bad) in problem


def test_malformed_order_is_the_callers_fault() -> None:
    with pytest.raises(UsageError, match="malformed"):
        DetachedOrder.decode({})


def test_what_is_done_stays_done_after_a_power_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    orders = Orders(tmp_path)
    orders.add(order())
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(os.fstat(fd).st_ino))
    orders.remove(FILE_ID)
    assert synced == [(tmp_path / "orders").stat().st_ino]


ID = "ab" * 32


@pytest.mark.parametrize(
    "value",
    [
        {"output": "/tmp/a\0b"},
        {"output": "/tmp/\ud800"},
        {"output": ["/tmp"]},
        {"output": 7},
        {"peers": "127.0.0.1:1"},
        {"peers": [7]},
        {"sha256": "12"},
        {"sha256": 12},
        {"link": 12},
        {"link": [ID]},
        {"link": ID + "?name=\ud800"},
        {"peers": ["\ud800:1"]},
    ],
)
def test_orders_that_no_disk_can_follow_are_refused(value: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        DetachedOrder.decode({"link": ID, **value})


@pytest.mark.parametrize("value", [[], None, 7, "text"])
def test_orders_that_are_no_objects_are_refused(value: Any) -> None:
    with pytest.raises(UsageError, match="malformed"):
        DetachedOrder.decode(value)


def test_nested_order_is_a_problem_and_no_crash(tmp_path: Path) -> None:
    orders = Orders(tmp_path)
    orders.add(DetachedOrder(Link.parse(ID)))
    bad = tmp_path / "orders" / ("00" * 32 + ".json")
    bad.write_text("[" * (MAX_ORDER - 1))
    good, (problem,) = orders.list()
    assert len(good) == 1
    assert str(bad) in problem


def test_what_is_taken_can_be_read_again(tmp_path: Path) -> None:
    value = {"link": ID, "output": "/" + "é" * (MAX_ORDER // 3)}
    assert len(json.dumps(value, ensure_ascii=False).encode()) < MAX_ORDER
    orders = Orders(tmp_path)
    with pytest.raises(UsageError, match="too long"):
        orders.add(DetachedOrder.decode(value))
    assert orders.list() == ([], [])
