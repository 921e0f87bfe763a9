"""Which addresses this machine has."""

from __future__ import annotations

import array
import fcntl
import socket
import struct

_SIOCGIFADDR = 0x8915  # linux/sockios.h: the IPv4 address of an interface
LOOPBACK = "127.0.0.1"


def local_ipv4() -> list[str]:
    """The IPv4 addresses of the interfaces that are up, loopback last."""
    found = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for _, name in socket.if_nameindex():
            request = array.array("B", struct.pack("256s", name.encode()[:15]))
            try:
                fcntl.ioctl(sock, _SIOCGIFADDR, request)
            except OSError:
                continue  # down, or without an address
            found.append(socket.inet_ntoa(request[20:24].tobytes()))
    return sorted(dict.fromkeys(found), key=lambda address: address.startswith("127."))


def reachable_hosts(bound: str) -> list[str]:
    """Hosts under which a socket bound to `bound` can be dialled."""
    if bound not in ("0.0.0.0", "::"):
        return [bound]
    try:
        return local_ipv4() or [LOOPBACK]
    except (OSError, AttributeError):  # not Linux
        return [LOOPBACK]
