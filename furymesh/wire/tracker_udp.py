"""The packets of the UDP tracker protocol (BEP 15; lists of IPv6 peers as in BEP 7).

Whoever announces first asks for a connection id, which shows that it receives
what is sent to its address. Every answer repeats the question's transaction id.
"""

from __future__ import annotations

import struct

from furymesh.core.errors import ProtocolError
from furymesh.wire.tracker import Announce, Answer, Refusal, compact_peers, make_answer

MAX_PACKET = 4096  # bytes; 200 IPv6 peers in one datagram, which the road would have cut
CONNECTION_SECONDS = 60.0  # how long a connection id may be used
# Seconds to wait for an answer to each packet. The protocol's 15, 30, 60 … make a user
# wait for a packet that was lost; these are the waits of a TCP connect, so a tracker
# gets no more of them than connection attempts over HTTP.
RETRANSMIT_SECONDS = (1.0, 2.0, 4.0, 8.0)

_PROTOCOL = 0x41727101980
_CONNECT, _ANNOUNCE, _SCRAPE, _ERROR = range(4)
_HEAD = struct.Struct(">II")  # action, transaction id
_CONNECT_REQUEST = struct.Struct(">QII")
_ANNOUNCE_REQUEST = struct.Struct(">QII20s20sQQQIIIiH")
_CONNECTED = struct.Struct(">IIQ")
_ANNOUNCED = struct.Struct(">IIIII")


def connect_request(transaction: int) -> bytes:
    return _CONNECT_REQUEST.pack(_PROTOCOL, _CONNECT, transaction)


def announce_request(connection: int, transaction: int, announce: Announce) -> bytes:
    """The address of the sender counts, so none is written into the packet."""
    return _ANNOUNCE_REQUEST.pack(
        connection,
        _ANNOUNCE,
        transaction,
        announce.info_hash,
        announce.peer_id,
        0,
        announce.left,
        0,
        announce.event,
        0,
        announce.key,
        announce.peers_wanted,
        announce.port,
    )


def is_answer(packet: bytes, transaction: int) -> bool:
    """Whether a packet answers that question; others are strays, or forged."""
    return len(packet) >= _HEAD.size and _HEAD.unpack_from(packet)[1] == transaction


def parse_connected(packet: bytes) -> int | Refusal:
    """The connection id in an answer to `connect_request`; raises ProtocolError."""
    body = _body(packet, _CONNECT, _CONNECTED.size)
    return body if isinstance(body, Refusal) else int(_CONNECTED.unpack_from(packet)[2])


def parse_announced(packet: bytes, *, ip_size: int) -> Answer | Refusal:
    """Read an answer to `announce_request`; raises ProtocolError.

    Its peers' addresses are of the kind that the tracker was asked at, 4 or 16 bytes.
    """
    body = _body(packet, _ANNOUNCE, _ANNOUNCED.size)
    if isinstance(body, Refusal):
        return body
    interval = _ANNOUNCED.unpack_from(packet)[2]
    return make_answer(interval, None, compact_peers(body, ip_size))


def _body(packet: bytes, action: int, size: int) -> bytes | Refusal:
    """What follows the fixed fields of an answer of the expected kind."""
    if len(packet) < _HEAD.size or len(packet) > MAX_PACKET:
        raise ProtocolError("a tracker's packet is of an impossible size")
    found, _ = _HEAD.unpack_from(packet)
    if found == _ERROR:
        return Refusal.of(packet[_HEAD.size :])
    if found == action and len(packet) == _HEAD.size:
        return Refusal.of(b"")  # so opentracker, of an info-hash that it does not serve
    if found != action or len(packet) < size:
        raise ProtocolError("a tracker's packet is of another kind, or cut short")
    return packet[size:]
