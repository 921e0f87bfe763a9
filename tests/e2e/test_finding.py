"""Peers that nobody named are found: at a tracker, in the DHT, and where they are now."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio

from furymesh.core.link import Link, Tracker
from tests.beside import beside
from tests.dht import dht_network
from tests.e2e.mesh import Event, Mesh, finished, same, write_blob
from tests.tracker_server import TestTracker, open_tracker
from tests.waiting import block_until

SIZE = 3_000_000
ALONE = "lan: {enabled: false}, dht: {enabled: false}"


@pytest.fixture
def tracker() -> Iterator[TestTracker]:
    with running() as served:
        yield served


@contextmanager
def running() -> Iterator[TestTracker]:
    served = TestTracker()

    async def serve(task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        async with open_tracker(served):
            task_status.started()
            await trio.sleep_forever()

    with beside(serve):
        yield served


@pytest.fixture
def source(mesh: Mesh) -> Path:
    return write_blob(mesh.root / "film.bin", SIZE, seed=5)


def found(event: Event) -> list[str]:
    return [peer["found"] for peer in event["peers"]]


def test_configured_trackers_bring_together_who_knows_the_id_alone(
    mesh: Mesh, tracker: TestTracker, source: Path
) -> None:
    urls = [tracker.url(scheme) for scheme in ("http", "udp")]
    discovery = f"discovery: {{{ALONE}, trackers: {urls}}}\n"
    sharer, user = (mesh.home(name, discovery=discovery) for name in ("sharer", "user"))
    shared = mesh.share(sharer, source)
    node = mesh.node(sharer)
    block_until(lambda: tracker.requests and tracker.packets)
    complete = mesh.get(user, shared.file_id.hex(), "--output", mesh.files(user) / "copy")
    assert found(complete) == ["tracker"]
    assert same(mesh.files(user) / "copy", source)
    node.process.stop()
    assert tracker.events()[-1] == "stopped"
    assert tracker.events().count("completed") == 2  # once over each


def test_trackers_of_a_link_serve_a_private_share_that_no_other_tracker_hears_of(
    mesh: Mesh, tracker: TestTracker, source: Path
) -> None:
    with running() as everybodys:
        discovery = f"discovery: {{{ALONE}, trackers: ['{everybodys.url('http')}']}}\n"
        share_privately(mesh, tracker, source, discovery)
        assert not everybodys.heard


def share_privately(mesh: Mesh, tracker: TestTracker, source: Path, discovery: str) -> None:
    sharer, user = (mesh.home(name, discovery=discovery) for name in ("sharer", "user"))
    named = [Tracker.parse(tracker.url("http"))]
    shared = mesh.share(sharer, source, private=True, trackers=named)
    node = mesh.node(sharer)
    block_until(lambda: tracker.swarms)
    link = shared.link.text
    assert Link.parse(link).private
    assert not Link.parse(link).peers
    first = mesh.start_get(user, link, "--max-download", "300kB", "--output", "copy")
    first.expect("progress", lambda event: event["chunks_done"] > 0)
    first.kill()
    # The link's trackers are in the resume data.
    complete = mesh.resume(user, shared.file_id.hex())
    assert found(complete) == ["tracker"]
    assert same(mesh.files(user) / "copy", source)
    assert mesh.call(sharer, "unshare", shared.file_id.hex()).code == 0
    block_until(lambda: tracker.events()[-1] == "stopped")
    assert node.process.stop().code == 0


@pytest.fixture
def in_dht() -> Iterator[str]:
    """A configuration that finds peers in a DHT of this machine, and nowhere else."""
    with dht_network() as network:
        entrances = json.dumps([str(address) for address in network.entrances])
        yield f"discovery: {{lan: {{enabled: false}}, dht: {{bootstrap_nodes: {entrances}}}}}\n"


def test_the_dht_brings_together_who_knows_the_id_alone(
    mesh: Mesh, source: Path, in_dht: str
) -> None:
    sharer, user = (mesh.home(name, discovery=in_dht) for name in ("sharer", "user"))
    shared = mesh.share(sharer, source)
    mesh.node(sharer)
    copy = mesh.files(user) / "copy"
    get = mesh.start_get(user, shared.file_id.hex(), "--output", copy)
    assert found(finished(get, timeout=60)) == ["dht"]
    assert same(copy, source)


@pytest.mark.slow  # a record is put into the DHT again after 15 seconds
def test_a_node_that_moved_is_found_in_the_dht_by_its_id(
    mesh: Mesh, source: Path, in_dht: str
) -> None:
    sharer, user = (mesh.home(name, discovery=in_dht) for name in ("sharer", "user"))
    shared = mesh.share(sharer, source)
    node = mesh.node(sharer)
    copy = mesh.files(user) / "copy"
    link = f"furymesh:{shared.file_id.hex()}?node={node.node_id}"
    get = mesh.start_get(user, link, "--output", copy, "--max-download", "300kB")
    get.expect("progress", lambda event: event["chunks_done"] > 0, timeout=60)
    get.kill()
    node.process.stop()
    mesh.node(sharer)
    resumed = mesh.start_resume(user, shared.file_id.hex())
    assert found(finished(resumed, timeout=60)) == ["dht"]
    assert same(copy, source)
