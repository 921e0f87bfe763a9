from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from furymesh.core.errors import UsageError
from furymesh.core.link import Link
from furymesh.node.orders import MAX_ORDER, DetachedOrder, Orders

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
