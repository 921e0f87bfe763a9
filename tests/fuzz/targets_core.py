"""Targets of `furymesh.core`: manifests, sets of chunks, resume data."""

from __future__ import annotations

import json
import struct
from zlib import crc32

from blake3 import blake3

from furymesh.core import bitfield, journal
from furymesh.core.errors import (
    DamagedResumeDataError,
    InvalidManifestError,
    WrongKeyError,
)
from furymesh.core.geometry import DIGEST_SIZE, PAGE_SIZE, Geometry
from furymesh.core.hashing import HashAlgorithm
from furymesh.core.journal import RecordKind, RecordWriter
from furymesh.core.layout import Entry, EntryKind, Layout
from furymesh.core.manifest import Header, Manifest
from furymesh.core.sealing import TABLE_INDEX, Sealer
from furymesh.core.snapshot import ResumeMeta, encode_snapshot, recover
from furymesh.core.table import decode_table, encode_table
from tests.fuzz.engine import Target
from tests.fuzz.material import BOOT, FILE_ID, KEY, NAMES, SALT


def table(data: bytes) -> None:
    """One tree has one spelling, and its files fill their stream."""
    entries = decode_table(data)
    assert encode_table(entries) == data
    layout = Layout(entries)
    if 0 < layout.plain_size < 2**40:
        segments = list(layout.segments(0, layout.plain_size))
        assert sum(segment.length for segment in segments) == layout.plain_size


def header(data: bytes) -> None:
    read = Header.decode(data)
    assert read.encode() == data
    assert sum(map(read.page_size, range(read.page_count))) >= read.table_size
    assert read.plain_size <= read.geometry.size


_FIXED = 44  # bytes of a header before its page digests


