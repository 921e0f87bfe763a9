"""Real processes that know nothing of each other but a relay."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import trio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from furymesh.core.link import Address
from furymesh.net.connect import Endpoint
from furymesh.net.identity import Identity
from furymesh.net.relay import FILES_PER_SESSION, RENDEZVOUS
from furymesh.net.secure_link import SecureLink
from furymesh.node.control_client import call
from tests.beside import beside
from tests.e2e.mesh import Mesh, finished, same, write_blob
from tests.limits import open_files

SIZE = 3_000_000
FILES = 96  # that a relay may open, of which a process needs some twenty from the start


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


def test_who_found_nobody_is_told_that_relays_were_asked(mesh: Mesh) -> None:
    mesh.home("relay", "node: {relay: true}\n")
    relay = mesh.node("relay")
    mesh.config_of(mesh.home("user")).write_text(use(f"{relay.node_id}@{relay.address}"))
    complaint = mesh.start_get("user", "0" * 64, "--timeout", 2).done().complaint(3)
    assert "nobody who has it was found at relays" in complaint


def test_a_relay_keeps_files_for_what_it_does_itself(mesh: Mesh) -> None:
    mesh.home("relay", "node: {relay: true}\n")
    source = write_blob(mesh.root / "film.bin", SIZE, seed=5)
    link = mesh.share("relay", source).link.text
    with open_files(FILES):
        relay = mesh.node("relay")
    relay.process.expect_err(f"{FILES // FILES_PER_SESSION} pairs at most")

    async def crowd(task_status: trio.TaskStatus[None]) -> None:
        here: list[SecureLink] = []
        try:
            for _ in range(FILES):
                endpoint = Endpoint(Identity(Ed25519PrivateKey.generate()))
                place = Address.parse(relay.address)
                here.append(await endpoint.dial(place, features=(RENDEZVOUS,)))
            task_status.started()
            await trio.sleep_forever()
        finally:
            for one in here:
                one.close()

    with beside(crowd):
        complete = mesh.get("leecher", link, peers=[relay.address])
        assert same(Path(complete["path"]), source)
    assert relay.process.stop().code == 0


def test_a_relay_that_is_none_is_said_to_be_none(mesh: Mesh) -> None:
    other = mesh.node("other")
    mesh.config_of(mesh.home("user")).write_text(use(f"{other.node_id}@{other.address}"))
    node = mesh.node("user")
    node.process.expect_err("it is no relay")
