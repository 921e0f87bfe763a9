"""A byte stream over a socket: the narrow interface that links are built on.

Plain non-blocking sockets with trio's readiness calls: trio's own SocketStream
allocates a buffer for each receive and keeps at most 16 KiB unsent, both of
which cost more than the bytes at a gigabyte a second. Policy (limits, faults)
wraps this interface and never enters the link.
"""

from __future__ import annotations

import socket
from typing import Protocol

import trio

from furymesh.core.errors import LinkClosedError

# Unsent bytes the kernel may keep: a new control message never waits behind
# more than this, and a chunk is bound to a peer as late.
UNSENT_LOW_WATER = 256 * 1024


class ByteStream(Protocol):
    """One reader and one writer at a time; every failure is LinkClosedError."""

    async def wait_readable(self, at_least: int = 1) -> None:
        """Return when `at_least` bytes, or the end, can be received.

        May return earlier; the caller must know that so many bytes will come.
        """

    def receive_nowait(self, view: memoryview) -> int | None:
        """Receive into `view`; the number of bytes, or None if there are none now."""

    async def send_all(self, view: memoryview) -> None:
        """Send every byte of `view`."""

    def close(self) -> None:
        """Close at once; tasks that wait get LinkClosedError. Idempotent."""


class TcpStream:
    """A connected non-blocking TCP socket."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if hasattr(socket, "TCP_NOTSENT_LOWAT"):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_LOW_WATER)
        self._socket = sock
        self._low_water = 1

    async def wait_readable(self, at_least: int = 1) -> None:
        if at_least != self._low_water:
            # Linux wakes a poller of a TCP socket only at this mark.
            self._low_water = at_least
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, at_least)
        try:
            await trio.lowlevel.wait_readable(self._socket)
        except (trio.ClosedResourceError, OSError, ValueError):
            raise LinkClosedError("the link was closed") from None

    def receive_nowait(self, view: memoryview) -> int | None:
        try:
            size = self._socket.recv_into(view)
        except BlockingIOError:
            return None
        except OSError as error:
            raise LinkClosedError(f"the link broke: {error.strerror or error}") from None
        if not size:
            raise LinkClosedError("the peer closed the link")
        return size

    async def send_all(self, view: memoryview) -> None:
        sent = 0
        while sent < len(view):
            try:
                sent += self._socket.send(view[sent:])
            except BlockingIOError:
                try:
                    await trio.lowlevel.wait_writable(self._socket)
                except (trio.ClosedResourceError, OSError, ValueError):
                    raise LinkClosedError("the link was closed") from None
            except OSError as error:
                raise LinkClosedError(f"the link broke: {error.strerror or error}") from None

    def close(self) -> None:
        if self._socket.fileno() >= 0:
            trio.lowlevel.notify_closing(self._socket)
            self._socket.close()
