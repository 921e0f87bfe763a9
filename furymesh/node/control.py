"""The control API of a running node: JSON over HTTP on a Unix socket.

The socket lies in the data directory with mode 0600, so the file system says
who may use it; it is never on a network. Commands use it to tell a running
node about new shares and to hand it downloads.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import trio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from furymesh.core.errors import EnvironmentFault, FuryMeshError, UsageError
from furymesh.node.control_client import short_path
from furymesh.node.http_server import serve_http

MAX_BODY = 64 * 1024  # a link of the greatest length and some paths


class Controlled(Protocol):
    """What a node lets itself be told."""

    def status(self) -> dict[str, Any]:
        """A snapshot for `GET /v1/status`."""

    def peers(self) -> dict[str, Any]:
        """The peers that are known, for `GET /v1/peers`."""

    async def reload(self) -> list[str]:
        """Read the catalog again; returns a line for each entry that cannot be served."""

    async def accept(self, order: dict[str, Any]) -> dict[str, Any]:
        """Take over a download; raises UsageError for a malformed order."""


class _Json(JSONResponse):
    """JSON in plain ASCII: names and paths need not be text that UTF-8 can carry."""

    def render(self, content: Any) -> bytes:
        return json.dumps(content).encode("ascii")


def application(node: Controlled) -> Starlette:
    """The ASGI application over one node."""

    async def status(_: Request) -> Response:
        return _Json(node.status())

    async def peers(_: Request) -> Response:
        return _Json(node.peers())

    async def reload(_: Request) -> Response:
        return _Json({"problems": await node.reload()})

    async def download(request: Request) -> Response:
        return _Json(await node.accept(await _body(request)), status_code=201)

    return Starlette(
        routes=[
            Route("/v1/status", _answering(status), methods=["GET"]),
            Route("/v1/peers", _answering(peers), methods=["GET"]),
            Route("/v1/catalog/reload", _answering(reload), methods=["POST"]),
            Route("/v1/downloads", _answering(download), methods=["POST"]),
        ]
    )


async def serve_control(
    node: Controlled,
    path: Path,
    task_status: trio.TaskStatus[object] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve the control API on a socket at `path` until cancelled.

    `task_status` is told when calls are answered. The caller holds the node's
    lock, so a socket file that is there already belongs to nobody. Raises
    EnvironmentFault.
    """
    with _bound(path) as sock:
        sock.listen()
        listener = trio.SocketListener(trio.socket.from_stdlib_socket(sock))
        async with listener:
            await serve_http(
                application(node), listener, max_body=MAX_BODY, task_status=task_status
            )


@contextlib.contextmanager
def _bound(path: Path) -> Iterator[socket.socket]:
    """A bound Unix socket of mode 0600; its file is removed at the end."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        with short_path(path) as reachable:
            mask = os.umask(0o177)
            try:
                sock.bind(reachable)
            finally:
                os.umask(mask)
    except OSError as error:
        sock.close()
        raise EnvironmentFault(f"cannot make the control socket {path}: {error.strerror}") from None
    try:
        yield sock
    finally:
        with contextlib.suppress(OSError):
            path.unlink()


async def _body(request: Request) -> dict[str, Any]:
    try:
        value = json.loads(await request.body())
    except (ValueError, RecursionError):
        raise UsageError("the request is not JSON") from None
    if not isinstance(value, dict):
        raise UsageError("the request is not a JSON object")
    return value


def _answering(
    endpoint: Callable[[Request], Awaitable[Response]],
) -> Callable[[Request], Awaitable[Response]]:
    """Turn errors into answers: 400 for the caller's fault, 409 for the rest, 500 for bugs."""

    async def guarded(request: Request) -> Response:
        try:
            return await endpoint(request)
        except FuryMeshError as error:
            code = 400 if isinstance(error, UsageError) else 409
            return _Json({"error": str(error)}, status_code=code)
        except Exception as error:
            return _Json({"error": f"a bug of furymesh, worth a report: {error!r}"}, 500)

    return guarded
