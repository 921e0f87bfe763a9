"""The manifest: what a share is made of, and how any part of it is checked.

A manifest is a header and pages. The file id is the hash of the header; the
header holds the digest of each page; pages hold the digests of the chunks and,
for folders, the file table. So whoever knows the id can check the header, then
each page alone, then each chunk alone, from whichever peer it came.

Header, integers big-endian::

    magic "FMH1" | version u8 = 1 | hash u8 | kind u8 | sealed u8
    stream size u64 | chunk size u32 | table size u64 | seal check 16 bytes
    one 32-byte digest for each table page, then for each chunk page

A table page is a 64 KiB slice of the table's bytes (see `furymesh.core.table`),
a chunk page is 2,048 digests; the last of each sort may be shorter. Pages are
numbered table first. Of an encrypted share sizes and digests are those of the
sealed stream and the sealed table (see `furymesh.core.sealing`).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from furymesh.core import sealing
from furymesh.core.errors import (
    IllegalStateError,
    InvalidManifestError,
    UsageError,
    WrongKeyError,
)
from furymesh.core.geometry import DIGEST_SIZE, PAGE_DIGESTS, PAGE_SIZE, Geometry
from furymesh.core.hashing import Buffer, HashAlgorithm
from furymesh.core.ids import FileId
from furymesh.core.layout import Entry, Layout
from furymesh.core.sealing import CHECK_SIZE, OVERHEAD, TABLE_INDEX, Sealer
from furymesh.core.table import MAX_TABLE_SIZE, decode_table, encode_table

MAGIC = b"FMH1"
VERSION = 1
MAX_HEADER_SIZE = 64 * 1024  # one message; names some 2,000 pages of 64 KiB

_FIXED = struct.Struct(f">4sBBBBQIQ{CHECK_SIZE}s")
_NO_CHECK = bytes(CHECK_SIZE)


class Kind(Enum):
    """What a share is; the value is its wire code."""

    FILE = 0
    FOLDER = 1


@dataclass(frozen=True, slots=True)
class Header:
    """The part of a manifest that the file id is the hash of.

    `seal_check` is zeros unless `sealed`; `page_digests` are 32 bytes a page.
    Construction validates and raises InvalidManifestError.
    """

    algorithm: HashAlgorithm
    kind: Kind
    sealed: bool
    seal_check: bytes
    geometry: Geometry
    table_size: int
    page_digests: bytes

    def __post_init__(self) -> None:
        if not 0 <= self.table_size <= MAX_TABLE_SIZE:
            raise _malformed(f"its file table is larger than {MAX_TABLE_SIZE} bytes")
        if self.kind is Kind.FILE and self.table_size:
            raise _malformed("a single file has no file table")
        if self.sealed and self.kind is Kind.FOLDER and self.table_size < OVERHEAD:
            raise _malformed("its encrypted file table is too short")
        if len(self.seal_check) != CHECK_SIZE or (not self.sealed and any(self.seal_check)):
            raise _malformed("it carries a key check but is not encrypted")
        if len(self.page_digests) != self.page_count * DIGEST_SIZE:
            raise _malformed("it does not name as many pages as its sizes need")
        if _FIXED.size + len(self.page_digests) > MAX_HEADER_SIZE:
            raise _malformed(f"it is longer than {MAX_HEADER_SIZE} bytes")
        if self.sealed:
            sealing.plain_size(self.geometry.size, self.geometry.chunk_size)

    def encode(self) -> bytes:
        """The header's one spelling in bytes."""
        return (
            _FIXED.pack(
                MAGIC,
                VERSION,
                self.algorithm.code,
                self.kind.value,
                self.sealed,
                self.geometry.size,
                self.geometry.chunk_size,
                self.table_size,
                self.seal_check,
            )
            + self.page_digests
        )

    @classmethod
    def decode(cls, raw: bytes) -> Header:
        """Read a header; raises InvalidManifestError for anything but exact bytes."""
        if not _FIXED.size <= len(raw) <= MAX_HEADER_SIZE:
            raise _malformed(f"{len(raw)} bytes cannot be a header")
        magic, version, code, kind, sealed, size, chunk_size, table_size, check = (
            _FIXED.unpack_from(raw)
        )
        if magic != MAGIC:
            raise _malformed("it does not start as a manifest does")
        if version != VERSION:
            raise InvalidManifestError(
                f"the manifest has format version {version}, this furymesh knows {VERSION}:"
                " install a newer one"
            )
        algorithm = HashAlgorithm.from_code(code)
        if kind > Kind.FOLDER.value or sealed > 1:
            raise _malformed("its kind or its encryption flag is unknown")
        try:
            geometry = Geometry(size, chunk_size)
        except UsageError as error:
            raise _malformed(str(error)) from None
        digests = bytes(raw[_FIXED.size :])
        return cls(algorithm, Kind(kind), bool(sealed), check, geometry, table_size, digests)

    @property
    def plain_size(self) -> int:
        """Bytes of content, encryption taken off."""
        if not self.sealed:
            return self.geometry.size
        return sealing.plain_size(self.geometry.size, self.geometry.chunk_size)

    @property
    def table_pages(self) -> int:
        return -(-self.table_size // PAGE_SIZE)

    @property
    def chunk_pages(self) -> int:
        return self.geometry.page_count

    @property
    def page_count(self) -> int:
        return self.table_pages + self.chunk_pages

    def page_size(self, page: int) -> int:
        """Bytes of one page, at most 65,536."""
        if page < self.table_pages:
            return min(PAGE_SIZE, self.table_size - page * PAGE_SIZE)
        return self.geometry.digests_on_page(page - self.table_pages) * DIGEST_SIZE

    def page_digest(self, page: int) -> bytes:
        return self.page_digests[page * DIGEST_SIZE : (page + 1) * DIGEST_SIZE]


class Manifest:
    """A checked header and as many of its pages as have arrived.

    A page is stored only after its digest matched, so every digest and entry
    given out is the author's. Pages are kept as they came: memory is that of
    the pages present, 32 bytes a chunk.
    """

    __slots__ = ("_entries", "_pages", "file_id", "header", "missing_pages", "verifiable")

    def __init__(self, header_bytes: bytes, expected: FileId | None = None) -> None:
        """Raises InvalidManifestError for bad bytes, or if `expected` is another id."""
        self.header = Header.decode(header_bytes)
        self.file_id = FileId(self.header.algorithm.digest(header_bytes))
        if expected is not None and self.file_id != expected:
            raise InvalidManifestError("the manifest header is not the one the file id names")
        self._pages: list[bytes | None] = [None] * self.header.page_count
        self._entries: tuple[Entry, ...] | None = None
        #: Mask of the pages still to come.
        self.missing_pages = (1 << self.header.page_count) - 1
        #: Mask of the chunks whose digest is known.
        self.verifiable = 0

    @classmethod
    def build(
        cls,
        algorithm: HashAlgorithm,
        geometry: Geometry,
        digests: bytes,
        *,
        entries: Iterable[Entry] | None = None,
        sealer: Sealer | None = None,
    ) -> Manifest:
        """The complete manifest of a stream whose chunks have these digests.

        `entries` is the file table of a folder, None for a single file. With a
        `sealer`, `geometry` and `digests` are those of the sealed stream. Raises
        InvalidManifestError if the table breaks a rule or a limit.
        """
        table = b""
        if entries is not None:
            table = encode_table(entries)
            if sealer:
                table = sealer.seal(TABLE_INDEX, table)
        pages = [
            part[at : at + PAGE_SIZE]
            for part in (table, digests)
            for at in range(0, len(part), PAGE_SIZE)
        ]
        header = Header(
            algorithm,
            Kind.FILE if entries is None else Kind.FOLDER,
            sealer is not None,
            sealer.check if sealer else _NO_CHECK,
            geometry,
            len(table),
            b"".join(map(algorithm.digest, pages)),
        )
        manifest = cls(header.encode())
        for number, page in enumerate(pages):
            manifest.add_page(number, page)
        return manifest

    @property
    def header_bytes(self) -> bytes:
        return self.header.encode()

    @property
    def complete(self) -> bool:
        """Whether every page is here."""
        return not self.missing_pages

    # --- pages ----------------------------------------------------------------

    def add_page(self, page: int, data: Buffer) -> None:
        """Take in a page; raises InvalidManifestError unless it is the author's."""
        header = self.header
        if not 0 <= page < header.page_count:
            raise InvalidManifestError(f"the manifest has no page {page}")
        if len(data) != header.page_size(page):
            raise InvalidManifestError(f"manifest page {page} has the wrong length")
        if header.algorithm.digest(data) != header.page_digest(page):
            raise InvalidManifestError(f"manifest page {page} does not match its digest")
        self._pages[page] = bytes(data)
        self.missing_pages &= ~(1 << page)
        number = page - header.table_pages
        if number >= 0:
            chunks = (1 << header.geometry.digests_on_page(number)) - 1
            self.verifiable |= chunks << number * PAGE_DIGESTS

    def page(self, page: int) -> bytes:
        """The bytes of a page that is here."""
        data = self._pages[page]
        if data is None:
            raise IllegalStateError(f"manifest page {page} was used before it arrived")
        return data

    # --- chunks ---------------------------------------------------------------

    def page_of(self, chunk: int) -> int:
        """The page that holds a chunk's digest."""
        return self.header.table_pages + chunk // PAGE_DIGESTS

    def digest(self, chunk: int) -> bytes:
        """The 32 bytes a chunk must hash to; its page must be here."""
        at = chunk % PAGE_DIGESTS * DIGEST_SIZE
        return self.page(self.page_of(chunk))[at : at + DIGEST_SIZE]

    def matches(self, chunk: int, data: Buffer) -> bool:
        """Whether `data` is exactly this chunk of the stream."""
        header = self.header
        return len(data) == header.geometry.length(chunk) and (
            header.algorithm.digest(data) == self.digest(chunk)
        )

    # --- files ----------------------------------------------------------------

    @property
    def table_complete(self) -> bool:
        """Whether the file table can be read (always, for a single file)."""
        return None not in self._pages[: self.header.table_pages]

    def table_bytes(self) -> bytes:
        """The file table as it is in the pages: sealed if the share is."""
        return b"".join(map(self.page, range(self.header.table_pages)))

    def entries(self, sealer: Sealer | None = None) -> tuple[Entry, ...]:
        """The file table, checked; one entry with the path "" for a single file.

        The table pages must be here. Raises InvalidManifestError for a bad
        table, WrongKeyError if the share is encrypted and `sealer` is not its own.
        """
        self._require_key(sealer)
        if self._entries is None:
            self._entries = self._read_entries(sealer)
        return self._entries

    def layout(self, sealer: Sealer | None = None) -> Layout:
        """Where the plain stream goes; raises as `entries` does."""
        if self.header.kind is Kind.FILE:
            self._require_key(sealer)
            return Layout.of_file(self.header.plain_size)
        return Layout(self.entries(sealer))

    def _require_key(self, sealer: Sealer | None) -> None:
        if not self.header.sealed:
            return
        if sealer is None:
            raise WrongKeyError("this share is encrypted: use a link that carries its key")
        sealer.require(self.header.seal_check)

    def _read_entries(self, sealer: Sealer | None) -> tuple[Entry, ...]:
        if self.header.kind is Kind.FILE:
            return Layout.of_file(self.header.plain_size).files
        raw = self.table_bytes()
        if sealer and self.header.sealed:
            raw = sealer.open(TABLE_INDEX, raw)
        entries = decode_table(raw)
        if sum(entry.size for entry in entries) != self.header.plain_size:
            raise InvalidManifestError("the sizes in the file table do not add up to the stream")
        return entries


def _malformed(what: str) -> InvalidManifestError:
    return InvalidManifestError(f"malformed manifest: {what}")
