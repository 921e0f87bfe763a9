"""A journal never claims a chunk that was not added, whatever became of its bytes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from furymesh.core.bitfield import mask_of
from furymesh.core.journal import RECORD_SIZE, RecordKind, RecordWriter, replay

CHUNKS = 64
SALTS = st.binary(min_size=8, max_size=8)
# None marks an epoch that covers everything before it.
STEPS = st.lists(st.none() | st.integers(0, CHUNKS - 1), max_size=12)


def write(steps: list[int | None], salt: bytes) -> bytes:
    writer = RecordWriter(salt)
    raw = bytearray()
    for step in steps:
        if step is None:
            raw += writer.record(RecordKind.EPOCH, writer.sequence)
        else:
            raw += writer.record(RecordKind.HAVE, step)
        writer.advance()
    return bytes(raw)


def oracle(steps: list[int | None]) -> tuple[int, int]:
    """Durable and volatile chunks, by the slow and obvious way."""
    durable: set[int] = set()
    volatile: set[int] = set()
    for step in steps:
        if step is None:
            durable |= volatile
            volatile = set()
        else:
            volatile.add(step)
    return mask_of(durable), mask_of(volatile - durable)


@given(STEPS, SALTS)
def test_every_prefix_claims_what_its_whole_records_say(
    steps: list[int | None], salt: bytes
) -> None:
    raw = write(steps, salt)
    for end in range(len(raw) + 1):
        result = replay(raw[:end], salt, CHUNKS)
        assert (result.durable, result.volatile) == oracle(steps[: end // RECORD_SIZE])
        assert not result.damaged


@given(STEPS, SALTS)
def test_every_flipped_bit_is_seen_and_adds_no_claim(steps: list[int | None], salt: bytes) -> None:
    raw = write(steps, salt)
    durable, volatile = oracle(steps)
    for bit in range(len(raw) * 8):
        flipped = bytearray(raw)
        flipped[bit // 8] ^= 1 << bit % 8
        result = replay(bytes(flipped), salt, CHUNKS)
        assert result.damaged
        assert (result.durable | result.volatile) & ~(durable | volatile) == 0
        assert result.durable & ~durable == 0


@given(STEPS, SALTS, st.data())
def test_blocks_lost_in_a_power_cut_only_take_claims_away(
    steps: list[int | None], salt: bytes, data: st.DataObject
) -> None:
    raw = bytearray(write(steps, salt))
    for start in range(0, len(raw), 4 * RECORD_SIZE):
        if data.draw(st.booleans()):
            end = min(start + 4 * RECORD_SIZE, len(raw))
            raw[start:end] = bytes(end - start)
    result = replay(bytes(raw), salt, CHUNKS)
    durable, volatile = oracle(steps)
    assert (result.durable | result.volatile) & ~(durable | volatile) == 0
    assert result.durable & ~durable == 0


@given(st.binary(max_size=400), SALTS)
def test_noise_claims_nothing(raw: bytes, salt: bytes) -> None:
    # Four checksum bytes leave one chance in 2**32 a record; none shows up here.
    result = replay(raw, salt, CHUNKS)
    assert result.durable == result.volatile == 0
