"""Looking up the addresses of hosts by name, without getting in anybody's way."""

from __future__ import annotations

import socket
from functools import partial
from typing import Any

import trio

from furymesh.net.addresses import packed_ip

Place = tuple[int, tuple[Any, ...]]  # an address family, and what a socket of it connects to


async def look_up(
    host: str, port: int, family: int, kind: int, threads: trio.CapacityLimiter
) -> list[str]:
    """The IP addresses of a host; raises OSError, or UnicodeError for what is no name.

    A name server that is mute keeps a thread for long after nobody waits for it any
    more. So that it is none of those that serve the disk, they are taken of `threads`.
    """
    return [str(target[0]) for _, target in await places(host, port, family, kind, threads)]


async def places(
    host: str, port: int, family: int, kind: int, threads: trio.CapacityLimiter
) -> list[Place]:
    """`look_up`, with all that it takes to connect; addresses wait for no name."""
    ask = partial(socket.getaddrinfo, host, port, family, kind)
    if packed_ip(host):
        found = ask()
    else:
        found = await trio.to_thread.run_sync(ask, abandon_on_cancel=True, limiter=threads)
    return [(int(of), target) for of, _, _, _, target in found]
