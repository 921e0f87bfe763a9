"""By which nodes a DHT is entered, and what kind of DHT that makes it.

Always true: a DHT is a private one if the configuration names private addresses as
bootstrap nodes, or none, and nothing else; only there are private addresses believed,
and libtorrent's limits against abuse relaxed. Whatever name servers say, they neither
make a DHT a private one nor lead into a private network.

libtorrent gets no names: a session that waits for a mute name server when it ends
holds Python's lock for as long as that takes.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING

import trio

from furymesh.core.link import Address
from furymesh.discovery.dht_state import MAX_NODES, Nodes
from furymesh.net.addresses import is_public, packed_ip
from furymesh.net.interfaces import address_towards, reachable_hosts
from furymesh.net.resolving import look_up

if TYPE_CHECKING:
    import libtorrent as lt

RESOLVE_SECONDS = 2.0  # for name servers; slow ones have the answer ready the next time
MAX_LOOKUPS = 4  # names at once; there are three of the public DHT

# Bytes a second. libtorrent's 8000 are enough for about one lookup a second.
PUBLIC_UPLOAD = 16_000
PRIVATE_UPLOAD = 1_000_000
# Packets a second from one address before it is ignored for minutes. The first is
# libtorrent's; in a private network many nodes may share a machine.
PUBLIC_BLOCK_RATE = 5
PRIVATE_BLOCK_RATE = 10_000


class Entrances:
    """The nodes that a DHT is entered by: bootstrap nodes, and those met before."""

    def __init__(self, bootstrap: Iterable[Address], known: Nodes) -> None:
        self._bootstrap = tuple(bootstrap)
        self._resolved: Nodes = ()
        self._misled = False  # name servers told of private addresses only
        self._threads = trio.CapacityLimiter(MAX_LOOKUPS)
        self.private = not any(map(_may_be_public, self._bootstrap))
        self.known: Nodes = ()
        self.remember(known)

    @property
    def places(self) -> Nodes:
        """Where there are some, as far as is known."""
        return (*self._resolved, *self.known)

    def __bool__(self) -> bool:
        return bool(self.places)

    def remember(self, met: Nodes) -> None:
        """Enter by these, too, unless they are of another DHT and would lead there."""
        fitting = [node for node in met if is_public(node[0]) is not self.private]
        self.known = tuple(dict.fromkeys((*fitting, *self.known)))[:MAX_NODES]

    @property
    def unresolved(self) -> bool:
        """Whether there are bootstrap nodes, and no name of them is known (yet)."""
        return bool(self._bootstrap) and not self._resolved

    @property
    def trouble(self) -> str:
        """Why there is none, "" if there are some or none is needed."""
        if self or not self._bootstrap:
            return ""
        if self._misled:
            return "the names of its bootstrap nodes lead to private addresses"
        return "no name server tells where its bootstrap nodes are"

    async def resolve(self) -> None:
        """Ask for the addresses of the bootstrap nodes."""
        found: list[tuple[str, int]] = []
        answers: list[str] = []

        async def resolve(node: Address) -> None:
            with suppress(OSError, UnicodeError):
                kind, literal = socket.SOCK_DGRAM, bool(packed_ip(node.host))
                hosts = await look_up(node.host, node.port, socket.AF_UNSPEC, kind, self._threads)
                answers.extend(hosts)
                found.extend((host, node.port) for host in hosts if literal or is_public(host))

        with trio.move_on_after(RESOLVE_SECONDS):
            async with trio.open_nursery() as nursery:
                for node in self._bootstrap:
                    nursery.start_soon(resolve, node)
        self._resolved = tuple(found)
        self._misled = bool(answers) and not found

    def _own_hosts(self, host: str) -> list[str]:
        """Where to listen. Of all addresses (0.0.0.0, ::) libtorrent uses those from which
        the internet can be reached, so others are named one by one.
        """
        if not ipaddress.ip_address(host).is_unspecified or not self.private:
            return [host]
        towards = [address_towards(*node) for node in self.places]
        own = list(dict.fromkeys(address for address in towards if address is not None))
        return own or reachable_hosts(host)

    @property
    def teller(self) -> str:
        """Whose word what is found there counts as: of a node in a private DHT, which may
        be one of this machine, else nobody's.
        """
        return next((host for host, _ in self.places if self.private), "")

    def believes(self, host: str, port: int) -> bool:
        """Whether an address that strangers told may be that of somebody to dial.

        In the public DHT it is a public one: nobody out there makes this node knock at
        doors of the local network.
        """
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            return False
        if not port or address.is_unspecified or address.is_multicast:
            return False
        return self.private or address.is_global

    def settings(self, host: str, port: int) -> lt.settings_pack:
        """What libtorrent has to know of them, and where to listen to reach them."""
        public = not self.private
        return {
            "listen_interfaces": _listed((own, port) for own in self._own_hosts(host)),
            "dht_bootstrap_nodes": _listed(self._resolved),
            "dht_upload_rate_limit": PUBLIC_UPLOAD if public else PRIVATE_UPLOAD,
            "dht_block_ratelimit": PUBLIC_BLOCK_RATE if public else PRIVATE_BLOCK_RATE,
            # One node an address or a /24 against Sybils, and ids tied to addresses
            # (BEP 42): nothing that private addresses could satisfy.
            "dht_restrict_routing_ips": public,
            "dht_restrict_search_ips": public,
            "dht_prefer_verified_node_ids": public,
            "dht_ignore_dark_internet": public,
        }


def _listed(places: Iterable[tuple[str, int]]) -> str:
    return ",".join(
        f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in places
    )


def _may_be_public(node: Address) -> bool:
    return is_public(node.host) or not packed_ip(node.host)
