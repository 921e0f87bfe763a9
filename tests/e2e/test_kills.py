"""kill -9 at random moments: no verified byte travels twice, none is wrong."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from furymesh.core.geometry import Geometry
from tests.e2e.conftest import CHUNK, SIZE, Seed
from tests.e2e.mesh import Mesh, same, write_blob
from tests.e2e.parts import journal

MIB = 1024 * 1024
LONGEST = 0.6  # seconds until a kill


@pytest.mark.parametrize(
    ("size", "kills", "rate"),
    [
        pytest.param(512 * MIB, 10, "60M", id="512MiB"),
        pytest.param(2048 * MIB, 60, "50M", id="2GiB", marks=pytest.mark.slow),
    ],
)
def test_kill_at_random_points(mesh: Mesh, size: int, kills: int, rate: str) -> None:
    rng = Random(20)
    source = write_blob(mesh.root / "source.bin", size)
    shared = mesh.share("origin", source)
    link = shared.link.text
    node = mesh.node("origin")
    journaled = 0
    for _ in range(kills):
        process = mesh.start_get("user", link, "--max-download", rate, peers=[node.address])
        started = process.expect("started")
        assert started["chunks_done"] >= journaled, "journaled chunks were forgotten"
        assert not process.ended_within(rng.uniform(0.0, LONGEST)), process.err
        process.kill()
        journaled = journal(mesh.home("user")).bit_count()
    assert 0 < journaled < shared.chunks

    complete = mesh.get("user", link, peers=[node.address])
    assert complete["bytes_reused"] >= journaled * shared.chunk_size - shared.chunk_size
    assert complete["bytes_reused"] + complete["bytes_fetched"] == size
    assert same(Path(complete["path"]), source)
    assert not list(mesh.home("user").glob("resume/*.resume"))
    for large in (Path(complete["path"]), source):
        large.unlink()


def test_what_was_journaled_is_exactly_what_is_reused(mesh: Mesh, seed: Seed) -> None:
    process = mesh.start_get("user", seed.link, "--max-download", "2M", peers=[seed.address])
    process.expect("progress", lambda event: event["chunks_done"] > 20)
    process.kill()
    journaled = Geometry(SIZE, CHUNK).bytes_in(journal(mesh.home("user")))
    assert journaled > 20 * CHUNK
    complete = mesh.resume("user", seed.file_id[:12])
    assert complete["bytes_reused"] == journaled
    assert complete["bytes_fetched"] == SIZE - journaled
    assert same(Path(complete["path"]), seed.source)
