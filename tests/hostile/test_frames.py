"""Frames that no honest peer sends, in every state of a link: only that link ends."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio

from tests.e2e.mesh import Mesh, write_blob
from tests.hostile.assault import SEED, Scene, attack, every_case
from tests.hostile.conftest import CHUNK, Target
from tests.waiting import block_until

SHORT_CASES = 2  # per message type and state
LONG_CASES = 1000
UNFINISHED = 24 * 1024 * 1024  # bytes of a download that no test lives to see the end of


@pytest.fixture
def scene(mesh: Mesh, target: Target) -> Scene:
    other = write_blob(mesh.root / "other.bin", UNFINISHED, seed=2)
    shared = mesh.share("slow", other, chunk_size=CHUNK)
    slow = mesh.node("slow", "--max-upload", "30k")
    link = shared.link.text
    handed = mesh.run("target", "get", link, "--detach", "--peer", slow.address)
    assert handed.code == 0, handed.err
    block_until(lambda: list(mesh.files("target").glob("*.part")))
    return Scene(target.address, target.file_id, shared.file_id)


def test_hostile_frames_end_one_link_at_most(scene: Scene, target: Target) -> None:
    outcomes = trio.run(attack, scene, every_case(SHORT_CASES))
    assert outcomes["closed"] > outcomes["lives"] > 0, outcomes
    target.is_well()


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_thousand_hostile_frames_per_type_and_state(
    scene: Scene, target: Target, record_property: Callable[[str, object], None]
) -> None:
    cases = every_case(LONG_CASES)
    outcomes = trio.run(attack, scene, cases)
    assert outcomes["closed"] > outcomes["lives"] > 0, outcomes
    target.is_well()
    record_property("row", 7)
    record_property("seed", SEED)
    record_property("cases", len(cases))
    closed = outcomes["closed"]
    record_property("result", f"node up throughout, only the sender's link closed ({closed} did)")
