"""Manifests on disk, page by page.

File: ``header length u32 | header | pages``, each page at the offset that its
number and the sizes before it give, so that pages are written as they arrive
and in any order. The file carries no marks of which pages are there: loading
checks each against the header's digest, and what does not match is missing.
"""

from __future__ import annotations

import contextlib
import os
import struct
from pathlib import Path
from typing import BinaryIO

from furymesh.core.errors import InvalidManifestError, UsageError
from furymesh.core.geometry import DIGEST_SIZE, PAGE_SIZE
from furymesh.core.ids import FileId, parse_file_id
from furymesh.core.manifest import MAX_HEADER_SIZE, Header, Manifest
from furymesh.storage.files import (
    atomic_write,
    make_private_directory,
    open_plain,
    translating,
)

DIRECTORY = "manifests"

_LENGTH = struct.Struct(">I")
HEAD_SIZE = _LENGTH.size + MAX_HEADER_SIZE  # bytes in which the header is


class ManifestStore:
    """The manifests under `<data_dir>/manifests`, one file per file id."""

    def __init__(self, data_dir: Path) -> None:
        self._directory = data_dir / DIRECTORY

    def save(self, manifest: Manifest) -> None:
        """Store a manifest with the pages it has, replacing what is there; durable."""
        make_private_directory(self._directory)
        atomic_write(self._path(manifest.file_id), encode_manifest(manifest))

    def save_page(self, manifest: Manifest, page: int) -> None:
        """Store one page that has just arrived; `save` must have been called before.

        Not synced: after a power loss the page may be missing and is fetched
        again. Raises EnvironmentFault.
        """
        path = self._path(manifest.file_id)
        with translating(path, "write"), open(open_plain(path, os.O_WRONLY), "wb") as file:
            file.seek(_page_offset(manifest.header, page))
            file.write(manifest.page(page))

    def sync(self, file_id: FileId) -> None:
        """Make the pages that `save_page` stored survive a power cut; raises EnvironmentFault."""
        path = self._path(file_id)
        with translating(path, "sync"), open(open_plain(path, os.O_WRONLY), "wb") as file:
            os.fdatasync(file.fileno())

    def load(self, file_id: FileId) -> Manifest | None:
        """The stored manifest, whole or in part; None if it is absent or unusable.

        Only pages that match their digests are in it. Raises EnvironmentFault.
        """
        path = self._path(file_id)
        with translating(path, "read"):
            try:
                with open(open_plain(path, os.O_RDONLY), "rb") as file:
                    return read_manifest(file, file_id)
            except (FileNotFoundError, InvalidManifestError):
                return None

    def ids(self) -> tuple[FileId, ...]:
        """The ids of the stored manifests, sorted; raises EnvironmentFault."""
        with translating(self._directory, "read"):
            try:
                names = os.listdir(self._directory)
            except FileNotFoundError:
                return ()
        found = []
        for name in names:
            with contextlib.suppress(UsageError):
                found.append(parse_file_id(name))
        return tuple(sorted(found))

    def delete(self, file_id: FileId) -> None:
        """Drop a manifest; fine if there is none. Raises EnvironmentFault."""
        path = self._path(file_id)
        with translating(path, "delete"):
            path.unlink(missing_ok=True)

    def _path(self, file_id: FileId) -> Path:
        return self._directory / file_id.hex()


def encode_manifest(manifest: Manifest) -> bytes:
    """The bytes of the file; pages that are missing are zeros."""
    header = manifest.header_bytes
    out = bytearray(_LENGTH.pack(len(header)) + header)
    for page in range(manifest.header.page_count):
        here = not manifest.missing_pages >> page & 1
        out += manifest.page(page) if here else bytes(manifest.header.page_size(page))
    return bytes(out)


def file_size(header: Header) -> int:
    """Bytes of the file of a manifest."""
    digests = header.geometry.chunk_count * DIGEST_SIZE
    return _LENGTH.size + len(header.encode()) + header.table_size + digests


def read_manifest(file: BinaryIO, file_id: FileId) -> Manifest:
    """The manifest in a file, without pages that do not match; raises InvalidManifestError."""
    length = int.from_bytes(file.read(_LENGTH.size), "big")
    manifest = Manifest(file.read(min(length, MAX_HEADER_SIZE)), file_id)
    for page in range(manifest.header.page_count):
        data = file.read(manifest.header.page_size(page))
        with contextlib.suppress(InvalidManifestError):
            manifest.add_page(page, data)
    return manifest


def _page_offset(header: Header, page: int) -> int:
    """Where a page lies in the file; all but the last of each sort are whole."""
    start = _LENGTH.size + len(header.encode())
    if page < header.table_pages:
        return start + page * PAGE_SIZE
    return start + header.table_size + (page - header.table_pages) * PAGE_SIZE
