"""`furymesh peers`: whom the running node knows, how it found them, and what became of it."""

from __future__ import annotations

import json

from tests.e2e.conftest import Seed
from tests.e2e.mesh import Done, Mesh, write_blob
from tests.waiting import block_until

NOBODY = "127.0.0.1:9"


def records(mesh: Mesh, *arguments: str) -> list[dict[str, object]]:
    done = mesh.call("user", "peers", "--json", *arguments)
    assert done.code == 0, done.err
    return [json.loads(line) for line in done.out.splitlines()]


def test_each_peer_is_shown_with_how_it_was_found(mesh: Mesh, seed: Seed) -> None:
    home = mesh.home("user", "transfer: {max_download: 64KiB}\n")
    user = mesh.node(home)
    order = ("--detach", "--peer", seed.address, "--peer", NOBODY)
    assert mesh.call(home, "get", seed.link, *order).code == 0

    def settled() -> bool:
        states = {str(peer["address"]): peer["state"] for peer in records(mesh)}
        return states == {seed.address: "connected", NOBODY: "connection refused"}

    block_until(settled, 20)
    here, refused = records(mesh, seed.file_id[:8])
    assert here == {
        "file_id": seed.file_id,
        "node_id": seed.node.node_id,
        "address": seed.address,
        "found": "user",
        "relayed": False,
        "state": "connected",
    }
    assert refused["node_id"] is None
    shown = mesh.run(home, "peers")
    assert "connection refused" in shown.out
    assert f"Peers of {seed.file_id[:16]}" in shown.out
    assert all(len(line) <= 80 for line in shown.out.splitlines())
    mesh.call(home, "peers", "00000000").complaint(1)
    user.process.stop()
    mesh.call(home, "peers").complaint(3)


def test_who_dialled_is_incoming(mesh: Mesh, seed: Seed) -> None:
    node = mesh.node("user", "--max-upload", "64KiB")
    shared = mesh.share("user", seed.source)
    assert shared.served or mesh.call("user", "share", seed.source).code == 0
    other = mesh.start_get("other", shared.link.text, peers=[node.address])
    other.expect("started")
    (peer,) = records(mesh)
    assert (peer["found"], peer["state"]) == ("incoming", "connected")
    other.kill()


def test_with_nobody_there_it_says_so_and_why(mesh: Mesh) -> None:
    alone = "lan: {enabled: false}, dht: {enabled: false}"
    home = mesh.home("user", discovery=f"discovery: {{{alone}, trackers: ['udp://{NOBODY}']}}\n")
    mesh.share(home, write_blob(mesh.root / "film.bin", 1000))
    mesh.node(home)
    trouble = f"tracker udp://{NOBODY}: no connection: connection refused\n"
    block_until(lambda: trouble in mesh.call(home, "peers").err, 10)
    done: Done = mesh.run(home, "peers")
    assert (done.code, done.out) == (0, "")
    assert "No peer is known" in done.err
