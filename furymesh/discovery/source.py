"""What a source of peers is: what it is told, and what it tells.

A source announces what this node has and looks for what it lacks, in its own
way: multicast, the DHT, a tracker. It knows a share by its discovery tag only,
which says nothing to those who do not know the share already. What it finds is
a hint; who is really there is for the secure link to find out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

import trio

from furymesh.core.ids import DiscoveryTag, NodeId, Process
from furymesh.core.link import Address
from furymesh.discovery.book import Source
from furymesh.net.addresses import may_be_mapped


@dataclass(frozen=True, slots=True)
class Sighting:
    """Somebody who seems to take part in a share."""

    tag: DiscoveryTag
    address: Address  # its host is an IP address; a node id in it is pinned by the link
    # Whose word it is, an IP address where there is one: what only means something at the
    # teller's machine or network, such as loopback, is believed only of one who is there.
    teller: str = ""
    # Which process it claims to be, to spare a second link to one that is linked. It
    # is not pinned: who lies could keep us from a good address.
    process: Process | None = None


Tell = Callable[[Sighting], None]


@dataclass(frozen=True, slots=True)
class Mapping:
    """A port of a router at which this process is reached from the internet, as that says."""

    port: int
    host: str = ""  # the router's public IP address, "" if it told none

    def __str__(self) -> str:
        return str(Address(self.host, self.port)) if self.host else f"port {self.port}"


class Interests:
    """The shares that sources may speak of: never a private one.

    Always true: whoever waits in `changed` is woken by every change after the
    wait began.
    """

    def __init__(self, port: int) -> None:
        """`port` is where this process accepts links; 0 for nowhere: then there is
        nothing to announce, and sources only look."""
        self.port = port
        self._mapping: Mapping | None = None
        # With how many peers a share is live: whoever has many looks less often.
        self.peers: Callable[[DiscoveryTag], int] = lambda tag: 0
        self._wanted: dict[DiscoveryTag, bool] = {}
        self._nodes: dict[DiscoveryTag, frozenset[NodeId]] = {}
        self._changed = trio.Event()

    @property
    def announced(self) -> frozenset[DiscoveryTag]:
        """Shares that this process takes part in, and whose peers may dial it."""
        return frozenset(self._wanted) if self.port else frozenset()

    @property
    def wanted(self) -> frozenset[DiscoveryTag]:
        """Shares whose peers are looked for."""
        return frozenset(tag for tag, wanted in self._wanted.items() if wanted)

    def is_wanted(self, tag: DiscoveryTag) -> bool:
        return self._wanted.get(tag, False)

    def is_announced(self, tag: DiscoveryTag) -> bool:
        return self.port > 0 and tag in self._wanted

    @property
    def sought(self) -> frozenset[tuple[DiscoveryTag, NodeId]]:
        """Nodes that are said to have a share that is wanted, wherever they are now."""
        return frozenset(
            (tag, node) for tag in self.wanted for node in self._nodes.get(tag, frozenset())
        )

    @property
    def mapping(self) -> Mapping | None:
        """How others reach this process from outside, if a router forwards its port."""
        return self._mapping

    @mapping.setter
    def mapping(self, mapping: Mapping | None) -> None:
        if mapping != self._mapping:
            self._mapping = mapping
            self._change()

    @property
    def public_port(self) -> int:
        """The port to announce where the internet hears it."""
        return self._mapping.port if self._mapping is not None and self.port else self.port

    def port_for(self, host: str) -> int:
        """The port to tell of to who is at an IP address, or of this machine's address `host`."""
        return self.public_port if may_be_mapped(host) else self.port

    def add(self, tag: DiscoveryTag, *, wanted: bool) -> None:
        """Take part in a share; again, when it is no longer `wanted`, or is."""
        if self._wanted.get(tag) is not wanted:
            self._wanted[tag] = wanted
            self._change()

    def seek(self, tag: DiscoveryTag, nodes: Iterable[NodeId]) -> None:
        """Look for these nodes, too, which a link names, while the share is wanted."""
        self._nodes[tag] = frozenset(nodes)
        self._change()

    def remove(self, tag: DiscoveryTag) -> None:
        """Take part no more; nothing happens if that was so."""
        self._nodes.pop(tag, None)
        if self._wanted.pop(tag, None) is not None:
            self._change()

    async def changed(self) -> None:
        """Return at the next change."""
        await self._changed.wait()

    def _change(self) -> None:
        self._changed.set()
        self._changed = trio.Event()


class PeerSource(Protocol):
    """One way to find peers."""

    @property
    def source(self) -> Source:
        """As whose word its sightings count."""

    @property
    def troubles(self) -> tuple[str, ...]:
        """Why it finds nobody, or fewer, at the moment: what of it fails and how, a line
        for each reason, safe to show."""

    async def run(self, interests: Interests, tell: Tell) -> None:
        """Announce and look, until cancelled, and `tell` of what is found.

        A share that becomes wanted is looked for at once; one that is no longer
        announced is not answered for. Sockets and sessions are closed when it
        ends. Raises EnvironmentFault if it cannot work here (now), such as for
        want of a network; who runs it tries again later.
        """
