"""Peer exchange: members of a share telling each other of the others.

Hearsay is never a fact: an address that was told is dialled without expecting
any node behind it, each teller is believed a limited number of addresses, and
nobody on the internet leads this node into a private network, nor is he told of one.
"""

from __future__ import annotations

from collections.abc import Iterable
from random import Random

from furymesh.core.link import Address
from furymesh.discovery.book import PeerBook, Source
from furymesh.net.addresses import may_lead, packed_ip, unpacked_ip
from furymesh.net.secure_link import SecureLink
from furymesh.swarm.share import Share
from furymesh.wire import messages as m

INTRODUCTIONS = 30  # peers told to a newcomer: enough for the degree it needs


def introduce(share: Share, newcomer: SecureLink, rng: Random) -> None:
    """Tell a newcomer who else is here, as far as it can reach them."""
    if share.private:
        return
    addresses = [
        address
        for link in share.members
        if link is not newcomer and (address := _public_address(link, newcomer)) is not None
    ]
    if addresses:
        chosen = rng.sample(addresses, min(len(addresses), INTRODUCTIONS))
        newcomer.send(m.Peers(newcomer.session.number(share.file_id), tuple(chosen)))


def learnt(
    share: Share, teller: SecureLink, peers: Iterable[m.PeerAddress], book: PeerBook
) -> None:
    """A member told us of others."""
    if share.fetcher is None or share.private:
        return
    for peer in peers:
        host = unpacked_ip(peer.ip)
        if may_lead(host, teller.remote[0]):
            # Whose address it is, is for the handshake to find out: a wrong node
            # id from a liar would keep us from a good address.
            address = Address(host, peer.port)
            book.add(share.file_id, address, Source.EXCHANGE, teller=teller.party)


def _public_address(link: SecureLink, newcomer: SecureLink) -> m.PeerAddress | None:
    """Where a newcomer can reach the node at the other end, as far as we can tell."""
    port = link.remote[1] if link.initiator else (link.hello.listen_port if link.hello else 0)
    ip = packed_ip(link.remote[0])
    if link.relayed or not port or not ip or not may_lead(link.remote[0], newcomer.remote[0]):
        return None
    return m.PeerAddress(ip, port, link.node_id)
