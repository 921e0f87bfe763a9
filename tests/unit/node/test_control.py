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

    def peers(self) -> dict[str, Any]:
        return {"shares": [], "peers": []}

    def status(self) -> dict[str, Any]:
        return {"node_id": "n", "links": 3}

    async def reload(self) -> list[str]:
        self.reloads += 1
        await trio.lowlevel.checkpoint()
        return ["one is gone"]

    async def accept(self, order: dict[str, Any]) -> dict[str, Any]:
        await trio.lowlevel.checkpoint()
        if order.get("link") == "bug":
            raise RuntimeError("not foreseen")
        if "link" not in order:
            raise UsageError("an order needs a link")
        if order["link"] == "full":
            raise EnvironmentFault(f"the disk is full: {order.get('output')}")
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
        head = "POST /v1/downloads HTTP/1.1\r\nHost: node\r\nConnection: close\r\n"
        answer = await raw_call(path, f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        assert answer.startswith(b"HTTP/1.1 400")
        assert not node.orders


async def raw_call(path: Path, request: bytes) -> bytes:
    stream = await trio.open_unix_socket(str(path))
    async with stream:
        await stream.send_all(request)
        return b"".join([part async for part in stream])


ASKING = b"GET /v1/status HTTP/1.1\r\nHost: node\r\n"
H2C = ASKING + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: "


@pytest.mark.parametrize(
    ("request_bytes", "code"),
    [
        (H2C + b"AAMAAABkAAQAoAAAAAIAAAAA\r\n\r\n", 400),
        (H2C + b"AAAA\r\n\r\n", 400),  # settings that are none
        (H2C + b"!\r\n\r\n", 400),
        (ASKING + b"Upgrade: h2c\r\nContent-Length: 0\r\n\r\n", 400),
        (ASKING + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        (b"\x16\x03\x01\x02\x00\x01\r\n\r\n", 400),
        (ASKING + b"X: " + b"x" * 100_000 + b"\r\n\r\n", 431),
        (
            b"POST /v1/downloads HTTP/1.1\r\nHost: n\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            400,
        ),
        (b"POST /v1/downloads HTTP/1.1\r\nHost: n\r\nContent-Length: 99999999999\r\n\r\n{", None),
    ],
    ids=lambda value: ascii(value)[-40:],
)
async def test_other_protocols_and_broken_requests_are_refused_and_the_api_stays_up(
    tmp_path: Path, request_bytes: bytes, code: int | None
) -> None:
    path = tmp_path / "control.sock"
    async with controlled(path) as node:
        if code is None:  # the client goes away in the middle
            stream = await trio.open_unix_socket(str(path))
            await stream.send_all(request_bytes)
            await stream.aclose()
        else:
            answer = await raw_call(path, request_bytes)
            assert answer.startswith(b"HTTP/1.1 %d " % code), answer
        assert (await call(path, "GET", "/v1/status"))["links"] == 3
        assert not node.orders


async def test_a_bug_behind_the_api_is_told_and_the_api_stays_up(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    async with controlled(path):
        with pytest.raises(FuryMeshError, match=r"bug of furymesh.*not foreseen"):
            await call(path, "POST", "/v1/downloads", {"link": "bug"})
        assert (await call(path, "GET", "/v1/status"))["links"] == 3


async def test_answers_may_hold_what_is_not_text(tmp_path: Path) -> None:
    """JSON can name a lone surrogate and UTF-8 cannot."""
    path = tmp_path / "control.sock"
    body = b'{"link": "full", "output": "\\ud800"}'
    head = b"POST /v1/downloads HTTP/1.1\r\nHost: node\r\nContent-Length: %d\r\n\r\n"
    async with controlled(path):
        answer = await raw_call(path, head % len(body) + body)
    assert answer.startswith(b"HTTP/1.1 409")
    assert answer.endswith(b'{"error": "the disk is full: \\ud800"}')


async def test_a_client_that_waits_for_leave_to_send_its_body_gets_it(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    head = b"POST /v1/downloads HTTP/1.1\r\nHost: n\r\nExpect: 100-continue\r\n"
    async with controlled(path) as node, await trio.open_unix_socket(str(path)) as stream:
        await stream.send_all(head + b"Content-Length: 12\r\n\r\n")
        assert (await stream.receive_some()).startswith(b"HTTP/1.1 100 ")
        await stream.send_all(b'{"link":"x"}')
        assert (await stream.receive_some()).startswith(b"HTTP/1.1 201 ")
        assert node.orders == [{"link": "x"}]


@pytest.mark.parametrize("answer", [b"[]", b"7", b"[" * 100_000], ids=[0, 1, 2])
async def test_an_answer_that_is_no_object_is_nobody(tmp_path: Path, answer: bytes) -> None:
    """Some other program may sit on the path that the configuration names."""
    path = tmp_path / "control.sock"
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(answer)

    async def other(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.receive_some()
            await stream.send_all(head + answer)

    sock = trio.socket.socket(trio.socket.AF_UNIX)
    await sock.bind(str(path))
    sock.listen()
    async with trio.open_nursery() as nursery:
        await nursery.start(trio.serve_listeners, other, [trio.SocketListener(sock)])
        with pytest.raises(UnavailableError, match="no node is running"):
            await call(path, "GET", "/v1/status")
        nursery.cancel_scope.cancel()


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
