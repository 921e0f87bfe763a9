"""Peers that find each other in a DHT, on a network where no multicast gets through."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.e2e.mesh import finished, same
from tests.netns.conftest import MakeSegment
from tests.netns.lab import Host, _run

NODES = 8
PATIENCE = 60.0


def drop_multicast(host: Host) -> None:
    for chain in ("INPUT", "OUTPUT"):
        _run(*host.command(["iptables", "-w", "-A", chain, "-d", "224.0.0.0/4", "-j", "DROP"]))


@pytest.mark.netns
@pytest.mark.parametrize(
    "ports",
    [
        1,
        # Nodes of the DHT that were there before give up the dead ones after 15 seconds.
        pytest.param(3, marks=pytest.mark.slow),
    ],
)
def test_without_multicast_a_dht_is_enough_and_who_moved_is_found_again(
    segment: MakeSegment, ports: int
) -> None:
    three = segment(3)
    elsewhere, sharer, user = three.hosts
    for host in three.hosts:
        drop_multicast(host)
    aliases = three.aliases(elsewhere, NODES)
    dht = three.start(elsewhere, [sys.executable, "-m", "tests.dht", *aliases])
    entrances = json.dumps(dht.expect("ready")["entrances"][:1])
    three.config = (
        f"discovery: {{lan: {{enabled: false}}, dht: {{bootstrap_nodes: {entrances}}}}}\n"
    )
    file_id = three.share("sharer")
    for number in range(ports):
        node = three.node(sharer, "sharer")  # at another port each time
        done = finished(
            three.run(user, f"user{number}", "get", file_id, "--output", f"{number}"), PATIENCE
        )
        assert [peer["found"] for peer in done["peers"]] == ["dht"]
        assert same(Path(done["path"]), three.source)
        assert node.stop().code == 0
