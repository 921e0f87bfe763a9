"""The snapshot codec, and what a whole resume file amounts to."""

from __future__ import annotations

import dataclasses
import json
import struct
from typing import Any

import pytest
from blake3 import blake3

from furymesh.core import snapshot
from furymesh.core.bitfield import mask_of
from furymesh.core.errors import DamagedResumeDataError, UsageError
from furymesh.core.geometry import MAX_CHUNKS, MAX_STREAM_SIZE
from furymesh.core.ids import FileId
from furymesh.core.journal import RecordKind, RecordWriter
from furymesh.core.snapshot import (
    UNKNOWN_BOOT,
    Recovered,
    ResumeMeta,
    encode_snapshot,
    recover,
)

SALT = b"12345678"
BOOT = b"this boot of us."
OTHER = b"the one before.."
META = ResumeMeta(
    file_id=FileId(bytes(range(32))),
    name="film \udcff.mkv",
    output="/home/me/film.mkv",
    part="/home/me/film.mkv.00010203.part",
    created_at=1_700_000_000.5,
    size=1_000_000,
    chunk_size=262_144,
    chunks_total=20,
    header=b"FMH1" + bytes(40),
    key=b"k" * 32,
    peers=("10.0.0.1:4000", "[::1]:4001"),
    part_inode=2**63 + 1,
    executable=True,
)


def encode(have: int = 0, doubtful: int = 0, meta: ResumeMeta = META, boot: bytes = BOOT) -> bytes:
    return encode_snapshot(meta, salt=SALT, boot_id=boot, have=have, doubtful=doubtful)


def journal(*steps: tuple[RecordKind, int]) -> bytes:
    writer = RecordWriter(SALT)
    raw = b""
    for kind, index in steps:
        raw += writer.record(kind, index)
        writer.advance()
    return raw


HAVE, EPOCH = RecordKind.HAVE, RecordKind.EPOCH
TAIL = journal((HAVE, 1), (EPOCH, 1), (HAVE, 2), (HAVE, 9))


def test_a_snapshot_reads_back() -> None:
    raw = encode(mask_of([0, 19]), mask_of([4, 19]))
    assert recover(raw, BOOT) == Recovered(META, mask_of([0, 19]), 0, mask_of([4]), damaged=False)


@pytest.mark.parametrize("trackers", [(), ("udp://t.example:1", "https://t.example/a")])
@pytest.mark.parametrize("nodes", [(), ("a" * 52,)])
@pytest.mark.parametrize("private", [False, True])
def test_what_a_link_said_reads_back(
    trackers: tuple[str, ...], nodes: tuple[str, ...], private: bool
) -> None:
    meta = dataclasses.replace(
        META,
        trackers=trackers,
        nodes=nodes,
        private=private,
        mirrors=trackers[1:],
        own_mirrors=trackers[:1],
    )
    assert recover(encode(meta=meta), BOOT).meta == meta


def test_paths_that_are_no_utf8_read_back() -> None:
    assert recover(forge(fields() | {"output": "/\udcff"}), BOOT).meta.output == "/\udcff"


def test_a_download_without_header_has_no_chunks_yet() -> None:
    bare = ResumeMeta(META.file_id, "x", "/x", "/x.part", 0)
    assert recover(encode(meta=bare), BOOT) == Recovered(bare, 0, 0, 0, damaged=False)


def test_in_the_same_boot_every_record_is_trusted() -> None:
    recovered = recover(encode(mask_of([0])) + TAIL, BOOT)
    assert recovered.durable == mask_of([0, 1])
    assert recovered.volatile == mask_of([2, 9])
    assert recovered.doubtful == 0


@pytest.mark.parametrize("boot", [OTHER, UNKNOWN_BOOT])
def test_after_a_reboot_only_unsynced_records_are_doubtful(boot: bytes) -> None:
    recovered = recover(encode(mask_of([0]), mask_of([2, 5])) + TAIL, boot)
    assert recovered.have == mask_of([0, 1])
    assert recovered.doubtful == mask_of([2, 5, 9])


def test_a_file_written_in_an_unknown_boot_is_from_another_one() -> None:
    assert recover(encode(boot=UNKNOWN_BOOT) + TAIL, UNKNOWN_BOOT).have == mask_of([1])


def test_a_damaged_journal_makes_all_other_chunks_doubtful() -> None:
    recovered = recover(encode(mask_of([0])) + TAIL + b"\x01" * 16, BOOT)
    assert recovered.damaged
    assert recovered.have == mask_of([0, 1, 2, 9])
    assert recovered.have | recovered.doubtful == (1 << 20) - 1


def test_damaged_bitmaps_leave_what_the_journal_vouches_for() -> None:
    raw = bytearray(encode(mask_of([0])))
    raw[-20] ^= 4
    recovered = recover(bytes(raw) + TAIL, BOOT)
    assert recovered.damaged
    assert recovered.have == mask_of([1, 2, 9])
    assert recovered.have | recovered.doubtful == (1 << 20) - 1


