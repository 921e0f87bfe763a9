"""A router that forwards nothing, but says so by PCP (RFC 6887) or NAT-PMP (RFC 6886).

It shares no code with furymesh or libtorrent, and can be made to lie.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial

import trio

PORT = 5351  # both standards give no choice
TCP, UDP = 6, 17
UNSUPPORTED_VERSION, REFUSED = 1, 2
PCP_MAP = 1
NAT_PMP_PROTOCOLS = {1: UDP, 2: TCP}


@dataclass
class Router:
    """At `host`; what is granted stands in `granted`: (protocol, inner port) → outer port."""

    host: str
    external: str = "1.2.3.4"  # reserved by APNIC: public, and nobody's
    speaks: str = "PCP"
    lifetime: int = 3600  # seconds that it grants at most
    outer_port: Callable[[int], int] = field(default=lambda wanted: wanted)
    result: int = 0
    lies: Callable[[bytes], bytes] | None = None  # what is sent instead of an answer
    granted: dict[tuple[int, int], int] = field(default_factory=dict)
    heard: list[tuple[int, int, int]] = field(default_factory=list)  # protocol, port, seconds

    def answer(self, packet: bytes) -> bytes:
        if packet[0] == 0:
            return self._nat_pmp(packet)
        if self.speaks == "NAT-PMP":
            return struct.pack(">BBHI", 0, 0x80 | packet[1], UNSUPPORTED_VERSION, 1)
        return self._pcp(packet)

    def _grant(self, protocol: int, inner: int, wanted: int, seconds: int) -> tuple[int, int]:
        """The outer port, and for how long it is forwarded."""
        self.heard.append((protocol, inner, seconds))
        if self.result or not seconds:
            self.granted.pop((protocol, inner), None)
            return 0, 0
        port = self.granted.setdefault((protocol, inner), self.outer_port(wanted))
        return port, min(seconds, self.lifetime)

    def _nat_pmp(self, packet: bytes) -> bytes:
        kind = packet[1]
        head = struct.pack(">BBHI", 0, 0x80 | kind, self.result, 1)
        if kind == 0:
            return head + ipaddress.IPv4Address(self.external).packed
        inner, wanted, seconds = struct.unpack_from(">HHI", packet, 4)
        outer, seconds = self._grant(NAT_PMP_PROTOCOLS[kind], inner, wanted, seconds)
        return head + struct.pack(">HHI", inner, outer, seconds)

    def _pcp(self, packet: bytes) -> bytes:
        assert packet[1] == PCP_MAP
        (seconds,) = struct.unpack_from(">I", packet, 4)
        nonce = packet[24:36]
        protocol, inner, wanted = struct.unpack_from(">BxxxHH", packet, 36)
        outer, seconds = self._grant(protocol, inner, wanted, seconds)
        external = ipaddress.IPv6Address("::ffff:" + self.external).packed
        return (
            struct.pack(">BBBBII12x", 2, 0x80 | PCP_MAP, 0, self.result, seconds, 1)
            + nonce
            + struct.pack(">BxxxHH", protocol, inner, outer)
            + external
        )


@asynccontextmanager
async def open_router(router: Router) -> AsyncIterator[Router]:
    """`router` answers within the block."""
    with trio.socket.socket(type=trio.socket.SOCK_DGRAM) as sock:
        await sock.bind((router.host, PORT))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(_serve, router, sock))
            yield router
            nursery.cancel_scope.cancel()


async def _serve(router: Router, sock: trio.socket.SocketType) -> None:
    while True:
        packet, sender = await sock.recvfrom(2000)
        answer = router.lies or router.answer
        await sock.sendto(answer(packet), sender)
