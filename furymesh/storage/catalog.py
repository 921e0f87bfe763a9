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
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from furymesh.core.errors import (
    IllegalStateError,
    InvalidManifestError,
    LocalDataError,
    UsageError,
    WrongKeyError,
)
from furymesh.core.hashing import HashAlgorithm
from furymesh.core.ids import FileId, NodeId, node_id_text, parse_file_id, parse_node_id
from furymesh.core.link import (
    MAX_LINK_MIRRORS,
    MAX_LINK_PEERS,
    MAX_LINK_TRACKERS,
    Link,
    Mirror,
    Tracker,
)
from furymesh.core.manifest import Header, Kind, Manifest
from furymesh.core.paths import safe_name, shown
from furymesh.core.protection import (
    PLAIN,
    Protection,
    as_field,
    content_key_of,
    from_field,
    is_sealed,
)
from furymesh.core.sealing import KEY_SIZE, Sealer
from furymesh.storage import checked_json
from furymesh.storage.files import (
    atomic_write,
    fsync_dir,
    make_private_directory,
    read_bytes,
    translating,
)
from furymesh.storage.manifests import ManifestStore
from furymesh.storage.scan import Facts, Scan

DIRECTORY = "catalog"
MAX_ENTRY_SIZE = 128 * 1024 * 1024  # facts of a million files, about 80 bytes each

_BARE_VERSION = 1  # of entries from before they had a checksum
_YEAR_10000 = 253_402_300_800  # seconds; what comes later has no calendar date
_SUFFIX = ".json"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class CatalogEntry:
    """One share. `facts` are those of its files at hashing, in stream order.

    `key` is the content key if the share is encrypted; `private` shares are
    announced nowhere but at `trackers`, those of its link, which names `nodes`, too;
    `added_at` is in seconds since the epoch. A `locked` entry has a key that is sealed
    and was not opened: `key` is None. Without a `path` the content is at the `mirrors`
    alone.
    """

    file_id: FileId
    path: Path | None
    name: str
    size: int
    facts: tuple[Facts, ...] = field(repr=False)
    key: bytes | None = field(repr=False)
    private: bool
    executable: bool
    added_at: float
    locked: bool = False
    trackers: tuple[Tracker, ...] = ()
    nodes: tuple[NodeId, ...] = ()
    mirrors: tuple[Mirror, ...] = ()  # of its link

    @property
    def place(self) -> str:
        """Where the content is, for people."""
        return str(self.path) if self.path else self.mirrors[0].place

    @property
    def sealer(self) -> Sealer | None:
        return Sealer(self.key) if self.key else None

    @property
    def link(self) -> Link:
        """The link to pass on, without the addresses of anybody."""
        return Link(
            self.file_id,
            self.name,
            key=self.key,
            trackers=self.trackers,
            nodes=self.nodes,
            private=self.private,
            mirrors=self.mirrors,
        )


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
        atomic_write(self._path(entry.file_id), _encode(entry, self._protection or PLAIN))

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
            return _decode(raw, file_id, self._protection)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise LocalDataError(
                f"catalog entry {shown(str(path))} is damaged ({shown(str(error))}):"
                " delete it and share the path again"
            ) from None

    def list(self) -> Listing:
        """Every share; what cannot be read is named beside them, never fatal.

        Raises EnvironmentFault if the directory cannot be read.
        """
        listing = Listing([], [])
        for file_id in self.ids():
            try:
                entry = self.get(file_id)
            except LocalDataError as error:
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
        under another name is found too. Raises EnvironmentFault.
        """
        for entry in self.list().entries:
            if entry.facts != scan.facts or (entry.key is not None) != options.sealed:
                continue
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


def _encode(entry: CatalogEntry, protection: Protection) -> bytes:
    key = entry.key and protection.protect(content_key_of(entry.file_id), entry.key)
    fields: dict[str, object] = {
        "file_id": entry.file_id.hex(),
        "path": str(entry.path) if entry.path else None,
        "name": entry.name,
        "size": entry.size,
        "key": as_field(key) if key else None,
        "private": entry.private,
        "executable": entry.executable,
        "added_at": entry.added_at,
        "facts": entry.facts,
    }
    if entry.trackers:
        fields["trackers"] = list(map(str, entry.trackers))
    if entry.mirrors:
        fields["mirrors"] = list(map(str, entry.mirrors))
    if entry.nodes:
        fields["nodes"] = list(map(node_id_text, entry.nodes))
    return checked_json.encode(fields)


def _decode(raw: bytes, file_id: FileId, protection: Protection | None) -> CatalogEntry:
    """Read an entry; raises ValueError, KeyError or TypeError for anything odd.

    Raises LocalDataError if its key is sealed and does not open.
    """
    fields, checked = checked_json.decode(raw)
    if not checked and fields["version"] != _BARE_VERSION:
        raise ValueError("it is of another version")
    if fields["file_id"] != file_id.hex():
        raise ValueError("it is of another share")
    name = _typed(fields["name"], str)
    if name != safe_name(name, ""):
        raise ValueError("its name is malformed")
    mirrors = _parsed(fields, "mirrors", Mirror.parse, MAX_LINK_MIRRORS)
    path = _path(fields["path"]) if fields["path"] is not None or not mirrors else None
    size = _typed(fields["size"], int)
    stored = None if fields["key"] is None else _key(_typed(fields["key"], str))
    locked = stored is not None and protection is None and is_sealed(stored)
    key = None
    if stored is not None and not locked:
        key = (protection or PLAIN).reveal(content_key_of(file_id), stored)
    added_at = _typed(fields["added_at"], float)
    if size < 0 or not 0 <= added_at < _YEAR_10000:
        raise ValueError("its size or its time is impossible")
    return CatalogEntry(
        file_id=file_id,
        path=path,
        name=name,
        size=size,
        facts=tuple(
            Facts(*(_typed(number, int) for number in row)) for row in _typed(fields["facts"], list)
        ),
        key=key,
        private=_typed(fields["private"], bool),
        executable=_typed(fields["executable"], bool),
        added_at=added_at,
        locked=locked,
        trackers=_parsed(fields, "trackers", Tracker.parse, MAX_LINK_TRACKERS),
        nodes=_parsed(fields, "nodes", parse_node_id, MAX_LINK_PEERS),
        mirrors=mirrors,
    )


def _path(value: Any) -> Path:
    path = _typed(value, str)
    # fsencode raises ValueError for what no path can hold.
    if not path.startswith("/") or b"\0" in os.fsencode(path):
        raise ValueError("its path is malformed")
    return Path(path)


def _parsed(
    fields: dict[str, Any], name: str, parse: Callable[[str], T], most: int
) -> tuple[T, ...]:
    values = _typed(fields.get(name, []), list)
    if len(values) > most:
        raise ValueError(f"it has too many {name}")
    try:
        return tuple(parse(_typed(value, str)) for value in values)
    except UsageError:
        raise ValueError(f"one of its {name} is malformed") from None


def _key(text: str) -> bytes:
    try:
        key = from_field(text)
    except ValueError:
        key = b""
    if len(key) != KEY_SIZE and not is_sealed(key):
        raise ValueError("its key is malformed")
    return key


def _typed(value: Any, kind: type[T]) -> T:
    if type(value) is not kind:
        raise TypeError(f"a {kind.__name__} is missing")
    return value
