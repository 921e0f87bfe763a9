"""A host of the lab that floods discovery: hears questions, and sends lies to who asks.

Run as `lan_flood.py --rate N --tell N --seed N HOST…`; the hosts are addresses of its own
from which it sends. After N datagrams it says how many of each kind it sent, and goes on
until it is ended. With `--at HOST` all of it goes to that host, where nobody asked.
"""

from __future__ import annotations

import argparse
import json
import socket
import struct
import time
from collections import Counter
from random import Random

from furymesh.core.errors import ProtocolError
from furymesh.core.ids import DiscoveryTag, NodeId
from furymesh.net.multicast import GROUP_V4, PORT
from furymesh.wire.datagrams import (
    MAX_DATAGRAM,
    Discover,
    Offer,
    Service,
    decode,
    encode_discover,
    encode_offer,
)

BATCH_SECONDS = 0.02
POOL = 500  # datagrams of a kind: making them must not take the processor from others
FAKES = 10  # one datagram of so many makes up a peer


class Flood:
    def __init__(self, hosts: list[str], seed: int) -> None:
        self.rng = Random(seed)
        self.sent: Counter[str] = Counter()
        self.tags: list[DiscoveryTag] = []
        self.pools: dict[str, list[bytes]] = {}
        self.targets: list[tuple[str, int]] = []
        self.at: str | None = None
        self.ears = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.ears.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.ears.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self.ears.bind((GROUP_V4, PORT))
        index = socket.if_nametoindex("eth0")
        group = struct.pack("=4s4si", socket.inet_aton(GROUP_V4), bytes(4), index)
        self.ears.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group)
        way_out = struct.pack("=4s4si", bytes(4), bytes(4), index)
        self.mouths = []
        for host in hosts:
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            sock.bind((host, 0))
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, way_out)
            self.mouths.append(sock)

    def listen(self, seconds: float | None) -> None:
        """Learn who asks for what."""
        self.ears.settimeout(seconds)
        try:
            raw, sender = self.ears.recvfrom(2000)
            message = decode(raw)
        except (TimeoutError, BlockingIOError, ProtocolError):
            return
        if isinstance(message, Discover) and sender not in self.targets:
            self.targets = [*self.targets, sender][-8:]
            self.tags = list({*self.tags, *message.tags})[-8:]
            self.pools.clear()

    def send(self) -> None:
        kind = "fake" if self.rng.randrange(FAKES) == 0 else self.rng.choice(_KINDS)
        raw = self._make(kind)
        to = self.rng.choice(self.targets) if kind != "question" else (GROUP_V4, PORT)
        if self.at is not None:
            to = (self.at, PORT)
        self.rng.choice(self.mouths).sendto(raw, to)
        self.sent[kind] += 1

    def _make(self, kind: str) -> bytes:
        """A datagram: of made-up peers each is another, of the rest many are sent again."""
        if kind == "fake":
            return self._made(kind)
        pool = self.pools.setdefault(kind, [])
        if len(pool) < POOL:
            pool.append(self._made(kind))
            return pool[-1]
        return self.rng.choice(pool)

    def _made(self, kind: str) -> bytes:
        rng = self.rng
        node_id, instance = NodeId(rng.randbytes(32)), rng.randbytes(8)
        tag = rng.choice(self.tags)
        if kind == "question":
            return encode_discover(Discover(Service.SWARM, node_id, instance, (tag,)))
        port = rng.randrange(1, 65536)
        good = encode_offer(Offer(Service.SWARM, node_id, instance, port, (tag,)), MAX_DATAGRAM)
        if kind == "fake":
            return good
        if kind == "noise":
            return rng.randbytes(rng.randrange(1400))
        if kind == "deep":
            return b'{"version":1,"tags":' + b"[" * rng.randrange(1100)
        bad = bytearray(good)
        for _ in range(rng.randrange(1, 9)):
            bad[rng.randrange(len(bad))] = rng.randrange(256)
        return bytes(bad)


_KINDS = ("question", "noise", "deep", "mutated")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rate", type=int, default=10_000)
    parser.add_argument("--tell", type=int, default=0)
    parser.add_argument("--at")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("hosts", nargs="+")
    options = parser.parse_args()
    flood = Flood(options.hosts, options.seed)
    flood.at = options.at
    print(json.dumps({"event": "ready"}), flush=True)
    while not flood.targets:
        flood.listen(None)
    print(json.dumps({"event": "flooding"}), flush=True)
    start, sent = time.monotonic(), 0
    while True:
        due = int((time.monotonic() - start) * options.rate)
        for _ in range(sent, due):
            flood.send()
        if sent < options.tell <= due:
            took = time.monotonic() - start
            print(json.dumps({"event": "sent", "seconds": took, **flood.sent}), flush=True)
        sent = due
        flood.listen(0)
        time.sleep(BATCH_SECONDS)


if __name__ == "__main__":
    main()
