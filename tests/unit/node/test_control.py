from __future__ import annotations

import socket
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from furymesh.core.errors import EnvironmentFault, FuryMeshError, UnavailableError, UsageError
from furymesh.node.control import MAX_BODY, serve_control
from furymesh.node.control_client import call


class Fake:
    """A node that notes what it is told."""

    def __init__(self) -> None:
        self.orders: list[dict[str, Any]] = []
        self.reloads = 0

    def status(self) -> dict[str, Any]:
        return {"node_id": "n", "links": 3}

    async def reload(self) -> list[str]:
        self.reloads += 1
        await trio.lowlevel.checkpoint()
        return ["one is gone"]

    async def accept(self, order: dict[str, Any]) -> dict[str, Any]:
        await trio.lowlevel.checkpoint()
        if "link" not in order:
            raise UsageError("an order needs a link")
        if order["link"] == "full":
            raise EnvironmentFault("the disk is full")
        self.orders.append(order)
        return {"file_id": "ab"}


@asynccontextmanager
async def controlled(path: Path) -> AsyncIterator[Fake]:
    node = Fake()
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            await nursery.start(serve_control, node, path)
            yield node
            nursery.cancel_scope.cancel()


async def test_calls_are_answered_as_soon_as_it_is_started(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    async with controlled(path) as node:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert await call(path, "GET", "/v1/status") == {"node_id": "n", "links": 3}
        assert await call(path, "POST", "/v1/catalog/reload") == {"problems": ["one is gone"]}
        assert node.reloads == 1
        assert await call(path, "POST", "/v1/downloads", {"link": "x"}) == {"file_id": "ab"}
        assert node.orders == [{"link": "x"}]
    assert not path.exists()


async def test_faults_come_back_as_what_they_are(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    async with controlled(path):
        with pytest.raises(UsageError, match="needs a link"):
            await call(path, "POST", "/v1/downloads", {})
        with pytest.raises(FuryMeshError, match="the disk is full"):
            await call(path, "POST", "/v1/downloads", {"link": "full"})
        with pytest.raises(UsageError, match="too long"):
            await call(path, "POST", "/v1/downloads", {"link": "x" * MAX_BODY})
        assert (await call(path, "GET", "/v1/status"))["links"] == 3


@pytest.mark.parametrize("body", [b"", b"[1]", b"{", b"\xff"])
async def test_bad_bodies_are_refused(tmp_path: Path, body: bytes) -> None:
    path = tmp_path / "control.sock"
    async with controlled(path) as node:
        stream = await trio.open_unix_socket(str(path))
        async with stream:
            head = "POST /v1/downloads HTTP/1.1\r\nHost: node\r\nConnection: close\r\n"
            await stream.send_all(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            answer = b"".join([part async for part in stream])
        assert answer.startswith(b"HTTP/1.1 400")
        assert not node.orders


async def test_nobody_there(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match="no node is running"):
        await call(tmp_path / "control.sock", "GET", "/v1/status")


async def test_socket_left_behind_is_nobody(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with pytest.raises(UnavailableError, match="no node is running"):
        await call(path, "GET", "/v1/status")
    async with controlled(path):
        assert (await call(path, "GET", "/v1/status"))["links"] == 3


async def test_paths_longer_than_a_socket_address(tmp_path: Path) -> None:
    deep = tmp_path.joinpath(*["deeper" * 5] * 5)
    deep.mkdir(parents=True)
    async with controlled(deep / "control.sock"):
        assert (await call(deep / "control.sock", "GET", "/v1/status"))["links"] == 3


async def test_place_that_cannot_hold_a_socket(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFault, match="control socket"):
        await serve_control(Fake(), tmp_path / "missing" / "control.sock")
