"""Making a share: look, hash, look again, record; or only record what is elsewhere."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from furymesh.core.errors import LocalDataError, SourceChangedError
from furymesh.core.geometry import Geometry, default_chunk_size
from furymesh.core.hashing import HashAlgorithm
from furymesh.core.ids import FileId
from furymesh.core.link import Address, Link, Mirror, Tracker
from furymesh.core.manifest import Manifest
from furymesh.core.paths import safe_name, shown
from furymesh.core.sealing import Sealer, cipher_size
from furymesh.storage.catalog import Catalog, Options
from furymesh.storage.catalog_entry import CatalogEntry
from furymesh.storage.content import Content
from furymesh.storage.finished import layout_on_disk
from furymesh.storage.hashing import hash_content
from furymesh.storage.scan import Scan, scan, settle
from furymesh.storage.writers import proven

FALLBACK_NAME = "download"


@dataclass(frozen=True, slots=True)
class Share:
    """What `create_share` made or found; `size` is in plain bytes.

    `skipped` are paths that a share does not carry: links, pipes, devices. Without a
    `path` the content is at the `mirrors` alone.
    """

    file_id: FileId
    manifest: Manifest = field(repr=False)
    name: str
    size: int
    path: Path | None
    key: bytes | None = field(repr=False)
    executable: bool
    cached: bool
    skipped: tuple[str, ...] = ()
    trackers: tuple[Tracker, ...] = ()
    private: bool = False
    mirrors: tuple[Mirror, ...] = ()

    def link(self, peers: tuple[Address, ...] = ()) -> Link:
        """The link to pass on."""
        return Link(
            self.file_id,
            self.name,
            peers,
            self.key,
            self.trackers,
            private=self.private,
            mirrors=self.mirrors,
        )


def create_share(
    path: Path,
    *,
    catalog: Catalog,
    algorithm: HashAlgorithm,
    progress: Callable[[int], object],
    cancelled: Callable[[], bool],
    chunk_size: int | None = None,
    sealed_key: bytes | None = None,
    name: str | None = None,
    private: bool = False,
    trackers: tuple[Tracker, ...] = (),
    mirrors: tuple[Mirror, ...] = (),
) -> Share:
    """Put a file or folder into the catalog, hashing it unless that was done before.

    `sealed_key`, 32 random bytes, asks for an encrypted share; if the same
    content is shared encrypted already, that share and its key are kept.
    `chunk_size` None is the default for the size. `progress` and `cancelled` are
    as in `hash_content`. Raises NotFoundError, UsageError, SourceChangedError
    if the content changed meanwhile, EnvironmentFault, HashingStopped.
    """
    found = scan(path)
    plain = found.layout.plain_size
    options = Options(algorithm, chunk_size or default_chunk_size(plain), sealed_key is not None)
    hit = catalog.find_unchanged(found, options)
    facts = found.facts
    if hit:
        sealed_key, manifest = hit[0].key, hit[1]
    else:
        # Before a byte is hashed: who opens it from now on leaves a trace.
        facts = proven(found.path, found.layout, facts)
        manifest = _make_manifest(found, options, sealed_key, progress, cancelled)
    entry = CatalogEntry(
        file_id=manifest.file_id,
        path=found.path,
        name=safe_name(name or found.path.name, FALLBACK_NAME),
        size=plain,
        facts=facts,
        key=sealed_key,
        private=private,
        executable=found.executable,
        added_at=time.time(),
        trackers=trackers,
        mirrors=mirrors,
    )
    catalog.add(entry, manifest)
    return _shared(entry, manifest, cached=hit is not None, skipped=found.skipped)


def record_remote(
    manifest: Manifest,
    *,
    catalog: Catalog,
    name: str,
    size: int,
    key: bytes | None,
    private: bool,
    trackers: tuple[Tracker, ...],
    mirrors: tuple[Mirror, ...],
    skipped: tuple[str, ...] = (),
) -> Share:
    """Put a file or folder of `size` plain bytes that is at mirrors alone into the catalog.

    Raises EnvironmentFault.
    """
    entry = CatalogEntry(
        file_id=manifest.file_id,
        path=None,
        name=safe_name(name, FALLBACK_NAME),
        size=size,
        facts=(),
        key=key,
        private=private,
        executable=False,
        added_at=time.time(),
        trackers=trackers,
        mirrors=mirrors,
    )
    catalog.add(entry, manifest)
    return _shared(entry, manifest, skipped=skipped)


def _shared(
    entry: CatalogEntry, manifest: Manifest, *, cached: bool = False, skipped: tuple[str, ...] = ()
) -> Share:
    return Share(
        entry.file_id,
        manifest,
        entry.name,
        entry.size,
        entry.path,
        entry.key,
        entry.executable,
        cached,
        skipped,
        entry.trackers,
        entry.private,
        entry.mirrors,
    )


def manifest_of(catalog: Catalog, entry: CatalogEntry) -> Manifest:
    """The manifest of a share; raises LocalDataError if it is not whole, EnvironmentFault."""
    manifest = catalog.manifests.load(entry.file_id)
    if manifest is None or not manifest.complete:
        raise LocalDataError(f"the manifest of {shown(entry.place)} is damaged: share it again")
    return manifest


def open_share(catalog: Catalog, entry: CatalogEntry) -> tuple[Manifest, Content]:
    """The manifest of a share that is here and its content, ready to serve; close the content.

    Raises LocalDataError if the manifest is not whole or the content gone, EnvironmentFault.
    """
    assert entry.path is not None  # what is at mirrors alone has a manifest and no more
    what = shown(entry.place)
    manifest = manifest_of(catalog, entry)
    layout, sealer = layout_on_disk(manifest, entry.key)
    if len(layout.files) != len(entry.facts):
        raise LocalDataError(f"the catalog entry of {what} is damaged: share it again")
    if not os.path.exists(entry.path):
        raise LocalDataError(f"{what} is gone: unshare it, or put it back")
    geometry = manifest.header.geometry
    return manifest, Content(
        entry.path, layout, geometry, sealer, entry.facts, matches=manifest.matches
    )


def _make_manifest(
    found: Scan,
    options: Options,
    sealed_key: bytes | None,
    progress: Callable[[int], object],
    cancelled: Callable[[], bool],
) -> Manifest:
    sealer = Sealer(sealed_key) if sealed_key is not None else None
    size = found.layout.plain_size
    # The plain size meets the geometry's limits first, then the sealed one does.
    geometry = Geometry(size, options.chunk_size)
    if sealer:
        geometry = Geometry(cipher_size(size, options.chunk_size), options.chunk_size)
    content = Content(found.path, found.layout, geometry, sealer, found.facts)
    try:
        digests = hash_content(content, geometry, options.algorithm, progress, cancelled)
    finally:
        content.close()
    settle(found.facts)
    again = scan(found.path)
    if (again.facts, again.entries) != (found.facts, found.entries):
        raise SourceChangedError(
            f"{shown(str(found.path))} changed while it was hashed: share it again"
            " when nothing writes to it"
        )
    return Manifest.build(
        options.algorithm, geometry, digests, entries=found.entries, sealer=sealer
    )
