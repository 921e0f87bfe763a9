"""Fixtures of the end-to-end tests: one seed for all of them, and a small disk."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests import limits
from tests.e2e.mesh import Event, Mesh, RunningNode, write_blob

CHUNK = 16 * 1024
CHUNKS = 256
SIZE = CHUNK * CHUNKS - 5000  # the last chunk is short
TMPFS_SIZE = "8m"


@dataclass(frozen=True, slots=True)
class Seed:
    """A node that serves one file, plain and encrypted, at full speed."""

    node: RunningNode
    source: Path
    shared: Event
    sealed: Event

    @property
    def address(self) -> str:
        return self.node.address

    @property
    def link(self) -> str:
        return str(self.shared["link"])

    @property
    def file_id(self) -> str:
        return str(self.shared["file_id"])


@pytest.fixture(scope="session")
def seed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seed]:
    """One seed for the whole run: tests must not stop it or change what it shares."""
    mesh = Mesh(tmp_path_factory.mktemp("seed"))
    try:
        source = write_blob(mesh.root / "film.bin", SIZE, seed=1)
        options = [source, "--chunk-size", CHUNK, "--json"]
        shared = mesh.run("home", "share", *options)
        sealed = mesh.run("home", "share", *options, "--encrypt")
        node = mesh.node("home")
        yield Seed(node, source, shared.last, sealed.last)
        assert node.process.stop().code == 0, "the seed did not survive the tests"
    finally:
        mesh.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """An empty file system of TMPFS_SIZE, unmounted afterwards."""
    with limits.small_disk(tmp_path / "disk", TMPFS_SIZE) as place:
        yield place
