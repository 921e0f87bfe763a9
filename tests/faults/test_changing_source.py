"""The source changes while it is shared: nobody is given a wrong byte, nobody is to blame."""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.e2e.conftest import CHUNK, CHUNKS, SIZE
from tests.e2e.mesh import Mesh, finished, same, write_blob
from tests.faults.disk import SEED
from tests.reliability import Record

RATE = "1500K"  # bytes a second, so that the change comes in the middle
BEFORE = 16  # chunks that are fetched before it
CHANGED = "has changed since it was hashed: share it again"

Change = Callable[[Path], None]


def spoil(path: Path) -> None:
    """Write other bytes over all of the file, in place."""
    with path.open("r+b", buffering=0) as file:
        data = bytes(byte ^ 0xFF for byte in file.read())
        file.seek(0)
        file.write(data)


def append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


def truncate(path: Path) -> None:
    os.truncate(path, 0)


def shorten_by_one(path: Path) -> None:
    os.truncate(path, SIZE - 1)


def replace(path: Path) -> None:
    other = path.with_name("other")
    write_blob(other, SIZE, seed=SEED + 1)
    other.rename(path)


def same_times(path: Path) -> None:
    before = path.stat()
    spoil(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_mtime_ns == before.st_mtime_ns


def one_byte(path: Path) -> None:
    """In the last chunk, the times set back."""
    before = path.stat()
    with path.open("r+b") as file:
        file.seek(SIZE - 1)
        last = file.read(1)
        file.seek(SIZE - 1)
        file.write(bytes([last[0] ^ 1]))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def remove(path: Path) -> None:
    path.unlink()


@contextmanager
def mapped(path: Path) -> Iterator[Change]:
    """A program that had the file mapped, and had written to it, before it was shared."""
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as view:
        view[:] = view[:]

        def write(_: Path) -> None:
            view[:] = bytes(byte ^ 0xFF for byte in view[:])

        yield write


def download_while(mesh: Mesh, change: Change | None, *, told: bool) -> None:
    """Change what one of two peers shares while somebody downloads from both.

    Without `change` a program writes through a mapping. `told` says whether the
    sharer must notice: where most chunks stay as they were it may not be asked for
    the others.
    """
    source = write_blob(mesh.root / "film.bin", SIZE, seed=SEED)
    honest = write_blob(mesh.root / "honest.bin", SIZE, seed=SEED)
    with ExitStack() as stack:
        if change is None:
            change = stack.enter_context(mapped(source))
        shared = mesh.share("changing", source, chunk_size=CHUNK)
        mesh.share("honest", honest, chunk_size=CHUNK)
        node, other = mesh.node("changing"), mesh.node("honest")
        user = mesh.start_get(
            "user", shared.link.text, "--max-download", RATE, peers=[node.address, other.address]
        )
        user.expect("progress", lambda event: event["chunks_done"] >= BEFORE)
        change(source)
        if told:
            node.process.expect_err(CHANGED if source.exists() else "since it was hashed")
        complete = finished(user)
    assert same(Path(complete["path"]), honest)
    assert "bad chunk" not in user.err
    assert node.node_id in {peer["node_id"] for peer in complete["peers"]}
    assert sum(peer["chunks"] for peer in complete["peers"]) == CHUNKS
    # The sharer is on good terms with everybody: what is right again can be shared again.
    again = source if source.exists() else honest
    assert mesh.share("changing", again, chunk_size=CHUNK).served
    assert node.process.stop().code == 0


@pytest.mark.promise(18)
@pytest.mark.parametrize(
    ("change", "told"),
    [
        pytest.param(same_times, True, id="same times"),
        pytest.param(None, True, id="mapping", marks=pytest.mark.slow),
        pytest.param(append, False, id="append", marks=pytest.mark.slow),
        pytest.param(truncate, True, id="truncate", marks=pytest.mark.slow),
        pytest.param(shorten_by_one, False, id="shorten by one", marks=pytest.mark.slow),
        pytest.param(replace, True, id="replace", marks=pytest.mark.slow),
        pytest.param(spoil, True, id="overwrite", marks=pytest.mark.slow),
        pytest.param(one_byte, False, id="one byte", marks=pytest.mark.slow),
        pytest.param(remove, True, id="remove", marks=pytest.mark.slow),
    ],
)
def test_a_source_that_changes_is_withdrawn_and_its_sharer_not_banned(
    mesh: Mesh, change: Change | None, told: bool, record_property: Record
) -> None:
    download_while(mesh, change, told=told)
    record_property("cases", 1)
    record_property("result", "no wrong byte was accepted, nobody was banned")
