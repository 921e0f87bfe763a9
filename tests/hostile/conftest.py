"""A node under attack, and what must still be true of it afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import pytest

from furymesh.core.ids import FileId
from furymesh.core.link import Address
from tests.e2e.mesh import Mesh, RunningNode, same, write_blob
from tests.hostile.assault import Scene
from tests.proc import memory
from tests.waiting import block_until

CHUNK = 64 * 1024
SIZE = 48 * CHUNK - 5000  # the last chunk is short
UNFINISHED = 24 * 1024 * 1024  # bytes of a download that no test lives to see the end of
GROWTH = 64 * 1024 * 1024  # bytes that an attack may add to a node's memory


@dataclass(slots=True)
class Target:
    """A real node that shares one file, and how it was before the attack."""

    mesh: Mesh
    node: RunningNode
    source: Path
    link: str
    file_id: FileId
    before: int  # bytes in memory

    @classmethod
    @contextmanager
    def serving(cls, mesh: Mesh, size: int, *options: object, **sharing: object) -> Iterator[Self]:
        """Run it, with `options` of the command line; it must survive the block."""
        source = write_blob(mesh.root / "film.bin", size, seed=1)
        shared = mesh.share("target", source, **sharing)
        node = mesh.node("target", *options)
        yield cls(mesh, node, source, shared.link.text, shared.file_id, memory(node.process.pid))
        assert node.process.stop().code == 0, "the node did not survive"

    @property
    def address(self) -> Address:
        return Address.parse(self.node.address)

    @property
    def pid(self) -> int:
        return self.node.process.pid

    def is_well(self) -> None:
        """It runs, serves the right bytes, found no bug of its own, and is no larger."""
        assert self.node.process.process.poll() is None, "the node has ended"
        grown = memory(self.pid) - self.before
        assert grown <= GROWTH, f"{grown >> 20} MiB more memory than before"
        complete = self.mesh.get(
            "after", self.link, "--output", "after.bin", "--overwrite", peers=[self.node.address]
        )
        assert same(Path(complete["path"]), self.source)
        said = self.node.process.out + self.node.process.err
        assert "internal error" not in said, said
        assert "Traceback" not in said, said


@pytest.fixture
def target(mesh: Mesh) -> Iterator[Target]:
    with Target.serving(mesh, SIZE, chunk_size=CHUNK) as running:
        yield running


@pytest.fixture
def scene(mesh: Mesh, target: Target) -> Scene:
    other = write_blob(mesh.root / "other.bin", UNFINISHED, seed=2)
    shared = mesh.share("slow", other, chunk_size=CHUNK)
    slow = mesh.node("slow", "--max-upload", "30k")
    link = shared.link.text
    handed = mesh.call("target", "get", link, "--detach", "--peer", slow.address)
    assert handed.code == 0, handed.err
    block_until(lambda: list(mesh.files("target").glob("*.part")))
    return Scene(target.address, target.file_id, shared.file_id)
