"""A DHT of real nodes on loopback, for whoever tests what uses one.

Each node has an address of its own (127.0.0.2 and up), as those of the world have.
`python -m tests.dht HOST…` runs one in a process, on other addresses.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import libtorrent as lt
import trio

from furymesh.core.link import Address
from furymesh.discovery import dht_state
from furymesh.discovery.dht import Dht
from tests.waiting import block_until

HOSTS = tuple(f"127.0.0.{number}" for number in range(2, 10))
PATIENCE = 20.0  # seconds for what takes a tenth of one
ASK_SECONDS = 0.2  # between two questions for the same


class DhtNetwork:
    """One node for each host, and all know each other, except those that were killed."""

    def __init__(self, hosts: Sequence[str]) -> None:
        self._nodes = {host: _node(host) for host in hosts}
        places = [(host, node.listen_port()) for host, node in self._nodes.items()]
        for node in self._nodes.values():
            for place in places:
                node.add_dht_node(place)
        block_until(lambda: min(map(_known, self._nodes.values())) == len(hosts) - 1)

    @property
    def entrances(self) -> list[Address]:
        """Where the nodes can be asked."""
        return [Address(host, node.listen_port()) for host, node in self._nodes.items()]

    def kill(self, address: Address) -> None:
        """End a node without a word to the others."""
        del self._nodes[address.host]


async def announced(dht: Dht, info_hash: bytes, count: int = 1) -> set[tuple[str, int]]:
    """Who announced it, once so many are named; one who asks early hears of fewer."""
    found: set[tuple[str, int]] = set()
    enough = trio.Event()

    def heard(peers: list[tuple[str, int]]) -> None:
        found.update(peers)
        if len(found) >= count:
            enough.set()

    with dht.listening(info_hash, heard), trio.fail_after(PATIENCE):
        while not enough.is_set():
            dht.get_peers(info_hash)
            with trio.move_on_after(ASK_SECONDS):
                await enough.wait()
    return found


@contextmanager
def dht_network(hosts: Sequence[str] = HOSTS) -> Iterator[DhtNetwork]:
    network = DhtNetwork(hosts)
    try:
        yield network
    finally:
        network._nodes.clear()


def _node(host: str) -> lt.session:
    return lt.session(
        {
            "listen_interfaces": f"{host}:0",
            "enable_dht": True,
            "enable_lsd": False,
            "enable_upnp": False,
            "enable_natpmp": False,
            "dht_bootstrap_nodes": "",
            # All of 127.0.0.0/8 counts as one neighbour to libtorrent.
            "dht_restrict_routing_ips": False,
            "dht_restrict_search_ips": False,
            "dht_prefer_verified_node_ids": False,
            "dht_ignore_dark_internet": False,
            "dht_upload_rate_limit": 1_000_000,
            "dht_block_ratelimit": 10_000,
        }
    )


def _known(node: lt.session) -> int:
    """How many nodes that answered `node` knows."""
    flag = lt.save_state_flags_t.save_dht_state
    return len(dht_state.decode(lt.write_session_params_buf(node.session_state(flag), flag)))


if __name__ == "__main__":
    with dht_network(sys.argv[1:]) as made:
        print(
            json.dumps({"event": "ready", "entrances": list(map(str, made.entrances))}), flush=True
        )
        threading.Event().wait()
