from __future__ import annotations

from contextlib import ExitStack

import pytest
import trio

from furymesh.net import strangers as strangers_module
from furymesh.net.strangers import Strangers


@pytest.fixture(autouse=True)
def limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strangers_module, "MAX_HANDSHAKES", 4)
    monkeypatch.setattr(strangers_module, "MAX_HANDSHAKES_PER_HOST", 3)


class Crowd:
    """Tasks that hold a place until they are pushed out or let go."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.strangers = Strangers()
        self.here: list[str] = []
        self._nursery = nursery

    async def comes(self, name: str, host: str) -> None:
        await self._nursery.start(self._stay, name, host)
        await trio.testing.wait_all_tasks_blocked()

    async def _stay(
        self, name: str, host: str, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        with self.strangers.place(host):
            self.here.append(name)
            task_status.started()
            try:
                await trio.sleep_forever()
            finally:
                self.here.remove(name)


async def test_oldest_of_a_machine_at_its_limit_makes_way() -> None:
    async with trio.open_nursery() as nursery:
        crowd = Crowd(nursery)
        for number in range(5):
            await crowd.comes(f"a{number}", "192.0.2.1")
        assert crowd.here == ["a2", "a3", "a4"]
        nursery.cancel_scope.cancel()
    assert len(crowd.strangers) == 0


async def test_machine_that_has_the_most_makes_way_for_others() -> None:
    async with trio.open_nursery() as nursery:
        crowd = Crowd(nursery)
        await crowd.comes("first", "192.0.2.9")
        for number in range(3):
            await crowd.comes(f"a{number}", "192.0.2.1")
        await crowd.comes("b", "192.0.2.2")
        assert crowd.here == ["first", "a1", "a2", "b"]
        await crowd.comes("c", "2001:db8::1")
        assert crowd.here == ["first", "a2", "b", "c"]
        nursery.cancel_scope.cancel()


async def test_addresses_of_one_network_are_one_machine() -> None:
    async with trio.open_nursery() as nursery:
        crowd = Crowd(nursery)
        for number in range(4):
            await crowd.comes(f"v6-{number}", f"2001:db8::{number + 1}")
        assert crowd.here == ["v6-1", "v6-2", "v6-3"]
        nursery.cancel_scope.cancel()


async def test_places_are_free_again_after_any_order_of_leaving() -> None:
    strangers = Strangers()
    with ExitStack() as first, ExitStack() as second:
        for _ in range(3):
            first.enter_context(strangers.place("192.0.2.1"))
        second.enter_context(strangers.place("192.0.2.1"))
        assert len(strangers) == 3
    assert len(strangers) == 0
