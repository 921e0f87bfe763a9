"""Which kind of server a mirror is. What its kind needs is imported only then."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from furymesh.core.errors import UsageError
from furymesh.core.link import Mirror
from furymesh.sources.guard import Guard
from furymesh.sources.source import Server, UnfitMirrorError

CLOSE_SECONDS = 2.0  # for connections to end in order


@asynccontextmanager
async def open_server(mirror: Mirror, *, own: bool, private: bool) -> AsyncIterator[Server]:
    """A mirror to read from, closed with the block.

    The user named it himself if it is `own`; `private` allows private addresses to
    all. Raises as `Server` does.
    """
    guard = Guard(mirror, own=own, private=private)
    if mirror.scheme == "sftp":
        try:
            from furymesh.sources.sftp import connected
        except UsageError as error:  # the extra is not installed
            raise UnfitMirrorError(str(error)) from None
        async with connected(mirror, guard) as server:
            yield server
        return
    from furymesh.sources.http import HttpServer

    http = HttpServer(mirror, guard)
    try:
        yield http
    finally:
        with trio.move_on_after(CLOSE_SECONDS, shield=True):
            await http.aclose()
