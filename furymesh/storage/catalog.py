"""What this node shares: one small file per share, and its manifest beside it.

The manifest is stored before the entry that needs it and deleted after, so an
entry that can be read can be served. The entries double as a hash cache: what
has been hashed with the same options and has not changed since keeps its
manifest. Other processes may add and remove shares at any time, so nothing is
kept in memory.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import NamedTuple

from furymesh.core.errors import (
    EnvironmentFault,
    IllegalStateError,
    InvalidManifestError,
    LocalDataError,
    UsageError,
    WrongKeyError,
)
from furymesh.core.hashing import HashAlgorithm
from furymesh.core.ids import FileId, parse_file_id
from furymesh.core.manifest import Header, Kind, Manifest
from furymesh.core.paths import shown
from furymesh.core.protection import PLAIN, Protection
from furymesh.storage.catalog_entry import CatalogEntry, decode, encode
from furymesh.storage.files import (
    atomic_write,
    fsync_dir,
    make_private_directory,
    read_bytes,
    translating,
)
from furymesh.storage.manifests import ManifestStore
from furymesh.storage.scan import Scan

DIRECTORY = "catalog"
MAX_ENTRY_SIZE = 128 * 1024 * 1024  # facts of a million files, about 80 bytes each

_SUFFIX = ".json"


class Damaged(NamedTuple):
    """A catalog file that cannot be used, and why."""

    path: Path
    reason: str


class Listing(NamedTuple):
    """The shares, sorted by id, and the files that should have been shares."""

    entries: list[CatalogEntry]
    damaged: list[Damaged]


class Options(NamedTuple):
    """What besides the content decides a share's id."""

    algorithm: HashAlgorithm
    chunk_size: int
    sealed: bool

    @classmethod
    def of(cls, header: Header) -> Options:
        return cls(header.algorithm, header.geometry.chunk_size, header.sealed)


class Catalog:
    """The shares recorded under `<data_dir>/catalog` and `<data_dir>/manifests`."""

    def __init__(self, data_dir: Path, protection: Protection | None = None) -> None:
        """Without `protection` sealed keys stay closed, and their entries are `locked`."""
        self._directory = data_dir / DIRECTORY
        self._protection = protection
        self.manifests = ManifestStore(data_dir)

    def add(self, entry: CatalogEntry, manifest: Manifest) -> None:
        """Record a share, replacing one of the same id; raises EnvironmentFault."""
        self.manifests.save(manifest)
        self.rewrite(entry)

    def rewrite(self, entry: CatalogEntry) -> None:
        """Record an entry whose manifest is stored; raises EnvironmentFault."""
        if entry.locked:
            raise IllegalStateError("a locked catalog entry would lose its key")
        make_private_directory(self._directory)
        atomic_write(self._path(entry.file_id), encode(entry, self._protection or PLAIN))

    def remove(self, file_id: FileId) -> bool:
        """Forget a share and its manifest; False if there was none. The files stay.

        Raises EnvironmentFault.
        """
        path = self._path(file_id)
        with translating(path, "delete"):
            try:
                path.unlink()
            except FileNotFoundError:
                return False
        # A power cut must not bring the entry back, least of all without its manifest.
        fsync_dir(self._directory)
        self.manifests.delete(file_id)
        return True

    def get(self, file_id: FileId) -> CatalogEntry | None:
        """One share, or None; raises LocalDataError if its entry is damaged."""
        path = self._path(file_id)
        raw = read_bytes(path, MAX_ENTRY_SIZE)
        if raw is None:
            return None
        try:
            return decode(raw, file_id, self._protection)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise LocalDataError(
                f"catalog entry {shown(str(path))} is damaged ({shown(str(error))}):"
                " delete it and share the path again"
            ) from None

    def list(self, *, certain: bool = False) -> Listing:
        """Every share; what cannot be read is named beside them, never fatal.

        Raises EnvironmentFault if the directory cannot be read, and if `certain` also for
        an entry that the disk refuses: it may be good.
        """
        listing = Listing([], [])
        for file_id in self.ids():
            try:
                entry = self.get(file_id)
            except (LocalDataError, EnvironmentFault) as error:
                if certain and isinstance(error, EnvironmentFault):
                    raise
                listing.damaged.append(Damaged(self._path(file_id), str(error)))
            else:
                if entry:
                    listing.entries.append(entry)
        return listing

    def ids(self) -> tuple[FileId, ...]:
        """The ids of all shares, sorted, read from the names of their entries."""
        found = []
        with translating(self._directory, "read"), contextlib.suppress(FileNotFoundError):
            for name in os.listdir(self._directory):
                with contextlib.suppress(UsageError):
                    if name.endswith(_SUFFIX):
                        found.append(parse_file_id(name.removesuffix(_SUFFIX)))
        return tuple(sorted(found))

    def find_unchanged(self, scan: Scan, options: Options) -> tuple[CatalogEntry, Manifest] | None:
        """A share of exactly what `scan` found, made with these options, if any.

        Files are compared by their facts, not by where they are: the same file
        under another name is found too. Raises EnvironmentFault if the directory cannot
        be read.
        """
        for entry in self.list().entries:
            if entry.facts != scan.facts or (entry.key is not None) != options.sealed:
                continue
            manifest = None
            with contextlib.suppress(EnvironmentFault):  # hashed and written anew
                manifest = self.manifests.load(entry.file_id)
            if (
                manifest
                and manifest.complete
                and Options.of(manifest.header) == options
                and _same_tree(entry, manifest, scan)
            ):
                return entry, manifest
        return None

    def _path(self, file_id: FileId) -> Path:
        return self._directory / (file_id.hex() + _SUFFIX)


def _same_tree(entry: CatalogEntry, manifest: Manifest, scan: Scan) -> bool:
    """Whether the manifest lists what was scanned; False too if it is not readable."""
    try:
        listed = manifest.entries(entry.sealer)
    except (InvalidManifestError, WrongKeyError):
        return False
    if manifest.header.kind is Kind.FILE:
        return scan.entries is None
    return listed == scan.entries
