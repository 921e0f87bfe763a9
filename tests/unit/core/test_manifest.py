import struct
from dataclasses import replace

import pytest

from furymesh.core.errors import IllegalStateError, InvalidManifestError, WrongKeyError
from furymesh.core.geometry import DIGEST_SIZE, PAGE_DIGESTS, PAGE_SIZE, Geometry
from furymesh.core.hashing import HashAlgorithm
from furymesh.core.ids import FileId
from furymesh.core.layout import Entry, EntryKind
from furymesh.core.manifest import MAX_HEADER_SIZE, Header, Kind, Manifest
from furymesh.core.sealing import OVERHEAD, Sealer, cipher_size
from furymesh.core.table import MAX_TABLE_SIZE

CHUNK = 16 * 1024
MIB = 1 << 20
TIB = 1 << 40
B3 = HashAlgorithm.BLAKE3
FIXED = 44  # bytes of a header before the page digests


def chunks_of_stream(stream: bytes) -> list[bytes]:
    return [stream[at : at + CHUNK] for at in range(0, len(stream), CHUNK)]


def manifest_of(stream: bytes, algorithm: HashAlgorithm = B3) -> Manifest:
    digests = b"".join(map(algorithm.digest, chunks_of_stream(stream)))
    return Manifest.build(algorithm, Geometry(len(stream), CHUNK), digests)


def folder_of(entries: list[Entry], sealer: Sealer | None = None) -> Manifest:
    size = sum(entry.size for entry in entries)
    if sealer:
        size = cipher_size(size, CHUNK)
    geometry = Geometry(size, CHUNK)
    digests = bytes(geometry.chunk_count * DIGEST_SIZE)
    return Manifest.build(B3, geometry, digests, entries=entries, sealer=sealer)


@pytest.mark.parametrize("algorithm", HashAlgorithm)
@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK - 1, 3 * CHUNK + 1])
def test_every_chunk_is_checked(algorithm: HashAlgorithm, size: int) -> None:
    stream = bytes(number * 7 % 251 for number in range(size))
    manifest = manifest_of(stream, algorithm)
    assert manifest.complete
    assert manifest.verifiable == manifest.header.geometry.all_chunks
    assert manifest.header.plain_size == size
    for number, chunk in enumerate(chunks_of_stream(stream)):
        assert manifest.digest(number) == algorithm.digest(chunk)
        assert manifest.matches(number, chunk)
        assert not manifest.matches(number, chunk[:-1])
        assert not manifest.matches(number, chunk + b"\0")
        assert not manifest.matches(number, bytes([chunk[0] ^ 1]) + chunk[1:])


def test_golden_header_of_an_empty_file() -> None:
    raw = manifest_of(b"").header_bytes
    expected = b"FMH1" + bytes([1, 1, 0, 0]) + bytes(8) + struct.pack(">I", CHUNK) + bytes(24)
    assert raw == expected
    assert Manifest(raw).file_id == B3.digest(expected)


def test_golden_header_of_a_folder() -> None:
    manifest = folder_of(
        [
            Entry("b", EntryKind.EXECUTABLE, 3),
            Entry("a/é", EntryKind.FILE, 0),
            Entry("c", EntryKind.DIRECTORY, 0),
        ]
    )
    table = (
        b"\x00\x00\x04a/\xc3\xa9" + bytes(8)
        + b"\x01\x00\x01b" + bytes(7) + b"\x03"
        + b"\x02\x00\x01c"
    )  # fmt: skip
    assert manifest.table_bytes() == table
    fixed = b"FMH1" + bytes([1, 1, 1, 0])
    fixed += struct.pack(">QIQ", 3, CHUNK, len(table)) + bytes(16)
    assert manifest.header_bytes == fixed + B3.digest(table) + B3.digest(bytes(32))


def test_the_id_depends_on_every_option_and_nothing_else() -> None:
    stream = bytes(100)
    ids = {manifest_of(stream, algorithm).file_id for algorithm in HashAlgorithm}
    ids.add(manifest_of(stream + b"\0").file_id)
    ids.add(Manifest.build(B3, Geometry(100, 2 * CHUNK), B3.digest(stream)).file_id)
    assert len(ids) == 4
    assert manifest_of(stream).file_id == manifest_of(bytes(100)).file_id


def test_expected_id() -> None:
    manifest = manifest_of(b"x")
    assert Manifest(manifest.header_bytes, manifest.file_id).file_id == manifest.file_id
    with pytest.raises(InvalidManifestError, match="not the one"):
        Manifest(manifest.header_bytes, FileId(bytes(32)))


