"""One entry of the catalog: what is kept of a share, and the form it has on disk."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from furymesh.core.errors import UsageError
from furymesh.core.ids import FileId, NodeId, node_id_text, parse_node_id
from furymesh.core.link import (
    MAX_LINK_MIRRORS,
    MAX_LINK_PEERS,
    MAX_LINK_TRACKERS,
    Link,
    Mirror,
    Tracker,
)
from furymesh.core.paths import safe_name
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
from furymesh.storage.scan import Facts

_BARE_VERSION = 1  # of entries from before they had a checksum
_YEAR_10000 = 253_402_300_800  # seconds; what comes later has no calendar date

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


def encode(entry: CatalogEntry, protection: Protection) -> bytes:
    """The bytes to keep of an entry; its key is sealed if `protection` has a passphrase."""
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


def decode(raw: bytes, file_id: FileId, protection: Protection | None) -> CatalogEntry:
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
