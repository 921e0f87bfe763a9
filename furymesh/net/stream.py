"""A byte stream over a socket: the narrow interface that links are built on.

Plain non-blocking sockets with trio's readiness calls: trio's own SocketStream
allocates a buffer for each receive and keeps at most 16 KiB unsent, both of
which cost more than the bytes at a gigabyte a second. Policy (limits, faults)
wraps this interface and never enters the link.
"""

from __future__ import annotations

import contextlib
import fcntl
import socket
import struct
import sys
import termios
from typing import Protocol

import trio

from furymesh.core.errors import LinkClosedError

# Unsent bytes the kernel may keep, within these: a control message never waits
# behind more, and a chunk is bound to a peer as late. `keep_unsent` fits it to
# the rate of the link.
MIN_UNSENT = 32 * 1024
MAX_UNSENT = 256 * 1024
# The system lets a low water mark fill the whole receive buffer, and sizes the buffer by
# what is read in one round trip: whoever reads whole records only would get one mark
# each round trip, for ever. So there is room for several; it grows by itself from there.
# Within a host there is no round trip to fill, and less stays in the processor's cache.
ROOM_MARKS = 8
# Milliseconds between two retries of the kernel, at most: on a line that was cut it
# doubles them up to two minutes, and would sleep on for as long as the cut lasted.
# No round trip takes longer, and three retries fit in what a link waits for a peer.
MAX_RETRY = 3000
TCP_RTO_MAX_MS = 44  # linux/tcp.h, since 6.15; older kernels refuse it
TCP_INFO = 11  # linux/tcp.h: what the kernel knows of a connection,
ROUND_TRIP_AT = 68  # and where in it, as 32 bits, tcpi_rtt is, in microseconds,
DELIVERY_RATE_AT = 160  # and as 64 bits tcpi_delivery_rate (since 4.9), in bytes a second
# Between two processes of one host nothing is lost and no road is shared: pacing,
# where the system's congestion control does it, would only cost a fifth of the rate.
UNPACED = b"reno"  # the one that every Linux has and lets everybody use


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

    def keep_unsent(self, seconds: float, rate: float) -> None:
        """From now on let about so many seconds' worth of bytes lie unsent in the kernel.

        `rate` is what the stream seemed to take, in bytes a second.
        """

    def waiting(self) -> int:
        """How many bytes have come and are not received yet."""

    def refused_for(self) -> float:
        """For how many seconds bytes have waited without the other end taking one.

        Zero when none wait, or when it is we who hold them back. Progress is
        what happened since the last look.
        """

    def round_trip(self) -> float:
        """Seconds from a byte to its acknowledgement, lately; 0 if not known."""

    def close(self) -> None:
        """Close at once; tasks that wait get LinkClosedError. Idempotent."""


class TcpStream:
    """A connected non-blocking TCP socket."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        within_host = _within_host(sock)
        if hasattr(socket, "TCP_CONGESTION") and within_host:
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, UNPACED)
        self._socket = sock
        self._low_water = self._highest = 1
        self._room = 1 if within_host else ROOM_MARKS
        self._unsent = 0
        if sys.platform == "linux":
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.IPPROTO_TCP, TCP_RTO_MAX_MS, MAX_RETRY)
        self._blocked_since: float | None = None  # set while `send_all` waits
        self._queued = -1  # bytes in the kernel when `refused_for` last looked
        self._keep_unsent(MIN_UNSENT)

    async def wait_readable(self, at_least: int = 1) -> None:
        try:
            if at_least != self._low_water:
                if at_least > self._highest:
                    self._highest = at_least
                    # Makes room for it; SO_RCVBUF would fix the size.
                    room = self._room * at_least
                    self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, room)
                # Linux wakes a poller of a TCP socket only at this mark.
                self._low_water = at_least
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, at_least)
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
                self._blocked_since = trio.current_time()
                try:
                    await trio.lowlevel.wait_writable(self._socket)
                except (trio.ClosedResourceError, OSError, ValueError):
                    raise LinkClosedError("the link was closed") from None
                finally:
                    self._blocked_since = None
            except OSError as error:
                raise LinkClosedError(f"the link broke: {error.strerror or error}") from None

    def keep_unsent(self, seconds: float, rate: float) -> None:
        # The kernel takes in a burst at once, however slow the network is.
        delivered = self._told("Q", DELIVERY_RATE_AT)
        self._keep_unsent(int(seconds * (min(rate, delivered) if delivered else rate)))

    def _told(self, number: str, at: int) -> int:
        """A number that the kernel keeps of the connection; 0 if not told here."""
        end = at + struct.calcsize(number)
        try:
            info = self._socket.getsockopt(socket.IPPROTO_TCP, TCP_INFO, end)
        except OSError:
            return 0
        return int(struct.unpack_from(number, info, at)[0]) if len(info) == end else 0

    def _keep_unsent(self, size: int) -> None:
        size = min(max(size, MIN_UNSENT), MAX_UNSENT)
        # Close enough is good enough: each change is a system call.
        if hasattr(socket, "TCP_NOTSENT_LOWAT") and not self._unsent <= size < 2 * self._unsent:
            self._unsent = size
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, size)

    def refused_for(self) -> float:
        if self._blocked_since is None:
            return 0.0
        # The kernel takes the next bytes by the buffer, which on a thin link is
        # seconds' worth: what the other end acknowledges is taken too.
        queued = self._count(termios.TIOCOUTQ)
        if queued != self._queued:
            self._queued = queued
            self._blocked_since = trio.current_time()
        return trio.current_time() - self._blocked_since

    def round_trip(self) -> float:
        return self._told("I", ROUND_TRIP_AT) / 1e6

    def waiting(self) -> int:
        return self._count(termios.FIONREAD)

    def _count(self, queue: int) -> int:
        try:
            raw = fcntl.ioctl(self._socket, queue, bytes(4))
        except (OSError, ValueError):
            return 0  # not told here
        return int(struct.unpack("i", raw)[0])

    def close(self) -> None:
        if self._socket.fileno() >= 0:
            trio.lowlevel.notify_closing(self._socket)
            self._socket.close()


async def receive_exactly(stream: ByteStream, size: int) -> bytes:
    """So many bytes and not one beyond; raises LinkClosedError."""
    buffer = bytearray(size)
    view = memoryview(buffer)
    got = 0
    while got < size:
        more = stream.receive_nowait(view[got:])
        if more is None:
            await stream.wait_readable()
        else:
            got += more
    return bytes(buffer)


def _within_host(sock: socket.socket) -> bool:
    """Whether both ends of a connection have one address."""
    try:
        return bool(sock.getsockname()[0] == sock.getpeername()[0])
    except (OSError, IndexError):  # gone meanwhile, or no TCP socket
        return False
