"""What a node needs does not grow with its downloads: all of them share the slabs."""

from __future__ import annotations

from pathlib import Path

from tests.e2e.mesh import Mesh, same, write_blob
from tests.proc import peak_memory

MIB = 1024 * 1024
DOWNLOADS = 6
SHARERS = 3
SIZE = 32 * MIB
# Bytes: 65 MB before anything is done, 48 MiB of chunks that come in, two chunks being
# checked, and buffers.
MAX_RSS = 130 * MIB
# Of this size one download would like twelve slabs, 48 MiB.
CHUNK_SIZE = 4 * MIB


def test_many_downloads_at_once_stay_in_bounded_memory(mesh: Mesh, tmp_path: Path) -> None:
    paths = [write_blob(tmp_path / f"{number}.bin", SIZE, number) for number in range(DOWNLOADS)]
    flags: list[str] = []
    links: list[str] = []
    for number in range(SHARERS):
        home = mesh.home(f"sharer{number}")
        shared = [mesh.share(home, path, chunk_size=CHUNK_SIZE) for path in paths]
        links = [share.link.text for share in shared]
        flags += ["--peer", mesh.node(home).address]
    user = mesh.home("user")
    node = mesh.node(user, "--max-download", "80M")  # so that all of them run at once
    for link in links:
        assert mesh.call(user, "get", link, "--detach", *flags).code == 0
    for path in paths:
        result = mesh.files(user) / path.name
        node.process.expect_err(f"finished {result}")
        assert same(result, path)
    assert peak_memory(node.process.pid) < MAX_RSS
