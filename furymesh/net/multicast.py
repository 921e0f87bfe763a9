"""Asking everybody on the local network, on each of its segments, and being asked.

A *question* goes to a multicast group on every interface; an *answer* goes to
who asked, and to nobody else. Several processes of a machine share the group's
port, so they hear each other as they hear others; what goes to one of them
alone goes to a port of its own.

Questions stay on their segment: the IPv4 ones have a time to live of one hop,
the IPv6 group and the addresses that may ask there are link-local.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Self

import trio

from furymesh.core.errors import EnvironmentFault
from furymesh.net.addresses import family_of, host_of, is_link_local, is_loopback, sockaddr
from furymesh.net.interfaces import Interface, interfaces

GROUP_V4 = "239.255.70.77"  # of the local scope of RFC 2365
GROUP_V6 = "ff12::464d"  # transient, of link-local scope: RFC 4291, section 2.7
PORT = 7655  # UDP
IP_MULTICAST_ALL = 49  # linux/in.h: hear the groups others have joined, elsewhere
_ALREADY_JOINED = errno.EADDRINUSE
MAX_INTERFACES = 16  # Linux lets one socket join 20 groups
MAX_DATAGRAM = 1500  # longer ones arrive cut to one byte more than this
# What is read in a row, and the rest that follows: to wake for each datagram of a flood
# would cost more than to read it, which takes 6 microseconds. So 100 times a second, and of
# one socket 6,400: for the two of IPv4 5 to 8 per cent of a processor, however many come. The
# others are dropped by the kernel for nothing. In a flood of 10,000 to whoever asks, two of
# three answers are read, and he asks again.
BATCH = 64
REST_SECONDS = 0.01
RECEIVE_BUFFER = 512 * 1024  # bytes: what such a flood brings while others have their turn

Sender = tuple[str, int]  # an IP address, with its interface where it is link-local, and a port
Heard = Callable[[memoryview, Sender], None]


@dataclass(frozen=True, slots=True)
class _Family:
    """The sockets of one address family."""

    family: socket.AddressFamily
    group: socket.socket  # hears questions
    own: socket.socket  # asks, and hears answers

    def close(self) -> None:
        self.group.close()
        self.own.close()


class Multicast:
    """Sockets on all segments of this machine. Use as a context manager.

    `hosts` are the addresses at which the offered service accepts connections:
    answers come from there, so that whoever gets one knows where to connect, and
    a question to which no answer could come from there is not heard at all.
    """

    def __init__(self, hosts: Iterable[str] = ()) -> None:
        """Raises EnvironmentFault if the system gives no socket for it."""
        self._hosts = {family_of(host): host for host in hosts}
        self._families: list[_Family] = []
        self._joined: dict[tuple[socket.AddressFamily, int], Interface] = {}
        failure: OSError | None = None
        for family in (socket.AF_INET, socket.AF_INET6):
            try:
                self._families.append(_open(family))
            except OSError as error:
                failure = failure or error
        if not self._families:
            reason = failure.strerror if failure else "no address family"
            raise EnvironmentFault(f"cannot ask on the local network: {reason}")

    def __enter__(self) -> Self:
        """Raises EnvironmentFault if the system does not tell of interfaces."""
        try:
            self._look()
        except OSError as error:
            self.__exit__()
            raise EnvironmentFault(f"cannot list interfaces: {error.strerror}") from None
        return self

    def __exit__(self, *exception: object) -> None:
        for family in self._families:
            family.close()

    def look(self) -> bool:
        """Join the group on interfaces that have come; whether there were any.

        An interface that got another address counts as new.
        """
        with suppress(OSError):  # no descriptor is left: the next look may have one
            return self._look()
        return False

    def _look(self) -> bool:
        usable = {
            (family, interface.index): interface
            for interface in interfaces()
            for family in (socket.AF_INET, socket.AF_INET6)
            if _can_use(interface, family)
        }
        for gone in self._joined.keys() - usable.keys():
            del self._joined[gone]  # the kernel has left the group there
        news = False
        for (family, index), interface in usable.items():
            known = self._joined.get((family, index))
            if known == interface or (known is None and len(self._joined) >= 2 * MAX_INTERFACES):
                continue
            for sockets in self._families:
                if sockets.family == family and _join(sockets.group, family, index):
                    self._joined[family, index] = interface
                    news = True
        return news

    @property
    def interfaces(self) -> list[Interface]:
        """Those on which the group is joined."""
        return list(self._joined.values())

    def ask(self, raw: bytes) -> str:
        """Send a question to everybody; why nobody elsewhere was asked, "" if somebody was."""
        asked, refusal = False, "there is no interface but loopback"
        for (family, index), interface in self._joined.items():
            for sockets in self._families:
                if sockets.family != family:
                    continue
                try:
                    _send_to_group(sockets, index, raw)
                    asked = asked or not is_loopback(interface.ipv4)
                except OSError as error:
                    refusal = f"no question can be sent ({error.strerror})"
        return "" if asked else refusal

    def answer(self, raw: bytes, to: Sender) -> None:
        """Send an answer to one who asked; if that fails, it is lost."""
        family = family_of(to[0])
        host = self._hosts.get(family)
        if host is None:
            return
        with suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            # Whoever pretends to ask from elsewhere gets nothing sent there.
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, 1)
            else:
                sock.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 1)
            sock.bind((host, 0))
            sock.sendto(raw, sockaddr(*to))

    async def listen(self, questions: Heard, answers: Heard) -> None:
        """Hand over all that is heard, until cancelled; the bytes are good for the call only."""
        async with trio.open_nursery() as nursery:
            for sockets in self._families:
                if sockets.family in self._hosts:
                    nursery.start_soon(_listen, sockets.group, questions, True)
                nursery.start_soon(_listen, sockets.own, answers, False)


async def _listen(sock: socket.socket, heard: Heard, question: bool) -> None:
    buffer = memoryview(bytearray(MAX_DATAGRAM + 1))
    while True:
        await trio.lowlevel.wait_readable(sock)
        for _ in range(BATCH):
            try:
                size, sender = sock.recvfrom_into(buffer)
            except BlockingIOError:
                break
            except OSError:
                continue
            # The socket of the IPv6 group hears what is sent to this machine alone, too.
            if question and sock.family == socket.AF_INET6 and not is_link_local(sender[0]):
                continue
            heard(buffer[:size], (host_of(sender), sender[1]))
        await trio.sleep(REST_SECONDS)


def _open(family: socket.AddressFamily) -> _Family:
    group = socket.socket(family, socket.SOCK_DGRAM)
    own = None
    try:
        own = socket.socket(family, socket.SOCK_DGRAM)
        for sock in (group, own):
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        group.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        group.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET:
            group.setsockopt(socket.IPPROTO_IP, IP_MULTICAST_ALL, 0)
            group.bind((GROUP_V4, PORT))  # deaf for what is not sent to the group
            own.bind(("0.0.0.0", 0))
            own.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 1)
        else:
            group.bind(("::", PORT))
            own.bind(("::", 0))
    except OSError:
        group.close()
        if own is not None:
            own.close()
        raise
    return _Family(family, group, own)


def _join(sock: socket.socket, family: socket.AddressFamily, index: int) -> bool:
    """Join the group on one interface; False if that cannot be."""
    try:
        if family == socket.AF_INET:
            group = struct.pack("=4s4si", socket.inet_aton(GROUP_V4), bytes(4), index)
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group)
        else:
            group = struct.pack("=16si", socket.inet_pton(family, GROUP_V6), index)
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, group)
    except OSError as error:
        return error.errno == _ALREADY_JOINED
    return True


def _send_to_group(sockets: _Family, index: int, raw: bytes) -> None:
    if sockets.family == socket.AF_INET6:
        sockets.own.sendto(raw, (GROUP_V6, PORT, 0, index))
        return
    way_out = struct.pack("=4s4si", bytes(4), bytes(4), index)
    sockets.own.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, way_out)
    sockets.own.sendto(raw, (GROUP_V4, PORT))


def _can_use(interface: Interface, family: socket.AddressFamily) -> bool:
    if family == socket.AF_INET:
        return bool(interface.ipv4)
    # The loopback interface has no way to an IPv6 group; IPv4 serves there.
    return bool(interface.link_local)