def test_pages_arrive_in_any_order_and_are_checked() -> None:
    entries = [Entry(f"{number:0200}", EntryKind.FILE, CHUNK) for number in range(PAGE_DIGESTS + 5)]
    whole = folder_of(entries)
    header = whole.header
    assert header.chunk_pages == 2
    assert header.table_pages == -(-header.table_size // PAGE_SIZE) == 7
    partial = Manifest(whole.header_bytes)
    assert partial.missing_pages == 2**9 - 1
    assert partial.verifiable == 0
    partial.add_page(8, whole.page(8))
    assert partial.verifiable == 0b11111 << PAGE_DIGESTS
    with pytest.raises(IllegalStateError):
        partial.digest(0)
    for bad in (whole.page(0)[:-1], b"", whole.page(1), bytes(PAGE_SIZE)):
        with pytest.raises(InvalidManifestError, match="page 0"):
            partial.add_page(0, bad)
    for page in (-1, 9, 1 << 70):
        with pytest.raises(InvalidManifestError, match="no page"):
            partial.add_page(page, whole.page(0))
    for page in (7, 6, 5, 4, 3, 2, 1):
        partial.add_page(page, memoryview(whole.page(page)))
    assert not partial.table_complete
    with pytest.raises(IllegalStateError):
        partial.entries()
    partial.add_page(0, whole.page(0))
    partial.add_page(0, whole.page(0))
    assert partial.complete
    assert partial.entries() == tuple(entries)
    assert partial.entries() is partial.entries()
    assert partial.layout().plain_size == header.plain_size


def test_single_file_has_one_nameless_entry() -> None:
    manifest = manifest_of(bytes(5))
    assert manifest.table_complete
    assert manifest.entries() == (Entry("", EntryKind.FILE, 5),)
    assert manifest.layout().single


def fixed(**changes: int | bytes) -> bytes:
    fields: dict[str, int | bytes] = {
        "magic": b"FMH1",
        "version": 1,
        "hash": 1,
        "kind": 0,
        "sealed": 0,
        "size": CHUNK,
        "chunk_size": CHUNK,
        "table": 0,
        "check": bytes(16),
    }
    fields.update(changes)
    return struct.pack(">4sBBBBQIQ16s", *fields.values())


HOSTILE = {
    "empty": b"",
    "short": fixed()[:-1],
    "magic": fixed(magic=b"FMH2") + bytes(32),
    "version": fixed(version=2) + bytes(32),
    "hash 0": fixed(hash=0) + bytes(32),
    "hash 3": fixed(hash=3) + bytes(32),
    "kind": fixed(kind=2) + bytes(32),
    "sealed flag": fixed(sealed=2) + bytes(32),
    "zero chunk size": fixed(chunk_size=0) + bytes(32),
    "odd chunk size": fixed(chunk_size=CHUNK + 1) + bytes(32),
    "small chunk size": fixed(chunk_size=CHUNK // 2) + bytes(32),
    "large chunk size": fixed(chunk_size=32 * MIB) + bytes(32),
    "8 EiB": fixed(size=2**63) + bytes(32),
    "2^64 - 1": fixed(size=2**64 - 1) + bytes(32),
    "no page": fixed(),
    "half a digest": fixed() + bytes(31),
    "a page too many": fixed() + bytes(64),
    "a page for nothing": fixed(size=0) + bytes(32),
    "a table in a file": fixed(table=1) + bytes(64),
    "table bomb": fixed(kind=1, table=2**64 - 1) + bytes(64),
    "table over the limit": fixed(kind=1, table=64 * MIB + 1) + bytes(32 * 1026),
    "check without sealing": fixed(check=b"x" * 16) + bytes(32),
    "sealed size 28": fixed(sealed=1, size=28) + bytes(32),
    "sealed size n+1": fixed(sealed=1, size=CHUNK + 1) + bytes(32),
    "sealed table 27": fixed(sealed=1, kind=1, table=27) + bytes(64),
    "sealed table 0": fixed(sealed=1, kind=1, table=0) + bytes(32),
    "too many pages": fixed(size=2047 * PAGE_DIGESTS * CHUNK) + bytes(32 * 2047),
    "table and pages beyond 64 KiB": fixed(
        kind=1, size=1100 * PAGE_DIGESTS * CHUNK, table=1000 * PAGE_SIZE
    )
    + bytes(32 * 2100),
}


@pytest.mark.parametrize("raw", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_headers(raw: bytes) -> None:
    for parse in (Header.decode, Manifest):
        with pytest.raises(InvalidManifestError):
            parse(raw)


def test_a_header_that_nobody_would_read_is_not_made() -> None:
    geometry = Geometry(1100 * PAGE_DIGESTS * CHUNK, CHUNK)
    most = (MAX_HEADER_SIZE - FIXED) // DIGEST_SIZE
    table = (most - geometry.page_count) * PAGE_SIZE
    largest = Header(B3, Kind.FOLDER, False, bytes(16), geometry, table, bytes(32 * most))
    assert Header.decode(largest.encode()) == largest
    with pytest.raises(InvalidManifestError, match="longer than 65536 bytes"):
        replace(largest, table_size=table + 1, page_digests=bytes(32 * (most + 1)))


def test_the_plain_header_of_these_tests_is_good() -> None:
    assert Header.decode(fixed() + bytes(32)).geometry == Geometry(CHUNK, CHUNK)
    assert Header.decode(fixed(sealed=1, check=bytes(16)) + bytes(32)).sealed


@pytest.mark.parametrize(
    ("size", "chunk_size", "chunks", "pages"),
    [(TIB, 4 * MIB, 262_144, 128), (10 * TIB, 4 * MIB, 2_621_440, 1280)],
)
def test_terabytes_on_generated_digests(
    size: int, chunk_size: int, chunks: int, pages: int
) -> None:
    geometry = Geometry(size, chunk_size)
    assert geometry.chunk_count == chunks
    # All pages alike but for their first digest, which is the page's number.
    filler = bytes(range(256)) * 256
    page = [number.to_bytes(32, "big") + filler[32:] for number in range(pages)]
    header = Header(B3, Kind.FILE, False, bytes(16), geometry, 0, b"".join(map(B3.digest, page)))
    raw = header.encode()
    assert len(raw) == FIXED + 32 * pages <= MAX_HEADER_SIZE
    manifest = Manifest(raw)
    for number in (pages - 1, 0, pages // 2):
        manifest.add_page(number, page[number])
        first = number * PAGE_DIGESTS
        assert manifest.digest(first) == number.to_bytes(32, "big")
        assert manifest.verifiable >> first & 1
        assert manifest.verifiable >> first + PAGE_DIGESTS - 1 & 1
    assert manifest.missing_pages.bit_count() == pages - 3
    assert manifest.verifiable.bit_count() == 3 * PAGE_DIGESTS
    assert manifest.verifiable.bit_length() == chunks


ENTRIES = [
    Entry("bin/run", EntryKind.EXECUTABLE, 20_000),
    Entry("doc/a.txt", EntryKind.FILE, 0),
    Entry("old", EntryKind.DIRECTORY, 0),
]


def test_sealed_folder_hides_its_table() -> None:
    sealer = Sealer(bytes(32))
    manifest = folder_of(ENTRIES, sealer)
    assert manifest.header.sealed
    assert manifest.header.plain_size == 20_000
    assert manifest.header.geometry.size == 20_000 + 2 * OVERHEAD
    assert b"run" not in manifest.table_bytes()
    with pytest.raises(WrongKeyError, match="encrypted"):
        manifest.entries()
    with pytest.raises(WrongKeyError, match="does not belong"):
        manifest.entries(Sealer(b"x" * 32))
    assert manifest.entries(sealer) == tuple(ENTRIES)
    with pytest.raises(WrongKeyError, match="encrypted"):
        manifest.entries()
    assert folder_of(ENTRIES, sealer).file_id == manifest.file_id


def test_sealed_empty_folder() -> None:
    sealer = Sealer(bytes(32))
    manifest = folder_of([], sealer)
    assert manifest.header.table_size == OVERHEAD
    assert manifest.entries(sealer) == ()


def test_key_of_another_link_does_no_harm_to_a_plain_folder() -> None:
    manifest = folder_of(ENTRIES)
    assert manifest.entries(Sealer(bytes(32))) == tuple(ENTRIES)


def test_header_fits_one_message() -> None:
    most = (MAX_HEADER_SIZE - FIXED) // 32
    geometry = Geometry(2000 * PAGE_DIGESTS * CHUNK, CHUNK)

    def header(pages: int) -> Header:
        table_size = (pages - geometry.page_count) * PAGE_SIZE
        return Header(B3, Kind.FOLDER, False, bytes(16), geometry, table_size, bytes(32 * pages))

    assert Header.decode(header(most).encode()).page_count == most
    with pytest.raises(InvalidManifestError, match="longer"):
        header(most + 1)


def test_table_of_the_greatest_size_is_accepted() -> None:
    digests = bytes(MAX_TABLE_SIZE // PAGE_SIZE * 32)
    header = Header(B3, Kind.FOLDER, False, bytes(16), Geometry(0, CHUNK), MAX_TABLE_SIZE, digests)
    assert header.table_pages == 1024
    assert Header.decode(header.encode()) == header


def test_sealed_file_needs_its_key_for_a_layout() -> None:
    sealer = Sealer(bytes(32))
    geometry = Geometry(cipher_size(100, CHUNK), CHUNK)
    manifest = Manifest.build(B3, geometry, bytes(32), sealer=sealer)
    with pytest.raises(WrongKeyError):
        manifest.layout()
    assert manifest.layout(sealer).plain_size == 100
    assert manifest.entries(sealer) == (Entry("", EntryKind.FILE, 100),)


def test_table_must_add_up_to_the_stream() -> None:
    good = folder_of(ENTRIES)
    table = good.table_bytes()
    header = Header(B3, Kind.FOLDER, False, bytes(16), Geometry(0, CHUNK), len(table),
                    B3.digest(table))  # fmt: skip
    manifest = Manifest(header.encode())
    manifest.add_page(0, table)
    with pytest.raises(InvalidManifestError, match="add up"):
        manifest.entries()


def test_sealed_table_that_does_not_open() -> None:
    sealer = Sealer(bytes(32))
    table = bytearray(folder_of(ENTRIES, sealer).table_bytes())
    table[-1] ^= 1
    header = Header(B3, Kind.FOLDER, True, sealer.check, Geometry(0, CHUNK), len(table),
                    B3.digest(table))  # fmt: skip
    manifest = Manifest(header.encode())
    manifest.add_page(0, table)
    with pytest.raises(WrongKeyError, match="file table"):
        manifest.entries(sealer)
