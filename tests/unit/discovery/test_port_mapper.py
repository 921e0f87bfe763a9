"""A port forwarded by a router on loopback, asked by libtorrent."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random

import pytest
import trio

from furymesh.core.errors import EnvironmentFault
from furymesh.discovery import port_mapper
from furymesh.discovery.port_mapper import PortMapper, address_behind_router
from furymesh.discovery.source import Mapping
from tests.port_router import REFUSED, TCP, Router, open_router
from tests.waiting import stays, until

GATEWAY = "127.0.0.3"
PORT = 7654

both = pytest.mark.parametrize("speaks", ["PCP", "NAT-PMP"])


class Asking:
    """A mapper at work, and all that it told."""

    def __init__(self) -> None:
        self.told: list[Mapping | None] = []
        self.mapper = PortMapper(PORT, "0.0.0.0", self.told.append, GATEWAY)

    def has(self, mapping: Mapping) -> bool:
        return self.mapper.mapping == mapping


@asynccontextmanager
async def asking() -> AsyncIterator[Asking]:
    one = Asking()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.mapper.run)
        yield one
        nursery.cancel_scope.cancel()


@both
async def test_the_port_and_no_other_is_forwarded_until_the_end(speaks: str) -> None:
    async with open_router(Router(GATEWAY, speaks=speaks)) as router:
        async with asking() as one:
            await until(lambda: one.has(Mapping(PORT, "1.2.3.4")), 10)
            await until(lambda: router.granted == {(TCP, PORT): PORT})
            assert one.told[-1] == Mapping(PORT, "1.2.3.4")
        await until(lambda: not router.granted)
    assert one.told[-1] is not None  # who ends need not be told


async def test_another_port_than_was_asked_for_is_told() -> None:
    async with (
        open_router(Router(GATEWAY, outer_port=lambda wanted: wanted + 1)),
        asking() as one,
    ):
        await until(lambda: one.has(Mapping(PORT + 1, "1.2.3.4")), 10)


@both
async def test_what_is_granted_is_renewed(speaks: str) -> None:
    async with (
        open_router(Router(GATEWAY, speaks=speaks, lifetime=2)) as router,
        asking() as one,
    ):
        await until(lambda: one.mapper.mapping, 10)
        router.heard.clear()
        await until(lambda: (TCP, PORT) in [heard[:2] for heard in router.heard], 10)


@both
@pytest.mark.parametrize(
    "external", ["127.0.0.1", "10.1.2.3", "192.168.1.1", "169.254.1.1", "100.64.0.1", "224.0.0.1"]
)
async def test_an_address_that_is_not_public_is_passed_on_to_nobody(
    speaks: str, external: str
) -> None:
    async with (
        open_router(Router(GATEWAY, external, speaks)) as router,
        asking() as one,
    ):
        await until(lambda: router.granted == {(TCP, PORT): PORT} and one.told, 10)
        assert set(one.told) == {Mapping(PORT)}


async def test_what_a_router_refuses_it_is_told_why() -> None:
    async with open_router(Router(GATEWAY, result=REFUSED)), asking() as one:
        await until(lambda: one.mapper.troubles, 10)
        assert set(one.mapper.troubles) == {"PCP or NAT-PMP"}
        assert not one.told


async def test_garbage_is_no_answer() -> None:
    rng = Random(1)
    asked: list[bytes] = []

    def lie(packet: bytes) -> bytes:
        asked.append(packet)
        return rng.randbytes(rng.randrange(1, 1200))

    async with open_router(Router(GATEWAY, lies=lie)), asking() as one:
        await until(lambda: asked, 10)
        await stays(lambda: not one.told, 0.5)


GRANTED = '{"ports": [40001], "host": "1.2.3.4", "troubles": {}}'


@pytest.mark.parametrize(
    "last", ["", "no JSON", "[]", '{"ports": 7}', '{"ports": ["x"], "host": "", "troubles": {}}']
)
async def test_a_process_that_ends_or_says_nonsense_is_started_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, last: str
) -> None:
    script = tmp_path / "child.py"
    script.write_text(f"print({GRANTED!r}); print({last!r}, flush=True); input()\n")
    if not last:
        script.write_text(f"print({GRANTED!r}, flush=True)\n")
    monkeypatch.setattr(port_mapper, "CHILD", script)
    monkeypatch.setattr(port_mapper, "LOOK_SECONDS", 0.01)
    async with asking() as one:
        await until(lambda: len(one.told) >= 3)
        assert one.told[:3] == [Mapping(40001, "1.2.3.4"), None, Mapping(40001, "1.2.3.4")]


async def test_without_libtorrent_it_is_the_environments_fault(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "libtorrent.py").write_text("raise ImportError('not for this machine')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(EnvironmentFault, match=r"not for this machine.*install furymesh\[dht\]"):
        await Asking().mapper.run()


def test_a_router_is_asked_for_no_address_but_the_one_towards_it() -> None:
    assert address_behind_router("0.0.0.0", GATEWAY) == "127.0.0.1"
    assert address_behind_router("127.0.0.1", GATEWAY) == "127.0.0.1"
    assert address_behind_router("127.0.0.5", GATEWAY) == ""
