"""Peers that die, stall or lie cost their chunks at most; the honest ones stay."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from furymesh.core.ids import FileId
from furymesh.swarm.swarm import Swarm
from tests.e2e import liars
from tests.e2e.conftest import SIZE, Seed
from tests.e2e.liars import lying
from tests.e2e.mesh import Mesh, RunningNode, finished, same

LIARS = 2
CHUNK = 128 * 1024  # above the smallest window: a new peer owes one chunk at a time


@dataclass(frozen=True, slots=True)
class Honest:
    """A seed slow enough for others to be asked too."""

    link: str
    file_id: FileId
    node: RunningNode


@pytest.fixture(scope="module")
def honest(seed: Seed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Honest]:
    mesh = Mesh(tmp_path_factory.mktemp("honest"))
    try:
        shared = mesh.share("honest", seed.source, chunk_size=CHUNK)
        node = mesh.node("honest", "--max-upload", "3M")
        yield Honest(shared.link.text, shared.file_id, node)
        assert node.process.stop().code == 0
    finally:
        mesh.close()


@pytest.mark.parametrize(
    "kind",
    [
        liars.Poisoner,
        liars.Mute,
        liars.Denier,
        liars.Babbler,
        liars.Boaster,
        liars.Forger,
        liars.Pusher,
    ],
)
def test_liars_are_survived(mesh: Mesh, seed: Seed, honest: Honest, kind: type[Swarm]) -> None:
    with ExitStack() as stack:
        peers = []
        for number in range(LIARS):
            home = mesh.home(f"liar{number}")
            liar = lying(home, honest.file_id, kind, honest.node.home)
            peers.append(stack.enter_context(liar))
        begun = time.monotonic()
        user = mesh.start_get("user", honest.link, peers=[*peers, honest.node.address])
        complete = finished(user)
        took = time.monotonic() - begun
    assert same(Path(complete["path"]), seed.source)
    assert [peer["node_id"] for peer in complete["peers"]] == [honest.node.node_id]
    assert complete["bytes_wasted"] <= 2 * LIARS * CHUNK
    assert honest.node.node_id[:12] not in user.err, "the honest peer was blamed"
    assert took < 20.0, "liars held the download up"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["dies", "stalls"])
def test_peer_that_goes_away_costs_its_chunks(
    mesh: Mesh, seed: Seed, honest: Honest, number: signal.Signals
) -> None:
    mesh.share("victim", seed.source, chunk_size=CHUNK)
    victim = mesh.node("victim", "--max-upload", "3M")
    user = mesh.start_get("user", honest.link, peers=[victim.address, honest.node.address])
    user.expect("progress", lambda event: event["bytes_done"] > SIZE // 5)
    victim.process.signal(number)
    complete = finished(user, timeout=15)
    assert same(Path(complete["path"]), seed.source)
    brought = {peer["node_id"]: peer["bytes"] for peer in complete["peers"]}
    assert set(brought) == {victim.node_id, honest.node.node_id}
    assert sum(brought.values()) == SIZE
    assert complete["bytes_wasted"] <= 4 * CHUNK
