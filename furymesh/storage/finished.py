"""Finished content on this disk: sharing it on, and reading it for a check."""

from __future__ import annotations

import os
import time
from pathlib import Path

from furymesh.core.errors import LocalDataError, NotFoundError, SourceChangedError, UsageError
from furymesh.core.layout import Layout
from furymesh.core.link import Link
from furymesh.core.manifest import Kind, Manifest
from furymesh.core.paths import shown
from furymesh.core.sealing import Sealer
from furymesh.storage.catalog import Catalog
from furymesh.storage.catalog_entry import CatalogEntry
from furymesh.storage.content import Content
from furymesh.storage.files import translating
from furymesh.storage.scan import Facts, scan


def adopt(
    catalog: Catalog, link: Link, path: Path, facts: tuple[Facts, ...] | None = None
) -> CatalogEntry:
    """Share a download that has just been verified and published, without hashing it again.

    `link` is that of the share, `facts` are those of its files when it was published.
    Raises SourceChangedError if they are others now, LocalDataError if its manifest is
    not stored whole, EnvironmentFault.
    """
    manifest = catalog.manifests.load(link.file_id)
    if manifest is None or not manifest.complete:
        raise LocalDataError(f"the manifest of {shown(str(path))} is not here: share it again")
    found = scan(path)
    if facts is not None and not _same(facts, found.facts):
        raise SourceChangedError(
            f"{shown(str(path))} has changed since it was downloaded: share it again"
        )
    entry = CatalogEntry(
        file_id=link.file_id,
        path=found.path,
        name=found.path.name,
        size=found.layout.plain_size,
        facts=found.facts if facts is None else facts,
        key=link.key,
        private=link.private,
        executable=found.executable,
        added_at=time.time(),
        trackers=link.trackers,
        nodes=link.nodes,
        mirrors=link.mirrors,
    )
    catalog.add(entry, manifest)
    return entry


def _same(before: tuple[Facts, ...], now: tuple[Facts, ...]) -> bool:
    """Whether no file is another; of those that cannot tell, peers get what is hashed."""
    pairs = zip(before, now, strict=False)
    return len(before) == len(now) and all(old == new for old, new in pairs if old.is_proof)


def facts_of(path: Path, layout: Layout) -> tuple[Facts, ...]:
    """The facts of finished content, one for each file of its layout; raises EnvironmentFault."""
    with translating(path, "read"):
        if layout.single:
            return (Facts.of(path.lstat()),)
        return tuple(Facts.of((path / file.path).lstat()) for file in layout.files)


def layout_on_disk(manifest: Manifest, key: bytes | None) -> tuple[Layout, Sealer | None]:
    """How a share lies on disk: as itself with its key, as one sealed file without.

    Raises WrongKeyError.
    """
    if not manifest.header.sealed:
        return manifest.layout(None), None
    if key is None:
        return Layout.of_file(manifest.header.geometry.size), None
    sealer = Sealer(key)
    return manifest.layout(sealer), sealer


class FinishedReader:
    """Reads the chunks of finished content; what is missing of it reads as short."""

    def __init__(self, path: Path, manifest: Manifest, key: bytes | None) -> None:
        """Raises NotFoundError, UsageError (a folder for a file or the reverse), WrongKeyError,
        EnvironmentFault."""
        layout, sealer = layout_on_disk(manifest, key)
        with translating(path, "read"):
            here, folder = path.exists(), path.is_dir()
        if not here:
            raise NotFoundError(f"there is no file or folder at {shown(str(path))}")
        if folder == layout.single:
            kind = "a folder" if manifest.header.kind is Kind.FOLDER else "a file"
            raise UsageError(f"the share is {kind}, and {shown(str(path))} is not")
        self._path = path
        self._layout = layout
        self._content = Content(path, layout, manifest.header.geometry, sealer)

    def misfits(self) -> tuple[str, ...]:
        """What digests cannot see, a line each: wrong sizes, and entries missing or too many."""
        if self._layout.single:
            return tuple(_wrong_size(self._path, self._path.name, self._layout.files[0].size))
        lines: list[str] = []
        for file in self._layout.files:
            lines += _wrong_size(self._path / file.path, file.path, file.size)
        for directory in self._layout.directories:
            if not (self._path / directory).is_dir():
                lines.append(f"{shown(directory)}: missing")
        known = {file.path for file in self._layout.files}
        for root, _, names in os.walk(self._path):
            for name in names:
                relative = os.path.relpath(os.path.join(root, name), self._path)
                if relative not in known:
                    lines.append(f"{shown(relative)}: not part of the share")
        return tuple(lines)

    def read(self, chunk: int, view: memoryview) -> int:
        try:
            return self._content.read_chunk_into(chunk, view)
        except SourceChangedError:
            return 0

    def close(self) -> None:
        self._content.close()


def _wrong_size(path: Path, name: str, size: int) -> list[str]:
    try:
        actual = path.lstat().st_size
    except OSError:
        return [f"{shown(name)}: missing"]
    return [] if actual == size else [f"{shown(name)}: {actual} bytes instead of {size}"]
