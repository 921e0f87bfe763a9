"""Talking to the node that runs in this data directory, if one does."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from furymesh.core.errors import FuryMeshError, UnavailableError, UsageError

# sun_path holds 108 bytes; longer paths are reached through the directory's descriptor.
MAX_SOCKET_PATH = 100
TIMEOUT = 10.0  # seconds; the node only reads its catalog or notes an order


async def call(
    socket_path: Path, method: str, path: str, body: dict[str, Any] | None = None
) -> dict[str, Any]:
    """One request; raises UnavailableError if no node runs, else what the node says."""
    if not socket_path.is_socket():
        raise UnavailableError(_nobody(socket_path))
    import httpx

    with short_path(socket_path) as reachable:
        transport = httpx.AsyncHTTPTransport(uds=reachable)
        async with httpx.AsyncClient(transport=transport, timeout=TIMEOUT) as client:
            try:
                response = await client.request(method, f"http://node{path}", json=body)
                answer = response.json()
            except (httpx.HTTPError, ValueError, RecursionError):
                raise UnavailableError(_nobody(socket_path)) from None
    if not isinstance(answer, dict):
        raise UnavailableError(_nobody(socket_path))
    if response.status_code in (400, 413):
        raise UsageError(str(answer.get("error")))
    if response.is_error:
        raise FuryMeshError(str(answer.get("error")))
    return dict(answer)


@contextlib.contextmanager
def short_path(path: Path) -> Iterator[str]:
    """A name for a Unix socket that fits into its address, however deep it lies."""
    if len(os.fsencode(path)) <= MAX_SOCKET_PATH:
        yield str(path)
        return
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)


def _nobody(socket_path: Path) -> str:
    return f"no node is running in {socket_path.parent}: start one with furymesh node"
