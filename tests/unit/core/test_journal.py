"""The journal codec on chosen cases; the properties are in tests/property."""

from __future__ import annotations

import pytest

from furymesh.core.bitfield import mask_of
from furymesh.core.journal import RECORD_SIZE, RecordKind, RecordWriter, Replay, replay

SALT = b"saltsalt"
CHUNKS = 100


def journal(*records: tuple[RecordKind, int], salt: bytes = SALT) -> bytes:
    writer = RecordWriter(salt)
    raw = b""
    for kind, index in records:
        raw += writer.record(kind, index)
        writer.advance()
    return raw


def have(*chunks: int) -> list[tuple[RecordKind, int]]:
    return [(RecordKind.HAVE, chunk) for chunk in chunks]


def test_an_empty_journal_claims_nothing() -> None:
    assert replay(b"", SALT, CHUNKS) == Replay(0, 0, damaged=False, records=0)


def test_the_bytes_of_a_record_are_fixed() -> None:
    assert journal((RecordKind.HAVE, 7)).hex() == "bc9ecb36000000000100000000000007"
    assert journal((RecordKind.EPOCH, 7))[4:].hex() == "000000000200000000000007"
    writer = RecordWriter(SALT)
    writer.advance(2**32 - 1)
    assert writer.record(RecordKind.HAVE, 7)[4:].hex() == "ffffffff0100000000000007"


def test_records_count_as_volatile_until_an_epoch_covers_them() -> None:
    raw = journal(*have(3, 99), (RecordKind.EPOCH, 2), *have(5))
    assert replay(raw, SALT, CHUNKS) == Replay(
        mask_of([3, 99]), mask_of([5]), damaged=False, records=4
    )


def test_an_epoch_covers_only_the_records_it_names() -> None:
    # Chunk 4 was appended while the sync for chunk 3 was still running.
    raw = journal(*have(3, 4), (RecordKind.EPOCH, 1))
    assert replay(raw, SALT, CHUNKS) == Replay(mask_of([3]), mask_of([4]), damaged=False, records=3)


def test_a_chunk_recorded_again_after_an_epoch_stays_durable() -> None:
    raw = journal(*have(3), (RecordKind.EPOCH, 1), *have(3))
    assert replay(raw, SALT, CHUNKS) == Replay(mask_of([3]), 0, damaged=False, records=3)


@pytest.mark.parametrize("torn", [b"\x01", b"\0" * 15, b"\xff" * 15, b"\0" * 16, b"\0" * 4099])
def test_what_a_crash_leaves_at_the_end_is_no_damage(torn: bytes) -> None:
    result = replay(journal(*have(1)) + torn, SALT, CHUNKS)
    assert result == Replay(0, mask_of([1]), damaged=False, records=1)


def test_a_destroyed_record_takes_no_other_along() -> None:
    raw = bytearray(journal(*have(1, 2, 3), (RecordKind.EPOCH, 3)))
    raw[RECORD_SIZE : 2 * RECORD_SIZE] = bytes(RECORD_SIZE)
    result = replay(bytes(raw), SALT, CHUNKS)
    assert result == Replay(mask_of([1, 3]), 0, damaged=True, records=3)


def test_a_sealed_record_that_makes_no_sense_takes_no_other_along() -> None:
    raw = journal(*have(1, CHUNKS, 2), (RecordKind.EPOCH, 9), *have(3))
    assert replay(raw, SALT, CHUNKS) == Replay(0, mask_of([1, 2, 3]), damaged=True, records=3)


@pytest.mark.parametrize(
    "raw",
    [
        journal(*have(CHUNKS)),
        journal(*have(2**56 - 1)),
        journal((RecordKind.EPOCH, 1)),
        journal(*have(1), salt=b"othersal"),
        journal(*have(1, 2))[RECORD_SIZE:],
        b"\xff" * RECORD_SIZE,
    ],
    ids=["past the end", "huge", "epoch of the future", "foreign", "moved", "noise"],
)
def test_a_record_that_cannot_be_ours_claims_nothing(raw: bytes) -> None:
    assert replay(raw, SALT, CHUNKS) == Replay(0, 0, damaged=True, records=0)


def test_many_records_at_once_are_numbered_from_the_next_one() -> None:
    writer = RecordWriter(SALT)
    raw = writer.have([1, 2])
    writer.advance(2)
    raw += writer.have([3])
    assert raw == journal(*have(1, 2, 3))
