"""Whom a node knows: its links, and the addresses it heard of and what came of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from furymesh.core.ids import FileId, NodeId
from furymesh.core.link import Address
from furymesh.net.secure_link import SecureLink
from furymesh.swarm.mirrors import CONNECTED, FOUND
from furymesh.swarm.swarm import Swarm


@dataclass(frozen=True, slots=True)
class KnownPeer:
    """One peer of a share, or of none while a link is new."""

    file_id: FileId | None
    node_id: NodeId | None  # None: nobody has answered there yet
    address: str
    found: str  # how its address was come by, "incoming" if it dialled
    state: str  # "connected", or what came of trying
    relayed: bool = False  # through a relay, or known from one


def known_peers(swarm: Swarm) -> list[KnownPeer]:
    """All of them, the connected ones of each share first."""
    busy = {link for share in swarm.shares.values() for link in share.members}
    return [
        *(peer for file_id in swarm.shares for peer in _of_share(swarm, file_id)),
        *(_linked(None, link) for link in swarm.links.values() if link not in busy),
    ]


def _of_share(swarm: Swarm, file_id: FileId) -> Iterator[KnownPeer]:
    for mirror in swarm.shares[file_id].mirrors:
        yield KnownPeer(file_id, None, mirror.place, FOUND, mirror.state)
    members = swarm.shares[file_id].members
    processes = {link.process for link in members}
    for link in members:
        yield _linked(file_id, link)
    for candidate in swarm.book.candidates(file_id):
        if candidate.process not in processes:
            # Before a link, who is there is a claim of whoever told of it.
            node_id = candidate.process[0] if candidate.linked and candidate.process else None
            address = Address(candidate.address.host, candidate.address.port)
            found = candidate.source.label
            yield KnownPeer(
                file_id, node_id, str(address), found, candidate.outcome, candidate.relayed
            )


def _linked(file_id: FileId | None, link: SecureLink) -> KnownPeer:
    address = str(Address(*link.remote))
    return KnownPeer(file_id, link.node_id, address, link.found, CONNECTED, link.relayed)
