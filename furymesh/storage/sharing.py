"""Making a share: look, hash, look again, record."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from furymesh.core.errors import LocalDataError, SourceChangedError
from furymesh.core.geometry import Geometry, default_chunk_size
from furymesh.core.hashing import HashAlgorithm
from furymesh.core.ids import FileId
from furymesh.core.link import Address, Link, Tracker
from furymesh.core.manifest import Manifest
from furymesh.core.paths import safe_name, shown
from furymesh.core.sealing import Sealer, cipher_size
from furymesh.storage.catalog import Catalog, CatalogEntry, Options
from furymesh.storage.content import Content
from furymesh.storage.finished import layout_on_disk
from furymesh.storage.hashing import hash_content
from furymesh.storage.scan import Scan, scan, settle
from furymesh.storage.writers import proven

FALLBACK_NAME = "download"


@dataclass(frozen=True, slots=True)
class Share:
    """What `create_share` made or found; `size` is in plain bytes.

    `skipped` are paths that a share does not carry: links, pipes, devices.
    """

    file_id: FileId
    manifest: Manifest = field(repr=False)
    name: str
    size: int
    path: Path
    key: bytes | None = field(repr=False)
    executable: bool
    cached: bool
    skipped: tuple[str, ...] = ()
    trackers: tuple[Tracker, ...] = ()
    private: bool = False

    def link(self, peers: tuple[Address, ...] = ()) -> Link:
        """The link to pass on."""
        return Link(self.file_id, self.name, peers, self.key, self.trackers, private=self.private)


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
    )
    catalog.add(entry, manifest)
    return Share(
        entry.file_id,
        manifest,
        entry.name,
        plain,
        entry.path,
        sealed_key,
        entry.executable,
        hit is not None,
        found.skipped,
        trackers,
        private,
    )


def open_share(catalog: Catalog, entry: CatalogEntry) -> tuple[Manifest, Content]:
    """The manifest of a share and its content, ready to serve; close the content.

    Raises LocalDataError if the manifest is not whole, EnvironmentFault.
    """
    manifest = catalog.manifests.load(entry.file_id)
    if manifest is None or not manifest.complete:
        raise LocalDataError(f"the manifest of {shown(str(entry.path))} is damaged: share it again")
    layout, sealer = layout_on_disk(manifest, entry.key)
    if len(layout.files) != len(entry.facts):
        raise LocalDataError(
            f"the catalog entry of {shown(str(entry.path))} is damaged: share it again"
        )
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
