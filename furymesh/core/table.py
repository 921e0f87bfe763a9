"""The file table of a folder, as bytes.

Entries follow each other, sorted strictly ascending by the bytes of their path:
``type u8 | path length u16 | path, UTF-8 | size u64 (files only)``. Type is 0
file, 1 executable file, 2 empty directory; other directories are implied by
what lies in them. One tree has one spelling, so equal trees have equal ids.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

from furymesh.core.errors import InvalidManifestError
from furymesh.core.geometry import MAX_STREAM_SIZE
from furymesh.core.layout import Entry, EntryKind
from furymesh.core.paths import check_table, shown

MAX_TABLE_SIZE = 64 * 1024 * 1024  # a million entries with paths of ordinary length
MAX_ENTRIES = 1_000_000  # each costs some 200 bytes of memory once read

_HEAD = struct.Struct(">BH")
_SIZE = struct.Struct(">Q")
_KINDS = {kind.value: kind for kind in EntryKind}


def encode_table(entries: Iterable[Entry]) -> bytes:
    """The table's bytes; raises InvalidManifestError for paths nobody would accept."""
    out = bytearray()
    listed = sorted(
        ((entry.path.encode("utf-8", "surrogatepass"), entry) for entry in entries),
        key=lambda pair: pair[0],
    )
    check_table(entry.path for _, entry in listed)
    for path, entry in listed:
        out += _HEAD.pack(entry.kind.value, len(path)) + path
        if entry.kind is not EntryKind.DIRECTORY:
            out += _SIZE.pack(entry.size)
    _check_limits(len(out), len(listed))
    return bytes(out)


def decode_table(raw: bytes) -> tuple[Entry, ...]:
    """The entries, validated as a whole; raises InvalidManifestError."""
    _check_limits(len(raw), 0)
    entries: list[Entry] = []
    at = 0
    previous = b""
    while at < len(raw):
        try:
            code, length = _HEAD.unpack_from(raw, at)
            at += _HEAD.size
            path = raw[at : at + length]
            at += length
            kind = _KINDS[code]
            size = 0
            if kind is not EntryKind.DIRECTORY:
                (size,) = _SIZE.unpack_from(raw, at)
                at += _SIZE.size
            text = path.decode("utf-8")
        except (struct.error, KeyError, UnicodeDecodeError):
            raise _malformed(f"entry {len(entries)} cannot be read") from None
        if len(path) != length:
            raise _malformed(f"entry {len(entries)} is cut short")
        if path <= previous:
            raise _malformed(f'"{shown(text[:200])}" is out of order')
        if size > MAX_STREAM_SIZE:
            raise _malformed(f'"{shown(text[:200])}" is impossibly large')
        previous = path
        entries.append(Entry(text, kind, size))
        if len(entries) > MAX_ENTRIES:
            break
    _check_limits(len(raw), len(entries))
    check_table(entry.path for entry in entries)
    return tuple(entries)


def _check_limits(size: int, entries: int) -> None:
    if size > MAX_TABLE_SIZE or entries > MAX_ENTRIES:
        raise InvalidManifestError(
            f"a folder may list at most {MAX_ENTRIES} files in {MAX_TABLE_SIZE} bytes:"
            " share its parts one by one"
        )


def _malformed(what: str) -> InvalidManifestError:
    return InvalidManifestError(f"malformed file table: {what}")