def test_every_flipped_bit_is_detected_or_harmless() -> None:
    raw = encode(mask_of([0])) + TAIL
    honest = recover(raw, BOOT)
    for bit in range(len(raw) * 8):
        flipped = bytearray(raw)
        flipped[bit // 8] ^= 1 << bit % 8
        try:
            recovered = recover(bytes(flipped), BOOT)
        except DamagedResumeDataError:
            continue
        assert recovered.damaged
        assert recovered.meta == META
        assert recovered.have & ~honest.have == 0
        assert recovered.have | recovered.doubtful == (1 << 20) - 1


def test_every_truncation_is_detected_or_harmless() -> None:
    raw = encode(mask_of([0])) + TAIL
    honest = recover(raw, BOOT)
    for end in range(len(raw)):
        try:
            recovered = recover(raw[:end], BOOT)
        except DamagedResumeDataError:
            continue
        assert recovered.meta == META
        assert recovered.have & ~honest.have == 0


def forge(record: Any, *, count: int = 20, metadata: bytes | None = None) -> bytes:
    """A snapshot with right checksums around wrong contents."""
    if metadata is None:
        metadata = json.dumps(record).encode()
    prelude = struct.pack(">8s8s16sII", b"FMRESUM1", SALT, BOOT, count, len(metadata))
    parts = (prelude, metadata, bytes(2 * ((count + 7) // 8)))
    return b"".join(part + blake3(SALT + part).digest(16) for part in parts)


def fields() -> dict[str, Any]:
    raw = encode()
    size = int.from_bytes(raw[36:40], "big")
    record: dict[str, Any] = json.loads(raw[56 : 56 + size])
    return record


def test_the_forger_of_these_tests_can_make_a_good_one() -> None:
    assert recover(forge(fields()), BOOT).meta == META


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("file_id", "00" * 31),
        ("file_id", None),
        ("name", 5),
        ("output", "/home/\0"),
        ("output", "/home/\ud800"),
        ("part", "/home/\udfff.part"),
        ("name", "\ud800"),
        ("created_at", -1),
        ("created_at", True),
        ("created_at", 2**40),
        ("created_at", 10**400),
        ("created_at", float("nan")),
        ("size", -1),
        ("size", 2**70),
        ("size", 1.5),
        ("chunks_total", 2**40),
        ("chunks_total", 19),
        ("header", "zz"),
        ("key", "not base64!"),
        ("peers", "10.0.0.1:1"),
        ("peers", [1]),
        ("trackers", "udp://t:1"),
        ("trackers", [1]),
        ("mirrors", "https://m/"),
        ("own_mirrors", [None]),
        ("nodes", [1]),
        ("part_inode", 2**64),
        ("executable", 1),
    ],
)
def test_metadata_of_the_wrong_kind_is_refused(name: str, value: object) -> None:
    with pytest.raises(DamagedResumeDataError):
        recover(forge(fields() | {name: value}), BOOT)


@pytest.mark.parametrize(
    ("name", "value"),
    [("size", 0), ("size", MAX_STREAM_SIZE), ("part_inode", 2**64 - 1), ("created_at", 2**40 - 1)],
)
def test_metadata_at_its_limits_is_read(name: str, value: int) -> None:
    assert getattr(recover(forge(fields() | {name: value}), BOOT).meta, name) == value


MAY_LACK = {"trackers", "nodes", "private", "mirrors", "own_mirrors"}  # before there were none


@pytest.mark.parametrize(
    "name", sorted({field.name for field in dataclasses.fields(ResumeMeta)} - MAY_LACK)
)
def test_missing_metadata_is_refused(name: str) -> None:
    record = fields()
    del record[name]
    with pytest.raises(DamagedResumeDataError):
        recover(forge(record), BOOT)


@pytest.mark.parametrize(
    "metadata", [b"[]", b"", b"{", b"\xff", b"[" * 100_000, b"9" * 10_000], ids=repr
)
def test_metadata_that_is_no_object_is_refused(metadata: bytes) -> None:
    with pytest.raises(DamagedResumeDataError):
        recover(forge(None, metadata=metadata), BOOT)


def test_impossible_sizes_are_refused_before_they_are_used() -> None:
    for count, size in ((2**32 - 1, 10), (10, 2**32 - 1)):
        prelude = struct.pack(">8s8s16sII", b"FMRESUM1", SALT, BOOT, count, size)
        with pytest.raises(DamagedResumeDataError, match="impossible"):
            recover(prelude + blake3(SALT + prelude).digest(16), BOOT)


def test_spare_bits_of_a_bitmap_are_damage() -> None:
    raw = bytearray(encode())
    raw[-17] = 0x80
    raw[-16:] = blake3(SALT + bytes(raw[-22:-16])).digest(16)
    assert recover(bytes(raw), BOOT).damaged


def test_metadata_that_would_not_be_read_again_is_not_written() -> None:
    with pytest.raises(UsageError, match="fewer"):
        encode(meta=dataclasses.replace(META, peers=("x" * 100,) * 11_000))


def test_metadata_of_the_greatest_size_is_written_and_read(monkeypatch: pytest.MonkeyPatch) -> None:
    size = int.from_bytes(encode()[36:40], "big")
    monkeypatch.setattr(snapshot, "MAX_METADATA", size)
    assert recover(encode(), BOOT).meta == META
    monkeypatch.setattr(snapshot, "MAX_METADATA", size - 1)
    with pytest.raises(UsageError, match="fewer"):
        encode()


def test_the_largest_snapshot_is_within_the_limit_for_files() -> None:
    meta = dataclasses.replace(META, chunks_total=MAX_CHUNKS)
    raw = encode(meta=meta)
    metadata_size = int.from_bytes(raw[36:40], "big")
    assert len(raw) - metadata_size + snapshot.MAX_METADATA <= snapshot.MAX_SNAPSHOT


def test_the_key_and_the_header_are_not_shown() -> None:
    assert "kkkk" not in repr(META)
    assert "FMH1" not in repr(META)
