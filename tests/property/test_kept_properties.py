"""What is kept in files reads back as it was: orders, catalog entries, descriptions, ids."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from furymesh.core.geometry import MAX_CHUNKS, MAX_STREAM_SIZE, Geometry
from furymesh.core.hashing import HashAlgorithm
from furymesh.core.ids import FileId, NodeId, node_id_text, parse_file_id, parse_node_id
from furymesh.core.link import Address, Link
from furymesh.core.manifest import Manifest
from furymesh.core.paths import safe_name
from furymesh.core.snapshot import MAX_INODE, ResumeMeta, encode_snapshot, recover
from furymesh.node.orders import DetachedOrder
from furymesh.storage.catalog import Catalog
from furymesh.storage.catalog_entry import CatalogEntry
from furymesh.storage.scan import Facts

IDS = st.binary(min_size=32, max_size=32)
FILE_IDS = IDS.map(FileId)
KEYS = st.none() | IDS
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=30)
# Whatever bytes a path is made of, as Python shows them.
PATHS = st.binary(min_size=1, max_size=40).map(
    lambda raw: "/" + raw.replace(b"\0", b"x").decode("utf-8", "surrogateescape")
)
ADDRESSES = st.builds(Address, st.ip_addresses().map(str), st.integers(1, 65535))
INTEGERS = st.integers(-(2**63), 2**64)
TIMES = st.floats(0, 2**33, allow_nan=False)

ORDERS = st.builds(
    DetachedOrder,
    st.builds(Link, FILE_IDS, st.none() | TEXTS.filter(bool), st.just(()), KEYS),
    st.none() | PATHS.map(Path),
    st.lists(ADDRESSES, max_size=3).map(tuple),
    st.booleans(),
    st.none() | IDS.map(bytes.hex),
)
ENTRIES = st.builds(
    CatalogEntry,
    file_id=FILE_IDS,
    path=PATHS.map(Path),
    name=TEXTS.map(lambda text: safe_name(text, "share")),
    size=st.integers(0, 2**63),
    facts=st.lists(st.builds(Facts, *[INTEGERS] * 5), max_size=3).map(tuple),
    key=KEYS,
    private=st.booleans(),
    executable=st.booleans(),
    added_at=TIMES,
)
METAS = st.builds(
    ResumeMeta,
    file_id=FILE_IDS,
    name=TEXTS,
    output=PATHS,
    part=PATHS,
    created_at=TIMES,
    size=st.none() | st.integers(0, MAX_STREAM_SIZE),
    chunk_size=st.none() | st.integers(0, MAX_STREAM_SIZE),
    chunks_total=st.none() | st.integers(0, min(MAX_CHUNKS, 5_000)),
    header=st.none() | st.binary(max_size=60),
    key=KEYS,
    peers=st.lists(ADDRESSES.map(str), max_size=3).map(tuple),
    part_inode=st.none() | st.integers(0, MAX_INODE),
    executable=st.booleans(),
    detached=st.booleans(),
)


@given(IDS)
def test_ids_round_trip(raw: bytes) -> None:
    assert parse_file_id(raw.hex().upper()) == raw
    assert parse_node_id(node_id_text(NodeId(raw))) == raw


@given(ORDERS)
def test_orders_round_trip(order: DetachedOrder) -> None:
    assert DetachedOrder.decode(json.loads(json.dumps(order.encode()))) == order


@given(ENTRIES)
@settings(max_examples=50, deadline=None)
def test_catalog_entries_round_trip(entry: CatalogEntry) -> None:
    manifest = Manifest.build(HashAlgorithm.BLAKE3, Geometry(0, 16_384), b"")
    with tempfile.TemporaryDirectory() as directory:
        catalog = Catalog(Path(directory))
        catalog.add(entry, manifest)
        assert catalog.get(entry.file_id) == entry
        assert catalog.list().entries == [entry]


@given(METAS, st.data())
def test_descriptions_of_downloads_round_trip(meta: ResumeMeta, data: st.DataObject) -> None:
    everything = (1 << meta.chunk_count) - 1
    have, doubtful = (data.draw(st.integers(0, everything)) for _ in range(2))
    salt, boot = b"8 bytes.", b"this boot of us."
    raw = encode_snapshot(meta, salt=salt, boot_id=boot, have=have, doubtful=doubtful)
    read = recover(raw, boot)
    assert read.meta == meta
    assert (read.durable, read.volatile, read.doubtful) == (have, 0, doubtful & ~have)
    assert not read.damaged
