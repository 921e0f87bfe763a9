"""Outgoing TCP connections, from the port that this process listens on if need be."""

from __future__ import annotations

import errno
import os
import socket

import trio

from furymesh.core.errors import UnavailableError
from furymesh.net.addresses import family_of, sockaddr

CONNECT_SECONDS = 10.0  # one TCP connect; a SYN and two retries


def lend_port(listeners: list[socket.socket]) -> None:
    """Let this process dial from the port that it listens on.

    Only now: an option set before binding would let another process listen there too.
    """
    for listener in listeners:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)


async def connect(
    place: tuple[str, int],
    *,
    local_port: int | None = None,
    seconds: float = CONNECT_SECONDS,
) -> socket.socket:
    """A TCP connection to an IP address and port; raises UnavailableError.

    From `local_port` if given, 0 for any, which others of this process can then be made
    from as well; so it may be one that it listens on and has lent.
    """
    family = family_of(place[0])
    try:
        sock = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:  # no descriptor is left, or there is no such family here
        raise UnavailableError(f"no socket: {(error.strerror or str(error)).lower()}") from None
    try:
        sock.setblocking(False)
        if local_port is not None:
            _bind(sock, family, local_port)
        with trio.fail_after(seconds):
            code = sock.connect_ex(sockaddr(*place))
            if code == errno.EINPROGRESS:
                await trio.lowlevel.wait_writable(sock)
                code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise UnavailableError(os.strerror(code).lower())
    except trio.TooSlowError:
        sock.close()
        raise UnavailableError("no answer") from None
    except OSError as error:
        sock.close()
        raise UnavailableError((error.strerror or str(error)).lower()) from None
    except BaseException:
        sock.close()
        raise
    return sock


def _bind(sock: socket.socket, family: int, port: int) -> None:
    for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
        sock.setsockopt(socket.SOL_SOCKET, option, 1)
    try:
        sock.bind(("::" if family == socket.AF_INET6 else "0.0.0.0", port))
    except OSError as error:
        raise UnavailableError(f"cannot dial from port {port}: {error.strerror}") from None
