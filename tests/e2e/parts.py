"""Unfinished downloads, made by hand and looked at, with the product's own storage."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from furymesh.core.bitfield import chunks_of
from furymesh.core.ids import FileId
from furymesh.core.manifest import Manifest
from furymesh.storage.finished import FinishedReader
from furymesh.storage.manifests import ManifestStore
from furymesh.storage.part import PartStore
from furymesh.storage.part_names import part_path
from furymesh.storage.resume import ResumeData, ResumeMeta, Summary, list_all


def keep_part(
    home: Path,
    file_id: FileId,
    *,
    manifests: Path,
    source: Path,
    output: Path,
    chunks: int,
    peers: tuple[str, ...] = (),
) -> Path:
    """Let `home` hold an unfinished download of `source` with just these chunks (a mask).

    `manifests` is the data directory of a node that shares it, `peers` are kept in
    the resume data. Returns the part.
    """
    shutil.copytree(manifests / "manifests", home / "manifests")
    manifest = ManifestStore(home).load(file_id)
    assert manifest is not None
    geometry = manifest.header.geometry
    part = part_path(output, file_id)
    meta = ResumeMeta(
        file_id=file_id,
        name=output.name,
        output=str(output),
        part=str(part),
        created_at=time.time(),
        size=geometry.size,
        chunk_size=geometry.chunk_size,
        chunks_total=geometry.chunk_count,
        header=manifest.header_bytes,
        peers=peers,
    )
    store = PartStore.open(part, manifest.layout(None), geometry, None, create=True)
    resume = ResumeData.create(home / "resume", meta)
    fd = os.open(source, os.O_RDONLY)
    try:
        for chunk in chunks_of(chunks):
            piece = os.pread(fd, geometry.length(chunk), geometry.offset(chunk))
            store.write_chunk(chunk, memoryview(piece))
            resume.add(chunk)
        resume.compact(store.sync)
    finally:
        os.close(fd)
        resume.close()
        store.close()
    return part


def right_chunks(manifest: Manifest, chunks: int, read: Callable[[int, memoryview], int]) -> int:
    """Those of the chunks (a mask) that are right as `read` finds them."""
    view = memoryview(bytearray(manifest.header.geometry.chunk_size))
    right = 0
    for chunk in chunks_of(chunks):
        size = read(chunk, view)
        right |= manifest.matches(chunk, view[:size]) << chunk
    return right


def right_in(path: Path, manifest: Manifest, chunks: int) -> int:
    """Those of the chunks (a mask) that are right in a part or a result, if it is there."""
    if not os.path.lexists(path):
        return 0
    reader = FinishedReader(path, manifest, None)
    try:
        return right_chunks(manifest, chunks, reader.read)
    finally:
        reader.close()


def resume_data(home: Path) -> Summary:
    """The one unfinished download of `home`."""
    (summary,) = list_all(home / "resume")
    assert isinstance(summary, Summary)
    return summary


def journal(home: Path) -> int:
    """The chunks (a mask) that the one unfinished download of `home` relies on."""
    return resume_data(home).have
