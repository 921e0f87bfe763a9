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
from hypercorn.config import Config as HypercornConfig
from hypercorn.trio import serve
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from furymesh.core.errors import EnvironmentFault, FuryMeshError, UsageError
from furymesh.node.control_client import short_path

MAX_BODY = 64 * 1024  # a link of the greatest length and some paths


class Controlled(Protocol):
    """What a node lets itself be told."""

    def status(self) -> dict[str, Any]:
        """A snapshot for `GET /v1/status`."""

    async def reload(self) -> list[str]:
        """Read the catalog again; returns a line for each entry that cannot be served."""

    async def accept(self, order: dict[str, Any]) -> dict[str, Any]:
        """Take over a download; raises UsageError for a malformed order."""


def application(node: Controlled) -> Starlette:
    """The ASGI application over one node."""

    async def status(_: Request) -> Response:
        return JSONResponse(node.status())

    async def reload(_: Request) -> Response:
        return JSONResponse({"problems": await node.reload()})

    async def download(request: Request) -> Response:
        return JSONResponse(await node.accept(await _body(request)), status_code=201)

    return Starlette(
        routes=[
            Route("/v1/status", _answering(status), methods=["GET"]),
            Route("/v1/catalog/reload", _answering(reload), methods=["POST"]),
            Route("/v1/downloads", _answering(download), methods=["POST"]),
        ]
    )


async def serve_control(
    node: Controlled,
    path: Path,
    task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve the control API on a socket at `path` until cancelled.

    `task_status` is told when calls are answered. The caller holds the node's
    lock, so a socket file that is there already belongs to nobody. Raises
    EnvironmentFault.
    """
    with _bound(path) as descriptor:
        config = HypercornConfig()
        config.bind = [f"fd://{descriptor}"]
        config.accesslog = None
        config.errorlog = None
        config.graceful_timeout = 0.5
        await serve(
            application(node),  # type: ignore[arg-type]
            config,
            shutdown_trigger=trio.sleep_forever,
            task_status=task_status,
        )


@contextlib.contextmanager
def _bound(path: Path) -> Iterator[int]:
    """The descriptor of a bound Unix socket of mode 0600; whoever serves it closes it.

    The socket's file is removed at the end.
    """
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
        yield sock.detach()
    finally:
        with contextlib.suppress(OSError):
            path.unlink()


async def _body(request: Request) -> dict[str, Any]:
    raw = bytearray()
    async with contextlib.aclosing(request.stream()) as parts:
        async for part in parts:
            raw += part
            if len(raw) > MAX_BODY:
                raise UsageError("the request is too long")
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError):
        raise UsageError("the request is not JSON") from None
    if not isinstance(value, dict):
        raise UsageError("the request is not a JSON object")
    return value


def _answering(
    endpoint: Callable[[Request], Awaitable[Response]],
) -> Callable[[Request], Awaitable[Response]]:
    """Turn our errors into answers: 400 for the caller's fault, 409 for the rest."""

    async def guarded(request: Request) -> Response:
        try:
            return await endpoint(request)
        except FuryMeshError as error:
            code = 400 if isinstance(error, UsageError) else 409
            return JSONResponse({"error": str(error)}, status_code=code)

    return guarded
