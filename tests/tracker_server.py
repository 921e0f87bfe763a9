"""A small BitTorrent tracker for tests: real sockets, HTTP and UDP, and it tells what it heard.

It shares no code with furymesh: the packets are taken apart here once more.
"""

from __future__ import annotations

import json
import socket
import ssl
import struct
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import parse_qsl

import trio

from tests.bencoding import bencoded

EVENTS = ("", "completed", "started", "stopped")


@dataclass(frozen=True)
class Heard:
    """One announce."""

    info_hash: bytes
    peer_id: bytes
    port: int
    left: int
    event: str
    numwant: int
    key: int
    ip: str
    at: float


class TestTracker:
    """`heard` in order; `swarms` by info-hash: who is in it, as (ip, port)."""

    __test__ = False

    def __init__(self, host: str = "127.0.0.1", interval: int = 1800) -> None:
        self.host = host
        self.interval = interval
        self.heard: list[Heard] = []
        self.swarms: dict[bytes, set[tuple[str, int]]] = {}
        self.requests: list[str] = []  # the heads of HTTP requests
        self.packets: list[tuple[float, bytes]] = []  # UDP, as received
        self.connections: set[int] = set()
        self.reply: Callable[[str], bytes] | None = None  # instead of an HTTP answer
        self.packet_reply: Callable[[bytes], bytes | None] | None = None  # of a UDP one
        self.tell: Callable[[Heard], None] = lambda heard: None
        self.port = 0

    def url(self, scheme: str) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{scheme}://{host}:{self.port}/announce"

    def events(self) -> list[str]:
        return [heard.event for heard in self.heard]

    def _announced(self, heard: Heard) -> list[tuple[str, int]]:
        """The swarm without those who leave it, at most as many as were asked for."""
        self.heard.append(heard)
        self.tell(heard)
        swarm = self.swarms.setdefault(heard.info_hash, set())
        if heard.event == "stopped":
            swarm.discard((heard.ip, heard.port))
        else:
            swarm.add((heard.ip, heard.port))
        return sorted(swarm)[: heard.numwant]

    # --- HTTP -------------------------------------------------------------------------

    async def serve_http(self, stream: trio.abc.Stream, ip: str) -> None:
        request = b""
        while b"\r\n\r\n" not in request:
            part = await stream.receive_some(4096)
            if not part:
                return
            request += part
        head = request.decode("ascii")
        self.requests.append(head)
        target = head.split(" ")[1]
        await stream.send_all(self.reply(target) if self.reply else self._http_answer(target, ip))

    def _http_answer(self, target: str, ip: str) -> bytes:
        path, _, query = target.partition("?")
        fields = dict(parse_qsl(query, encoding="latin-1", keep_blank_values=True))
        if path != "/announce" or not {"info_hash", "peer_id", "port", "left"} <= fields.keys():
            return http(b"", "404 Not Found")
        heard = Heard(
            fields["info_hash"].encode("latin-1"),
            fields["peer_id"].encode("latin-1"),
            int(fields["port"]),
            int(fields["left"]),
            fields.get("event", ""),
            int(fields.get("numwant", "50")),
            int(fields.get("key", "0"), 16),
            ip,
            trio.current_time(),
        )
        swarm = self._announced(heard)
        peers = {
            family: b"".join(
                socket.inet_pton(family, host) + port.to_bytes(2, "big")
                for host, port in swarm
                if (":" in host) == (family == socket.AF_INET6)
            )
            for family in (socket.AF_INET, socket.AF_INET6)
        }
        return http(
            bencoded(
                {
                    b"interval": self.interval,
                    b"peers": peers[socket.AF_INET],
                    b"peers6": peers[socket.AF_INET6],
                }
            )
        )

    # --- UDP --------------------------------------------------------------------------

    def udp_answer(self, packet: bytes, ip: str) -> bytes | None:
        self.packets.append((trio.current_time(), packet))
        if self.packet_reply:
            return self.packet_reply(packet)
        number, action, transaction = struct.unpack_from(">QII", packet)
        if action == 0:
            assert number == 0x41727101980
            connection = 2**63 + len(self.packets)
            self.connections.add(connection)
            return struct.pack(">IIQ", 0, transaction, connection)
        if number not in self.connections:
            return struct.pack(">II", 3, transaction) + b"connection id unknown"
        assert action == 1
        assert len(packet) == 98
        info_hash, peer_id = packet[16:36], packet[36:56]
        _, left, _, event, _, key, numwant, port = struct.unpack_from(">QQQIIIiH", packet, 56)
        heard = Heard(
            *(info_hash, peer_id, port, left, EVENTS[event], numwant, key, ip),
            at=trio.current_time(),
        )
        family = socket.AF_INET6 if ":" in ip else socket.AF_INET
        peers = b"".join(
            socket.inet_pton(family, host) + port.to_bytes(2, "big")
            for host, port in self._announced(heard)
        )
        return struct.pack(">IIIII", 1, transaction, self.interval, 0, 1) + peers


def http(body: bytes, status: str = "200 OK", headers: str = "") -> bytes:
    """An HTTP answer; `headers` end with CRLF each."""
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{headers}\r\n".encode() + body


async def _bound(host: str, port: int) -> tuple[list[trio.SocketListener], trio.socket.SocketType]:
    """One port over TCP and UDP, so that whoever starts again on it finds both free."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    while True:
        listeners = await trio.open_tcp_listeners(port, host=host)
        datagrams = trio.socket.socket(family, socket.SOCK_DGRAM)
        try:
            await datagrams.bind((host, listeners[0].socket.getsockname()[1]))
        except OSError:
            datagrams.close()
            await listeners[0].aclose()
            if port:
                raise
        else:
            return listeners, datagrams


@asynccontextmanager
async def open_tracker(
    tracker: TestTracker, *, port: int = 0, tls: ssl.SSLContext | None = None
) -> AsyncIterator[TestTracker]:
    """Serve on a free port, or on `port`, the same over TCP and UDP, within the block."""
    listeners, datagrams = await _bound(tracker.host, port)
    tracker.port = datagrams.getsockname()[1]

    async def serve(plain: trio.SocketStream) -> None:
        ip = plain.socket.getpeername()[0]
        stream: trio.abc.Stream = plain
        if tls is not None:
            stream = trio.SSLStream(plain, tls, server_side=True, https_compatible=True)
        try:
            async with stream:
                await tracker.serve_http(stream, ip)
        except trio.BrokenResourceError:
            return  # who asked does not wait for the end

    async def serve_udp() -> None:
        while True:
            packet, address = await datagrams.recvfrom(4096)
            answer = tracker.udp_answer(packet, address[0])
            if answer is not None:
                await datagrams.sendto(answer, address)

    with datagrams:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.serve_listeners, serve, listeners)
            nursery.start_soon(serve_udp)
            try:
                yield tracker
            finally:
                nursery.cancel_scope.cancel()


async def _serve(host: str) -> None:
    def say(event: str, **facts: object) -> None:
        print(json.dumps({"event": event, **facts}), flush=True)

    async with open_tracker(TestTracker(host)) as tracker:
        tracker.tell = lambda heard: say("announced", place=f"{heard.ip}:{heard.port}")
        say("up", port=tracker.port)
        await trio.sleep_forever()


if __name__ == "__main__":
    trio.run(_serve, sys.argv[1])
