"""A small HTTP/1.1 server for one ASGI application.

Each connection carries one request, read whole before the application sees it,
and its answer. There are no upgrades and no other protocols. Always true:
whatever a client sends, and whatever goes wrong while it is answered, ends
that connection and nothing else.
"""

from __future__ import annotations

import contextlib
import json
from functools import partial
from urllib.parse import unquote

import h11
import trio
from starlette.types import ASGIApp, Message, Scope

REQUEST_SECONDS = 10.0  # for a whole request to come, and for each part of an answer to go
LINGER_SECONDS = 1.0  # for the client to close first
MAX_HEAD = 16 * 1024  # request line and headers; ours have some 200 bytes
MAX_RECEIVE = 64 * 1024  # bytes asked of the socket at once

_VERSIONS = (b"1.0", b"1.1")


class _RefusedError(Exception):
    """The request is not served; `status` is the code that says why."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


async def serve_http(
    app: ASGIApp,
    listener: trio.SocketListener,
    *,
    max_body: int,
    task_status: trio.TaskStatus[object] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Answer requests, with bodies of at most `max_body` bytes, until cancelled."""
    await trio.serve_listeners(
        partial(answer_connection, app, max_body), [listener], task_status=task_status
    )


async def answer_connection(
    app: ASGIApp, max_body: int, stream: trio.abc.HalfCloseableStream
) -> None:
    """Read one request and answer it; never raises."""
    # Whatever is raised: the client went away, or the application has answered
    # that it failed.
    with contextlib.suppress(Exception):
        async with stream:
            await _Exchange(stream).run(app, max_body)


class _Exchange:
    """One request and its answer."""

    def __init__(self, stream: trio.abc.HalfCloseableStream) -> None:
        self._stream = stream
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)
        self._body: bytes | None = None  # None once the application has it

    async def run(self, app: ASGIApp, max_body: int) -> None:
        try:
            with trio.fail_after(REQUEST_SECONDS):
                request = await self._request(max_body)
        except _RefusedError as error:
            await self._refuse(error.status, str(error))
        except h11.RemoteProtocolError as error:
            await self._refuse(error.error_status_hint, "this is not HTTP/1.1")
        else:
            if request is not None:
                await app(_scope(request), self._receive, self._respond)
        await self._linger()

    async def _request(self, max_body: int) -> h11.Request | None:
        """Read the whole request; None if the client closed instead."""
        request = await self._event()
        if not isinstance(request, h11.Request):
            return None
        if request.http_version not in _VERSIONS:
            raise _RefusedError(505, "speak HTTP/1.1")
        if any(name == b"upgrade" for name, _ in request.headers):
            raise _RefusedError(400, "no other protocol is spoken here")
        body = bytearray()
        while isinstance(part := await self._event(), h11.Data):
            body += part.data
            if len(body) > max_body:
                raise _RefusedError(413, "the request is too long")
        self._body = bytes(body)
        return request

    async def _event(self) -> object:
        while (event := self._http.next_event()) is h11.NEED_DATA:
            if self._http.they_are_waiting_for_100_continue:
                await self._send(h11.InformationalResponse(status_code=100, headers=[]))
            self._http.receive_data(bytes(await self._stream.receive_some(MAX_RECEIVE)))
        return event

    async def _receive(self) -> Message:
        """The application asks for the body, and after that for the end."""
        body, self._body = self._body, None
        if body is None:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": body, "more_body": False}

    async def _respond(self, message: Message) -> None:
        """The application answers."""
        if message["type"] == "http.response.start":
            headers = [*message.get("headers", ()), (b"connection", b"close")]
            await self._send(h11.Response(status_code=message["status"], headers=headers))
            return
        await self._send(h11.Data(data=message.get("body", b"")))
        if not message.get("more_body", False):
            await self._send(h11.EndOfMessage())

    async def _refuse(self, status: int, reason: str) -> None:
        body = json.dumps({"error": reason}).encode()
        await self._respond(
            {
                "type": "http.response.start",
                "status": status,
                "headers": [
                    (b"content-type", b"application/json"),
                    (b"content-length", b"%d" % len(body)),
                ],
            }
        )
        await self._respond({"type": "http.response.body", "body": body})

    async def _linger(self) -> None:
        """Take in what still comes, so that no reset overtakes the answer (RFC 9112, 9.6)."""
        await self._stream.send_eof()
        with trio.move_on_after(LINGER_SECONDS):
            while await self._stream.receive_some(MAX_RECEIVE):
                pass

    async def _send(self, event: h11.Event) -> None:
        data = self._http.send(event)
        if data:
            with trio.fail_after(REQUEST_SECONDS):
                await self._stream.send_all(data)


def _scope(request: h11.Request) -> Scope:
    path, _, query = request.target.partition(b"?")
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": request.http_version.decode("ascii"),
        "method": request.method.decode("ascii"),
        "scheme": "http",
        "path": unquote(path.decode("ascii")),
        "raw_path": path,
        "query_string": query,
        "root_path": "",
        "headers": list(request.headers),
        "client": None,
        "server": None,
    }