def manifest(data: bytes) -> None:
    """A header whose digests are made to fit, and the table pages that belong to it.

    Without that, nothing behind a digest would ever be reached.
    """
    fixed, rest = data[:_FIXED], data[_FIXED:]
    size, chunk_size, table_size = struct.unpack_from(">QIQ", fixed.ljust(_FIXED, b"\0"), 8)
    chunks = -(-size // max(chunk_size, 1))
    if chunks > 5_000 or table_size > len(rest):
        Header.decode(data)
        return
    parts = (rest[:table_size], bytes(chunks * DIGEST_SIZE))
    pages = [part[at : at + PAGE_SIZE] for part in parts for at in range(0, len(part), PAGE_SIZE)]
    algorithm = HashAlgorithm.SHA256 if fixed[5:6] == b"\2" else HashAlgorithm.BLAKE3
    read = Manifest(fixed + b"".join(map(algorithm.digest, pages)))
    for number, page in enumerate(pages):
        read.add_page(number, page)
    assert read.complete
    layout = read.layout(Sealer(KEY) if read.header.sealed else None)
    assert layout.plain_size == read.header.plain_size


def sealed(data: bytes) -> None:
    """What opens is what was sealed, byte for byte."""
    index = TABLE_INDEX if data[:1] == b"t" else 7
    sealer = Sealer(KEY)
    assert sealer.seal(index, sealer.open(index, data[1:])) == data[1:]


def bitmap(data: bytes) -> None:
    """A count of chunks in four bytes, and a bitmap for it."""
    count = int.from_bytes(data[:4], "big") % 100_000
    mask = bitfield.from_bytes(data[4:], count)
    if mask is None:
        return
    assert bitfield.to_bytes(mask, count) == data[4:]
    chunks = list(bitfield.chunks_of(mask))
    assert bitfield.mask_of(chunks) == mask
    assert len(chunks) == mask.bit_count()
    assert len(bitfield.strip(mask, max(count, 1), 76)) == 76
    if chunks:
        assert bitfield.nth_chunk(mask, len(chunks) // 2) == chunks[len(chunks) // 2]


def records(data: bytes) -> None:
    """A journal, as it is and with the checksums of half of its records made good."""
    out = bytearray(data)
    for sequence, at in enumerate(range(0, len(out) - 15, 16)):
        if out[at] & 1:
            body = struct.pack(">IB7s", sequence, out[at + 8] % 4, out[at + 9 : at + 16])
            out[at : at + 16] = struct.pack(">I", crc32(body, crc32(SALT))) + body
    for raw in (data, bytes(out)):
        told = journal.replay(raw, SALT, 1_000)
        assert not told.durable & told.volatile
        assert (told.durable | told.volatile) >> 1_000 == 0


def resume(data: bytes) -> None:
    """A resume file as it is, and once more with every checksum made good."""
    errors = []
    for raw in (data, _resealed(data)):
        try:
            told = recover(raw, BOOT)
        except DamagedResumeDataError as error:
            errors.append(error)
            continue
        assert not told.durable & told.volatile
        assert not told.have & told.doubtful
        assert (told.have | told.doubtful) >> told.meta.chunk_count == 0
        # What was read can be written, and means the same again.
        again = encode_snapshot(
            told.meta, salt=SALT, boot_id=BOOT, have=told.have, doubtful=told.doubtful
        )
        assert recover(again, BOOT).meta == told.meta
        assert recover(again, BOOT).have == told.have
    if errors:
        raise errors[0]


def _resealed(data: bytes) -> bytes:
    """The three parts of a snapshot under checksums that fit, then the journal."""
    prelude = data[:40].ljust(40, b"\0")
    salt = prelude[8:16]
    count, size = struct.unpack(">II", prelude[32:40])
    at = 40 + 16
    metadata = data[at : at + min(size, len(data))]
    at += len(metadata) + 16
    bitmaps = data[at : at + min(2 * ((count + 7) // 8), len(data))]
    at += len(bitmaps) + 16
    prelude = prelude[:36] + struct.pack(">I", len(metadata))
    parts = (prelude, metadata, bitmaps)
    return b"".join(part + blake3(salt + part).digest(16) for part in parts) + data[at:]


def metadata_snapshot(metadata: bytes, count: int) -> bytes:
    """A good snapshot around metadata from elsewhere."""
    prelude = struct.pack(">8s8s16sII", b"FMRESUM1", SALT, BOOT, count, len(metadata))
    parts = (prelude, metadata, bytes(2 * ((count + 7) // 8)))
    return b"".join(part + blake3(SALT + part).digest(16) for part in parts)


def metadata(data: bytes) -> None:
    """The description of a download, under a good checksum."""
    counts = (0, 20)
    for count in counts:
        try:
            told = recover(metadata_snapshot(data, count), BOOT)
        except DamagedResumeDataError:
            if count == counts[-1]:
                raise
            continue
        encode_snapshot(told.meta, salt=SALT, boot_id=BOOT, have=0, doubtful=0)
        return


META = ResumeMeta(
    file_id=FILE_ID,
    name="film \udcff.mkv",
    output="/home/me/film.mkv",
    part="/home/me/film.mkv.00010203.part",
    created_at=1_700_000_000.5,
    size=5_000_000,
    chunk_size=262_144,
    chunks_total=20,
    header=b"FMH1" + bytes(40),
    key=KEY,
    peers=("10.0.0.1:4000", "[::1]:4001"),
    part_inode=2**63 + 1,
    executable=True,
    trackers=("udp://192.0.2.1:6969",),
)


def metadata_json(meta: ResumeMeta = META) -> bytes:
    raw = encode_snapshot(meta, salt=SALT, boot_id=BOOT, have=0, doubtful=0)
    size = int.from_bytes(raw[36:40], "big")
    return raw[56 : 56 + size]


def _journal() -> bytes:
    writer = RecordWriter(SALT)
    out = b""
    for kind, index in ((1, 3), (1, 4), (2, 2), (1, 9), (1, 3), (2, 5)):
        out += writer.record(RecordKind(kind), index)
        writer.advance()
    return out


def _tree() -> tuple[Entry, ...]:
    return (
        Entry("README", EntryKind.FILE, 100),
        Entry("bin/run", EntryKind.EXECUTABLE, 70_000),
        Entry("empty", EntryKind.DIRECTORY, 0),
        Entry("é/日本", EntryKind.FILE, 0),
    )


def _folder(algorithm: HashAlgorithm = HashAlgorithm.BLAKE3, key: bytes | None = None) -> bytes:
    """A folder's header without its digests, and its table."""
    sealer = Sealer(key) if key else None
    size = sum(entry.size for entry in _tree()) + (28 * 2 if key else 0)
    geometry = Geometry(size, 65_536)
    digests = bytes(32 * geometry.chunk_count)
    built = Manifest.build(algorithm, geometry, digests, entries=_tree(), sealer=sealer)
    return built.header_bytes[:_FIXED] + built.table_bytes()


def _header(size: int) -> bytes:
    geometry = Geometry(size, 16_384)
    return Manifest.build(
        HashAlgorithm.SHA256, geometry, bytes(32 * geometry.chunk_count)
    ).header_bytes


def snapshot() -> bytes:
    return encode_snapshot(META, salt=SALT, boot_id=BOOT, have=0b111, doubtful=0b11000)


def young() -> ResumeMeta:
    """Of a download that has not heard anything yet."""
    return ResumeMeta(FILE_ID, "", META.output, META.part, META.created_at)


_FIELDS = tuple(f'"{name}":'.encode() for name in json.loads(metadata_json()))

TARGETS = (
    Target(
        "table",
        table,
        lambda: {"tree": encode_table(_tree()), "empty": b""},
        (InvalidManifestError,),
        NAMES,
    ),
    Target(
        "header",
        header,
        lambda: {"one": _header(40_000_000), "empty": _header(0), "folder": _folder()},
        (InvalidManifestError,),
        (b"FMH1\1", bytes(32), bytes(8)),
    ),
    Target(
        "manifest",
        manifest,
        lambda: {
            "file": _header(100_000)[:_FIXED],
            "folder": _folder(HashAlgorithm.SHA256),
            "sealed": _folder(key=KEY),
        },
        (InvalidManifestError, WrongKeyError),
        (*NAMES, b"FMH1\1", b"\0\0\1a", b"\2\0\1d"),
    ),
    Target(
        "sealed",
        sealed,
        lambda: {
            "table": b"t" + Sealer(KEY).seal(TABLE_INDEX, b"a table"),
            "chunk": b"c" + Sealer(KEY).seal(7, bytes(100)),
        },
        (WrongKeyError,),
    ),
    Target(
        "bitmap",
        bitmap,
        lambda: {"few": b"\0\0\0\x0b\xff\x07", "many": b"\0\0\x10\0" + bytes(511) + b"\x80"},
    ),
    Target(
        "journal", records, lambda: {"records": _journal(), "torn": _journal()[:-5] + bytes(40)}
    ),
    Target(
        "resume",
        resume,
        lambda: {"fresh": snapshot(), "used": snapshot() + _journal()},
        (DamagedResumeDataError,),
        (*_FIELDS, b"null", b"FMRESUM1"),
    ),
    Target(
        "metadata",
        metadata,
        lambda: {"old": metadata_json(), "young": metadata_json(young())},
        (DamagedResumeDataError,),
        (*_FIELDS, b"null", rb"\ud800", rb"\u0000", b'"zz"', b"[]"),
    ),
)
