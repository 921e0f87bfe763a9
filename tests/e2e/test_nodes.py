"""The long-lived node: at once, cleanly, and where it was."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import trio

from furymesh.core.ids import node_id_text
from furymesh.node import face
from furymesh.node.config import load_config
from tests.e2e.conftest import CHUNK, SIZE, Seed
from tests.e2e.mesh import Mesh, finished, same, write_blob
from tests.waiting import block_until


def test_new_share_is_served_at_once_and_withdrawn_at_once(mesh: Mesh) -> None:
    node = mesh.node("origin")
    source = write_blob(mesh.root / "later.bin", 3 * CHUNK)
    shared = mesh.call("origin", "share", source, "--json").last
    assert shared["served"] is True
    complete = mesh.get("user", shared["link"], peers=[node.address])
    assert same(Path(complete["path"]), source)
    assert mesh.call("origin", "unshare", shared["file_id"][:10]).code == 0
    done = mesh.start_get("other", shared["link"], "--timeout", 1, peers=[node.address]).done()
    assert done.code == 3


def test_who_waits_for_a_share_gets_it_when_it_appears(mesh: Mesh) -> None:
    source = write_blob(mesh.root / "later.bin", 3 * CHUNK)
    link = mesh.share("elsewhere", source).link.text
    node = mesh.node("origin")
    waiting = mesh.start_get("user", link, peers=[node.address])
    config = load_config(mesh.config_of(node.home), node.home)
    block_until(lambda: (trio.run(face.status, config) or {}).get("links") == 1, timeout=10)
    mesh.share("origin", source)
    assert same(Path(finished(waiting, timeout=10)["path"]), source)


def test_stops_cleanly_and_starts_where_it_was(mesh: Mesh, seed: Seed) -> None:
    source = write_blob(mesh.root / "a.bin", CHUNK)
    link = mesh.share("origin", source).link.text
    first = mesh.node("origin")
    begun = time.monotonic()
    done = first.process.stop()
    assert done.code == 0
    assert time.monotonic() - begun < 2.0
    second = mesh.node("origin")
    assert second.node_id == first.node_id
    second.process.signal(signal.SIGINT)
    assert second.process.done().code == 0
    third = mesh.node("origin")
    third.process.kill()
    fourth = mesh.node("origin")
    assert same(Path(mesh.get("user", link, peers=[fourth.address])["path"]), source)


def test_stops_at_once_while_it_is_busy(mesh: Mesh, seed: Seed) -> None:
    mesh.share("origin", seed.source, chunk_size=CHUNK)
    node = mesh.node("origin", "--max-upload", "500K")
    user = mesh.start_get("user", seed.link, peers=[node.address, seed.address])
    user.expect("started")
    begun = time.monotonic()
    assert node.process.stop().code == 0
    assert time.monotonic() - begun < 2.0
    assert same(Path(finished(user)["path"]), seed.source)


def test_detached_download_survives_restarts(mesh: Mesh, seed: Seed) -> None:
    home = mesh.home("home")
    node = mesh.node(home, "--max-download", "1M")
    done = mesh.call(home, "get", seed.link, "--detach", "--json", "--peer", seed.address)
    assert done.last == {"event": "detached", "file_id": seed.file_id}

    def progress() -> int:
        listed = mesh.call(home, "list-resume", "--json").events[0]
        return int(listed[0]["chunks_done"]) if listed else 0

    block_until(lambda: progress() >= 20, timeout=20)
    assert node.process.stop().code == 0
    before = progress()
    assert before >= 20
    mesh.node(home, "--max-download", "1M").process.kill()
    assert progress() >= before
    last = mesh.node(home)
    path = mesh.files(home) / "film.bin"
    last.process.expect_err(f"finished {path}")
    assert same(path, seed.source)
    # It is shared from then on, and the order is done with.
    complete = mesh.get("user", seed.link, peers=[last.address])
    assert same(Path(complete["path"]), seed.source)
    assert not list((home / "orders").glob("*.json"))


def test_pinned_identity(mesh: Mesh, seed: Seed) -> None:
    right = f"{seed.node.node_id}@{seed.address}"
    wrong = f"{node_id_text(bytes(32))}@{seed.address}"
    refused = mesh.start_get("user", seed.link, "--timeout", 1, peers=[wrong]).done()
    assert refused.code == 3
    assert "not the expected" in refused.err.splitlines()[-1]
    assert same(Path(mesh.get("user", seed.link, peers=[right])["path"]), seed.source)


def test_allow_list(mesh: Mesh) -> None:
    source = write_blob(mesh.root / "a.bin", CHUNK)
    link = mesh.share("origin", source).link.text
    friend = mesh.call("friend", "id", "--json").last["node_id"]
    node = mesh.node("origin", "--allow", friend)
    stranger = mesh.start_get("stranger", link, "--timeout", 1, peers=[node.address]).done()
    assert stranger.code == 3
    assert same(Path(mesh.get("friend", link, peers=[node.address])["path"]), source)


def test_one_node_per_data_directory(mesh: Mesh) -> None:
    node = mesh.node("home")
    line = mesh.run("home", "node", "--listen", "127.0.0.1:0").complaint(5)
    assert str(node.process.pid) in line


def test_taken_port(mesh: Mesh, seed: Seed) -> None:
    line = mesh.run("home", "node", "--listen", seed.address).complaint(1)
    assert "port is taken" in line


def test_changed_source_is_withdrawn_and_nobody_is_blamed(mesh: Mesh, seed: Seed) -> None:
    copy = mesh.root / "copy.bin"
    copy.write_bytes(seed.source.read_bytes())
    mesh.share("origin", copy, chunk_size=CHUNK)
    node = mesh.node("origin")
    with copy.open("r+b") as file:
        file.seek(5 * CHUNK)
        file.write(b"not what was hashed")
    user = mesh.start_get("user", seed.link, peers=[node.address, seed.address])
    complete = finished(user)
    assert same(Path(complete["path"]), seed.source)
    assert "bad chunk" not in user.err
    assert complete["bytes_fetched"] == SIZE


def test_download_from_the_node_of_the_same_data_directory(mesh: Mesh, seed: Seed) -> None:
    """The same node id twice: a daemon and a one-off process."""
    source = write_blob(mesh.root / "a.bin", 9 * CHUNK)
    link = mesh.share("home", source).link.text
    node = mesh.node("home")
    complete = mesh.get("home", link, peers=[node.address])
    assert same(Path(complete["path"]), source)
    assert [peer["node_id"] for peer in complete["peers"]] == [node.node_id]
