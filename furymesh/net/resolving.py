"""From names to the addresses that will be connected to.

What was checked of an address holds only for that address: whoever checks resolves
a name once, here, and connects to what came of it (DNS rebinding).
"""

from __future__ import annotations

import socket
from functools import partial

import trio

from furymesh.core.errors import UnavailableError
from furymesh.core.link import Address
from furymesh.net.addresses import family_of, host_of, may_mean, packed_ip

NO_HOST = "no such host"
RESOLVE_SECONDS = 5.0  # name servers answer within one, if at all


async def resolved(
    address: Address, threads: trio.CapacityLimiter, family: int = socket.AF_UNSPEC
) -> list[str]:
    """The IP addresses of a host, the best first, never none; raises UnavailableError.

    `threads` are as in `look_up`; who is an IP address already waits for none of them.
    """
    if packed_ip(address.host):
        found = [address.host] if family in (socket.AF_UNSPEC, family_of(address.host)) else []
    else:
        try:
            with trio.fail_after(RESOLVE_SECONDS):
                kind = socket.SOCK_STREAM
                found = await look_up(address.host, address.port, family, kind, threads)
        except trio.TooSlowError:
            raise UnavailableError("no name server answers") from None
        except (OSError, UnicodeError):
            raise UnavailableError(NO_HOST) from None
    # Neither everybody on a network nor "this machine" in disguise.
    usable = [host for host in dict.fromkeys(found) if may_mean(host, host)]
    if not usable:
        raise UnavailableError("no usable address")
    return usable


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
    return [host_of(target) for _, _, _, _, target in found]
