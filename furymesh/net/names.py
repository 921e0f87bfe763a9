"""Looking up the addresses of hosts by name, without getting in anybody's way."""

from __future__ import annotations

import socket
from functools import partial

import trio


async def look_up(
    host: str, port: int, family: int, kind: int, threads: trio.CapacityLimiter
) -> list[str]:
    """The IP addresses of a host; raises OSError, or UnicodeError for what is no name.

    A name server that is mute keeps a thread for long after nobody waits for it any
    more. So that it is none of those that serve the disk, they are taken of `threads`.
    """
    found = await trio.to_thread.run_sync(
        partial(socket.getaddrinfo, host, port, family, kind),
        abandon_on_cancel=True,
        limiter=threads,
    )
    return [str(target[0]) for _, _, _, _, target in found]
