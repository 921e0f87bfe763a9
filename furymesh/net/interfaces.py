"""Which addresses this machine has."""

from __future__ import annotations

import array
import fcntl
import socket
import struct
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass

from furymesh.core.link import Address
from furymesh.net.addresses import family_of

_SIOCGIFADDR = 0x8915  # linux/sockios.h: the IPv4 address of an interface
_SIOCGIFFLAGS = 0x8913
_WORKING = 0x1 | 0x40  # linux/if.h: up, and with a carrier
ANY = "0.0.0.0"  # every IPv4 address of this machine
LOOPBACK = "127.0.0.1"
LOOPBACK_V6 = "::1"
_IPV6_ADDRESSES = "/proc/net/if_inet6"
_TENTATIVE = 0x40 | 0x08  # linux/if_addr.h: an address not checked yet, or taken by another
_LINK_SCOPE = 0x20  # net/ipv6.h


@dataclass(frozen=True, slots=True)
class Interface:
    """One interface and its first addresses, "" where it has none."""

    index: int
    name: str
    ipv4: str
    link_local: str  # IPv6


def interfaces() -> list[Interface]:
    """The interfaces that work and have an address, as far as the system tells."""
    found = []
    link_local = _link_local()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for index, name in socket.if_nameindex():
            if not _works(sock, name):
                continue
            ipv4 = _ipv4_of(sock, name)
            if ipv4 or index in link_local:
                found.append(Interface(index, name, ipv4, link_local.get(index, "")))
    return found


def _works(sock: socket.socket, name: str) -> bool:
    told = _asked(sock, _SIOCGIFFLAGS, name)
    return bool(told) and struct.unpack_from("=H", told, 16)[0] & _WORKING == _WORKING


def _ipv4_of(sock: socket.socket, name: str) -> str:
    told = _asked(sock, _SIOCGIFADDR, name)
    return socket.inet_ntoa(told[20:24]) if told else ""


def _asked(sock: socket.socket, question: int, name: str) -> bytes:
    """What the system says of an interface, a `struct ifreq`; nothing if it knows nothing."""
    request = array.array("B", struct.pack("256s", name.encode()[:15]))
    try:
        fcntl.ioctl(sock, question, request)
    except OSError:
        return b""
    return request.tobytes()


def _link_local() -> dict[int, str]:
    """The IPv6 link-local address of each interface that has one, by index."""
    found: dict[int, str] = {}
    for index, scope, address in _ipv6():
        if scope == _LINK_SCOPE:
            found.setdefault(index, address)
    return found


def _ipv6() -> Iterator[tuple[int, int, str]]:
    """Interface, scope and text of each IPv6 address that is in use; none without IPv6."""
    with suppress(OSError), open(_IPV6_ADDRESSES, encoding="ascii") as file:
        for line in file:
            digits, index, _, scope, flags, _ = line.split()
            if not int(flags, 16) & _TENTATIVE:
                address = socket.inet_ntop(socket.AF_INET6, bytes.fromhex(digits))
                yield int(index, 16), int(scope, 16), address


def local_ipv4() -> list[str]:
    """The IPv4 addresses of the interfaces that are up, loopback last."""
    found = [interface.ipv4 for interface in interfaces() if interface.ipv4]
    return sorted(dict.fromkeys(found), key=lambda address: address.startswith("127."))


def local_ipv6() -> list[str]:
    """The IPv6 addresses of this machine that mean it beyond one segment, loopback last."""
    found = [address for _, scope, address in _ipv6() if scope != _LINK_SCOPE]
    return sorted(dict.fromkeys(found), key=lambda address: address == LOOPBACK_V6)


def address_towards(host: str, port: int) -> str | None:
    """This machine's IP address that `host` sees.

    None if there is no way there, or no descriptor is left to see whether there is.
    """
    try:
        with socket.socket(family_of(host), socket.SOCK_DGRAM) as sock:
            sock.connect((host, port))  # of a datagram socket: nothing is sent
            return str(sock.getsockname()[0])
    except OSError:
        return None


def bound_hosts(listeners: Iterable[socket.socket]) -> list[str]:
    """The IP addresses on which these sockets accept connections."""
    return [str(sock.getsockname()[0]) for sock in listeners]


def reachable_addresses(listeners: Iterable[socket.socket]) -> list[str]:
    """Where these sockets can be dialled, as host:port."""
    return [
        str(Address(host, sock.getsockname()[1]))
        for sock in listeners
        for host in reachable_hosts(sock.getsockname()[0])
    ]


def reachable_hosts(bound: str) -> list[str]:
    """Hosts under which a socket bound to `bound` can be dialled."""
    if bound == "::":
        return local_ipv6() or [LOOPBACK_V6]
    if bound != ANY:
        return [bound]
    try:
        return local_ipv4() or [LOOPBACK]
    except (OSError, AttributeError):  # not Linux
        return [LOOPBACK]
