"""Targets of the control API: a whole HTTP request, and the order inside one."""

from __future__ import annotations

import json
from typing import Any

import h11
import trio
import trio.testing

from furymesh.core.errors import UsageError
from furymesh.core.link import Link
from furymesh.node.control import MAX_BODY, application
from furymesh.node.http_server import answer_connection
from furymesh.node.orders import DetachedOrder
from tests.fuzz.engine import Target
from tests.fuzz.material import FILE_ID, JSON, KEY

# What a well-meaning server says to a bad request. 500 would be a bug behind it.
ANSWERS = frozenset({200, 201, 400, 404, 405, 409, 413, 431, 501, 505})
WAIT_SECONDS = 30.0  # far beyond the server's own patience


class Obedient:
    """A node that takes on whatever it understands."""

    def status(self) -> dict[str, Any]:
        return {"node_id": "n\ud800", "links": 3}

    def peers(self) -> dict[str, Any]:
        return {"shares": [], "peers": []}

    async def reload(self) -> list[str]:
        await trio.lowlevel.checkpoint()
        return ["one is gone \udcff"]

    async def accept(self, order: dict[str, Any]) -> dict[str, Any]:
        await trio.lowlevel.checkpoint()
        read = DetachedOrder.decode(order)
        json.dumps(read.encode()).encode()
        return {"file_id": read.link.file_id.hex()}


_NODE = application(Obedient())


def http(data: bytes) -> None:
    """A connection that says this and then nothing more."""

    async def exchange() -> bytes:
        server, client = trio.testing.memory_stream_pair()
        answer = bytearray()

        async def listen() -> None:
            async for part in client:
                answer.extend(part)

        with trio.fail_after(WAIT_SECONDS):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(listen)
                nursery.start_soon(answer_connection, _NODE, MAX_BODY, server)
                await client.send_all(data)
                await client.send_eof()
        return bytes(answer)

    answer = trio.run(exchange)
    if answer:
        check_answer(answer, head=data.startswith(b"HEAD"))


def check_answer(answer: bytes, *, head: bool) -> None:
    """It is HTTP, it is whole, and it is no confession of a bug."""
    reader = h11.Connection(h11.CLIENT)
    reader.send(h11.Request(method="HEAD" if head else "GET", target="/", headers=[("host", "n")]))
    reader.send(h11.EndOfMessage())
    reader.receive_data(answer)
    reader.receive_data(b"")
    status = 0
    while not isinstance(event := reader.next_event(), h11.EndOfMessage | h11.ConnectionClosed):
        assert event is not h11.NEED_DATA, "the answer is cut short"
        if isinstance(event, h11.Response):
            status = event.status_code
    assert status in ANSWERS, f"status {status}"


def order(data: bytes) -> None:
    """An order as JSON: what is understood is understood again after it was kept."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return
    read = DetachedOrder.decode(value)
    again = json.loads(json.dumps(read.encode()).encode())
    assert DetachedOrder.decode(again) == read


_LINK = Link(FILE_ID, "film", (), KEY).text
_BODY = json.dumps(
    {"link": _LINK, "output": "/tmp/film", "peers": ["192.0.2.1:7"], "sha256": FILE_ID.hex()}
).encode()
_POST = b"POST /v1/downloads HTTP/1.1\r\nHost: node\r\n"
_GET = b"GET /v1/status HTTP/1.1\r\nHost: node\r\n"


def _requests() -> dict[str, bytes]:
    return {
        "status": _GET + b"\r\n",
        "download": _POST + b"Content-Length: %d\r\n\r\n" % len(_BODY) + _BODY,
        "chunked": _POST
        + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(_BODY), _BODY),
        "expect": _POST + b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\n{}",
        "reload": b"POST /v1/catalog/reload HTTP/1.0\r\n\r\n",
        "h2c": _GET
        + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAAA\r\n\r\n",
        "http2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "websocket": _GET + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        "surrogate": _POST + b'Content-Length: 17\r\n\r\n{"link":"\\ud800"}',
        "head": b"HEAD /v1/status HTTP/1.1\r\nHost: node\r\n\r\n",
    }


_JSON = (*JSON, b'"link":', b'"output":', b'"peers":')

TARGETS = (
    Target(
        "http",
        http,
        _requests,
        (),
        (
            *_JSON,
            *(b"\r\n", b"\r\n\r\n", b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n"),
            *(b"HTTP/1.0", b"HTTP/1.2", b"HTTP/2.0"),
            *(b"Upgrade: h2c\r\n", b"Expect: 100-continue\r\n"),
            *(b"OPTIONS *", b"CONNECT ", b"HEAD ", b"http://[::1", b"%ff", b"?", b"//", b"0\r\n"),
        ),
    ),
    Target(
        "order",
        order,
        lambda: {"full": _BODY, "bare": b'{"link": "%s"}' % _LINK.encode()},
        (UsageError,),
        _JSON,
    ),
)
