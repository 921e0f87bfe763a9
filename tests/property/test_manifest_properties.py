import pytest
from hypothesis import given
from hypothesis import strategies as st

from furymesh.core.errors import InvalidManifestError
from furymesh.core.geometry import Geometry
from furymesh.core.hashing import HashAlgorithm
from furymesh.core.layout import Entry, EntryKind
from furymesh.core.manifest import Header, Manifest
from furymesh.core.sealing import Sealer, cipher_size
from furymesh.core.table import decode_table, encode_table

CHUNK = 16 * 1024
NAMES = st.text("abcé", min_size=1, max_size=3)
KINDS = st.sampled_from(EntryKind)


@st.composite
def trees(draw: st.DrawFn) -> list[Entry]:
    """Leaves all on one level of one to three components, so none lies in another."""
    depth = draw(st.integers(1, 3))
    paths = draw(st.sets(st.lists(NAMES, min_size=depth, max_size=depth).map("/".join), max_size=8))
    entries = []
    for path in paths:
        kind = draw(KINDS)
        size = 0 if kind is EntryKind.DIRECTORY else draw(st.integers(0, 40_000))
        entries.append(Entry(path, kind, size))
    return entries


@st.composite
def manifests(draw: st.DrawFn) -> tuple[Manifest, Sealer | None]:
    entries = draw(st.none() | trees())
    sealer = draw(st.none() | st.binary(min_size=32, max_size=32).map(Sealer))
    size = (
        draw(st.integers(0, 100_000)) if entries is None else sum(entry.size for entry in entries)
    )
    geometry = Geometry(cipher_size(size, CHUNK) if sealer else size, CHUNK)
    algorithm = draw(st.sampled_from(HashAlgorithm))
    digests = b"".join(algorithm.digest(bytes([number])) for number in range(geometry.chunk_count))
    return Manifest.build(algorithm, geometry, digests, entries=entries, sealer=sealer), sealer


@given(trees())
def test_table_round_trip(entries: list[Entry]) -> None:
    expected = tuple(sorted(entries, key=lambda entry: entry.path.encode()))
    assert decode_table(encode_table(entries)) == expected


@given(manifests())
def test_manifest_round_trip(made: tuple[Manifest, Sealer | None]) -> None:
    manifest, sealer = made
    copy = Manifest(manifest.header_bytes, manifest.file_id)
    assert copy.header == manifest.header
    assert Header.decode(copy.header_bytes).encode() == manifest.header_bytes
    for page in range(manifest.header.page_count):
        assert copy.missing_pages >> page & 1
        copy.add_page(page, manifest.page(page))
    assert copy.complete
    assert copy.verifiable == manifest.header.geometry.all_chunks
    assert copy.entries(sealer) == manifest.entries(sealer)
    assert copy.layout(sealer).plain_size == manifest.header.plain_size


@given(manifests(), st.data())
def test_one_changed_header_byte_is_refused_or_another_share(
    made: tuple[Manifest, Sealer | None], data: st.DataObject
) -> None:
    manifest, _ = made
    raw = bytearray(manifest.header_bytes)
    position = data.draw(st.integers(0, len(raw) - 1))
    raw[position] ^= data.draw(st.integers(1, 255))
    with pytest.raises(InvalidManifestError):
        Manifest(bytes(raw), manifest.file_id)
    try:
        assert Header.decode(bytes(raw)).encode() == raw
    except InvalidManifestError as error:
        reason = str(error)
        assert reason.isprintable()


@given(st.binary(max_size=200) | st.binary(max_size=120).map(lambda rest: b"FMH1\x01\x01" + rest))
def test_only_invalid_manifest_errors_escape(raw: bytes) -> None:
    for parse in (Header.decode, decode_table):
        try:
            parse(raw)
        except InvalidManifestError as error:
            reason = str(error)
            assert reason.isprintable()
