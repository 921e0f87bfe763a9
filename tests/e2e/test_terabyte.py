"""A share of one tebibyte: its manifest travels, and a node serves it in bounded memory.

The file is sparse, so every chunk is the same zeros and the digests are true
without hashing a tebibyte.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from furymesh.core.geometry import Geometry, default_chunk_size
from furymesh.core.hashing import HashAlgorithm
from furymesh.core.manifest import Manifest
from furymesh.storage.catalog import Catalog
from furymesh.storage.catalog_entry import CatalogEntry
from furymesh.storage.scan import scan
from tests.e2e.mesh import Mesh
from tests.proc import peak_memory

TEBIBYTE = 1 << 40
MAX_RSS = 120 * 1024 * 1024  # bytes: what a node may need, whatever it shares


def share_zeros(path: Path, data_dir: Path) -> Manifest:
    """Put a sparse file into a catalog with its true manifest."""
    chunk_size = default_chunk_size(TEBIBYTE)
    geometry = Geometry(TEBIBYTE, chunk_size)
    digest = HashAlgorithm.BLAKE3.digest(bytes(chunk_size))
    manifest = Manifest.build(HashAlgorithm.BLAKE3, geometry, digest * geometry.chunk_count)
    found = scan(path)
    entry = CatalogEntry(
        manifest.file_id, found.path, path.name, TEBIBYTE, found.facts, None, False, False, 0.0
    )
    Catalog(data_dir).add(entry, manifest)
    return manifest


def test_a_tebibyte_is_served_in_bounded_memory(mesh: Mesh, tmp_path: Path) -> None:
    path = tmp_path / "zeros.img"
    try:
        path.touch()
        os.truncate(path, TEBIBYTE)
    except OSError as error:
        pytest.skip(f"the file system has no sparse files of a tebibyte: {error}")
    home = mesh.home("sharer")
    manifest = share_zeros(path, home)
    assert manifest.header.geometry.chunk_count == 262_144
    assert len(manifest.header_bytes) < 64 * 1024
    node = mesh.node(home)
    refused = mesh.call("user", "get", manifest.file_id.hex(), "--peer", node.address)
    assert "1.1 TB" in refused.complaint(1)
    checked = mesh.start(
        "reader", "verify", path, f"furymesh:{manifest.file_id.hex()}?peer={node.address}"
    )
    # Its manifest has come, all pages of it, as soon as chunks are being verified.
    checked.expect_err("262,144 chunks", timeout=30)
    checked.kill()
    assert peak_memory(node.process.pid) < MAX_RSS
