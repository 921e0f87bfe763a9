"""What is said to a BitTorrent tracker, and over HTTP (BEP 3, 7, 23).

`furymesh.wire.tracker_udp` has the other spelling of the same. A tracker brings
together who asks for the same info-hash; it is a stranger, and so is whoever it
names. No more is told than it needs: how much is transferred or left is not.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from urllib.parse import quote

from furymesh.core.errors import ProtocolError
from furymesh.core.link import Address
from furymesh.core.paths import shown
from furymesh.wire import bencode

PEER_ID_SIZE = 20
# Peers asked for, and taken from one answer: more than a swarm node links to, so
# that some may be gone, and far fewer than its address book holds.
MAX_PEERS = 50
# Seconds between announces whatever the tracker wishes: one that says "now" is not
# overrun, and one that says "in a year" does not make us forgotten.
MIN_INTERVAL = 60
MAX_INTERVAL = 2 * 3600
DEFAULT_INTERVAL = 1800  # where an answer has none
MAX_REASON = 120  # characters of a refusal that are repeated
MAX_TRACKER_ID = 128  # bytes that a tracker may have us say again


class Event(IntEnum):
    """Why an announce is made; the numbers are those of BEP 15."""

    NONE = 0  # the interval has passed
    COMPLETED = 1
    STARTED = 2
    STOPPED = 3


@dataclass(frozen=True, slots=True)
class Announce:
    """What a tracker is told. A random `peer_id` and `key` stand for who says so."""

    info_hash: bytes
    peer_id: bytes
    key: int  # 32 bits
    port: int  # 0: not to be dialled, who says so only looks
    wanted: bool  # something is missing, and peers are asked for
    event: Event
    tracker_id: bytes = b""  # of the answer before

    @property
    def left(self) -> int:
        """Bytes that are missing: whether there are any is all a tracker learns."""
        return int(self.wanted)

    @property
    def peers_wanted(self) -> int:
        return MAX_PEERS if self.wanted and self.event is not Event.STOPPED else 0


@dataclass(frozen=True, slots=True)
class Answer:
    """Who else announced the same, and when to say so again, in seconds.

    Before `min_interval` is over, only an event may be told.
    """

    interval: int
    min_interval: int
    peers: tuple[Address, ...]  # IP addresses
    tracker_id: bytes = b""


@dataclass(frozen=True, slots=True)
class Refusal:
    """The tracker works, and wants nothing to do with this info-hash or this node."""

    reason: str  # in the tracker's words, safe to show

    @classmethod
    def of(cls, raw: bytes) -> Refusal:
        text = raw[:MAX_REASON].decode("utf-8", "replace").strip("\0 \r\n")
        return cls(shown(text) or "no reason given")


def query(announce: Announce) -> str:
    """The URL query of an announce over HTTP."""
    fields: dict[str, str] = {
        "info_hash": quote(announce.info_hash, safe=""),
        "peer_id": quote(announce.peer_id, safe=""),
        "port": str(announce.port),
        "uploaded": "0",
        "downloaded": "0",
        "left": str(announce.left),
        "compact": "1",
        "no_peer_id": "1",
        "numwant": str(announce.peers_wanted),
        "key": f"{announce.key:08x}",
    }
    if announce.event is not Event.NONE:
        fields["event"] = announce.event.name.lower()
    if announce.tracker_id:
        fields["trackerid"] = quote(announce.tracker_id, safe="")
    return "&".join(f"{name}={value}" for name, value in fields.items())


def parse_answer(raw: bytes) -> Answer | Refusal:
    """Read the body of a tracker's HTTP answer; raises ProtocolError."""
    fields = bencode.decode(raw)
    if not isinstance(fields, dict):
        raise ProtocolError("a tracker's answer is not a dictionary")
    reason = fields.get(b"failure reason")
    if reason is not None:
        return Refusal.of(reason if isinstance(reason, bytes) else b"")
    peers = fields.get(b"peers", b"")
    found = compact_peers(peers, 4) if isinstance(peers, bytes) else _listed_peers(peers)
    peers6 = fields.get(b"peers6", b"")
    if not isinstance(peers6, bytes):
        raise ProtocolError("a tracker's peers6 are not a string")
    tracker_id = fields.get(b"tracker id", b"")
    if not isinstance(tracker_id, bytes) or len(tracker_id) > MAX_TRACKER_ID:
        tracker_id = b""
    return make_answer(
        fields.get(b"interval"),
        fields.get(b"min interval"),
        (*found, *compact_peers(peers6, 16)),
        tracker_id,
    )


def make_answer(
    interval: object, min_interval: object, peers: Iterable[Address], tracker_id: bytes = b""
) -> Answer:
    """An answer with its times within bounds, and each peer once."""
    wished = interval if isinstance(interval, int) else DEFAULT_INTERVAL
    pause = min(max(wished, MIN_INTERVAL), MAX_INTERVAL)
    least = min(max(min_interval if isinstance(min_interval, int) else 0, 0), pause)
    return Answer(pause, least, tuple(dict.fromkeys(peers))[:MAX_PEERS], tracker_id)


def compact_peers(raw: bytes, ip_size: int) -> Iterator[Address]:
    """Addresses of `ip_size` bytes with two of port each; raises ProtocolError.

    The length is checked at once, addresses come one by one.
    """
    size = ip_size + 2
    if len(raw) % size:
        raise ProtocolError("a tracker's list of peers is cut short")
    entries = (raw[at : at + size] for at in range(0, len(raw), size))
    return (
        Address(_text(ipaddress.ip_address(entry[:ip_size])), port)
        for entry in entries
        if (port := int.from_bytes(entry[ip_size:], "big"))
    )


def _listed_peers(peers: bencode.Value) -> Iterator[Address]:
    """Those of a list that have an IP address and a port; names are passed over."""
    if not isinstance(peers, list):
        raise ProtocolError("a tracker's peers are not a list")
    for peer in peers:
        if not isinstance(peer, dict):
            raise ProtocolError("a peer in a tracker's list is not a dictionary")
        host, port = peer.get(b"ip"), peer.get(b"port")
        if isinstance(host, bytes) and isinstance(port, int) and 0 < port < 1 << 16:
            try:
                yield Address(_text(ipaddress.ip_address(host.decode("ascii"))), port)
            except ValueError:
                continue


def _text(ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    """One spelling of each address: without a zone, and IPv4 as such."""
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    return str(mapped or ip).partition("%")[0]
