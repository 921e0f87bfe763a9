"""Node records: where a node says that it is.

A record is stored in the DHT under the node's own key and signed with it, so it
is the node's word; whose word that is, and what it names, strangers choose. Its
text is a version and addresses, a space between each:

    1 192.0.2.7:7654 [2001:db8::7]:7654
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from furymesh.core.errors import UsageError
from furymesh.core.link import Address

SALT = b"furymesh"  # one key may sign records of other programs, too (BEP 44)
MAX_RECORD = 900  # bytes; BEP 44 allows 1000 with what surrounds it
MAX_ADDRESSES = 8  # a node has few; who looks it up dials them all

_VERSION = "1"


def encode(addresses: Iterable[Address]) -> bytes:
    """The record that names the first few of `addresses`, which have IP addresses for hosts."""
    places = [str(Address(address.host, address.port)) for address in addresses]
    return " ".join([_VERSION, *dict.fromkeys(places).keys()][: 1 + MAX_ADDRESSES]).encode("ascii")


def decode(raw: bytes) -> tuple[Address, ...]:
    """The addresses in a record; none if `encode` would not have written it so."""
    if len(raw) > MAX_RECORD:
        return ()
    try:
        version, *places = raw.decode("ascii").split(" ")
        addresses = tuple(Address.parse(place) for place in places)
        for address in addresses:
            ipaddress.ip_address(address.host)
    except (ValueError, UsageError):
        return ()
    return addresses if version == _VERSION and encode(addresses) == raw else ()
