"""IP addresses as bytes and text, and what may be believed of one that a peer names."""

from __future__ import annotations

import ipaddress
import socket
from contextlib import suppress
from typing import Any


def packed_ip(host: str) -> bytes:
    """The 4 or 16 bytes of an IP address; a mapped IPv4 address comes out as IPv4.

    Empty if `host` is a name.
    """
    try:
        address = ipaddress.ip_address(host.split("%")[0])
    except ValueError:
        return b""
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).packed


def unpacked_ip(raw: bytes) -> str:
    """The text form of 4 or 16 bytes."""
    return str(ipaddress.ip_address(raw))


def host_of(place: tuple[Any, ...]) -> str:
    """The IP address in what the system tells of a socket, with its interface if it has one."""
    host = str(place[0])
    if len(place) == 4 and place[3] and "%" not in host:
        with suppress(OSError):
            return f"{host}%{socket.if_indextoname(place[3])}"
    return host


def sockaddr(host: str, port: int) -> tuple[Any, ...]:
    """A place as the system wants it; raises OSError for an interface that is not here."""
    ip, _, name = host.partition("%")
    return (ip, port, 0, socket.if_nametoindex(name)) if name else (ip, port)


def family_of(host: str) -> socket.AddressFamily:
    """Of an IP address."""
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def same_machine(host: str) -> str:
    """A key that is equal for addresses which one machine may have at will.

    An IPv4 address stands for itself, an IPv6 address for its /64: whoever has
    one address of it has them all.
    """
    raw = packed_ip(host)
    return f"{raw[:8].hex()}/64" if len(raw) == 16 else raw.hex() or host


def is_loopback(host: str) -> bool:
    """Whether an address is that of this machine only."""
    raw = packed_ip(host)
    return bool(raw) and ipaddress.ip_address(raw).is_loopback


def is_link_local(host: str) -> bool:
    """Whether an address is good on one segment only."""
    raw = packed_ip(host)
    return bool(raw) and ipaddress.ip_address(raw).is_link_local


def may_mean(host: str, seen_from: str) -> bool:
    """Whether an address that is meant by the end at `seen_from` means the same here.

    Loopback and link-local addresses mean another machine at each machine, so
    they are believed only of an end that is itself reached in this way.
    """
    raw, teller = packed_ip(host), packed_ip(seen_from)
    if not raw or not teller:
        return False
    address, there = ipaddress.ip_address(raw), ipaddress.ip_address(teller)
    if address.is_unspecified or address.is_multicast:
        return False
    if address.version == 4 and address.is_reserved:  # broadcast among them
        return False
    if address.is_loopback:
        return there.is_loopback
    if address.is_link_local:
        return there.is_link_local
    return True


def is_public(host: str) -> bool:
    """Whether an IP address means one machine, and the same from everywhere."""
    raw = packed_ip(host)
    address = ipaddress.ip_address(raw) if raw else None
    return address is not None and address.is_global and not address.is_multicast


def may_be_mapped(host: str) -> bool:
    """Whether a router's mapping is on the way between this machine and a public `host`.

    Routers are asked for IPv4 only: IPv6 has no other ports than one's own.
    """
    return family_of(host) is socket.AF_INET and is_public(host)


def may_lead(host: str, teller: str) -> bool:
    """Whether the word of a stranger at `teller`, "" for anywhere, is a reason to go to `host`.

    Nobody on the internet makes this node knock at the doors of a private network,
    or of its own machine.
    """
    return is_public(host) or (not is_public(teller) and may_mean(host, teller))
