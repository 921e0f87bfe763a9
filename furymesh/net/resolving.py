"""From names to the addresses that will be connected to.

What was checked of an address holds only for that address: whoever checks resolves
a name once, here, and connects to what came of it (DNS rebinding).
"""

from __future__ import annotations

import socket

import trio

from furymesh.core.errors import UnavailableError
from furymesh.core.link import Address
from furymesh.net.addresses import may_mean
from furymesh.net.names import look_up

RESOLVE_SECONDS = 5.0  # name servers answer within one, if at all


async def resolved(address: Address, threads: trio.CapacityLimiter) -> list[str]:
    """The IP addresses of a host, the best first, never none; raises UnavailableError.

    `threads` are as in `look_up`.
    """
    try:
        with trio.fail_after(RESOLVE_SECONDS):
            found = await look_up(
                address.host, address.port, socket.AF_UNSPEC, socket.SOCK_STREAM, threads
            )
    except trio.TooSlowError:
        raise UnavailableError("no name server answers") from None
    except (OSError, UnicodeError):
        raise UnavailableError("no such host") from None
    # Neither everybody on a network nor "this machine" in disguise.
    usable = [host for host in dict.fromkeys(found) if may_mean(host, host)]
    if not usable:
        raise UnavailableError("no usable address")
    return usable
