"""Real processes that know nothing of each other but a relay."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import trio

from furymesh.node.control_client import call
from tests.e2e.mesh import Mesh, finished, same, write_blob

SIZE = 3_000_000


def use(relay: str) -> str:
    return f'discovery: {{lan: {{enabled: false}}, dht: {{enabled: false}}, relays: ["{relay}"]}}\n'


def status(home: Path) -> dict[str, Any]:
    return trio.run(call, home / "control.sock", "GET", "/v1/status")


def test_a_relay_brings_together_who_takes_part_in_a_share(mesh: Mesh) -> None:
    mesh.home("relay", "node: {relay: true}\n")
    relay = mesh.node("relay")
    for name in ("seed", "leecher"):
        mesh.config_of(mesh.home(name)).write_text(use(f"{relay.node_id}@{relay.address}"))
    source = write_blob(mesh.root / "film.bin", SIZE, seed=4)
    link = mesh.share("seed", source).link.text
    # The download waits for the seed, so that each end is introduced to the other.
    download = mesh.start_get("leecher", link)
    seed = mesh.node("seed")
    complete = finished(download)
    (found,) = status(seed.home)["relays"]
    assert found["linked"]
    assert found["public_address"] == seed.address
    assert same(Path(complete["path"]), source)
    assert [peer["node_id"] for peer in complete["peers"]] == [seed.node_id]
    for node in (relay, seed):
        assert node.process.stop().code == 0
        assert "bug" not in node.process.err


def test_a_relay_that_is_none_is_said_to_be_none(mesh: Mesh) -> None:
    other = mesh.node("other")
    mesh.config_of(mesh.home("user")).write_text(use(f"{other.node_id}@{other.address}"))
    node = mesh.node("user")
    node.process.expect_err("it is no relay")
