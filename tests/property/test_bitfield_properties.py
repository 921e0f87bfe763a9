"""Masks against the slow oracle: Python sets."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from furymesh.core.bitfield import (
    chunks_of,
    from_bytes,
    mask_of,
    nth_chunk,
    random_chunk,
    strip,
    to_bytes,
)

chunk_sets = st.sets(st.integers(0, 700), max_size=60)


@given(chunk_sets, chunk_sets)
def test_masks_are_sets(a: set[int], b: set[int]) -> None:
    assert set(chunks_of(mask_of(a))) == a
    assert list(chunks_of(mask_of(a) & ~mask_of(b))) == sorted(a - b)
    assert list(chunks_of(mask_of(a) | mask_of(b))) == sorted(a | b)
    assert mask_of(a).bit_count() == len(a)


@given(chunk_sets.filter(bool))
def test_every_nth_chunk_is_the_nth(chunks: set[int]) -> None:
    mask = mask_of(chunks)
    assert [nth_chunk(mask, n) for n in range(len(chunks))] == sorted(chunks)
    assert random_chunk(mask, Random(0)) in chunks


@given(st.sets(st.integers(0, 99)), st.integers(100, 120))
def test_packed_form_round_trips(chunks: set[int], count: int) -> None:
    raw = to_bytes(mask_of(chunks), count)
    assert from_bytes(raw, count) == mask_of(chunks)
    assert {i for i in range(count) if raw[i // 8] >> i % 8 & 1} == chunks


@given(st.binary(max_size=20), st.integers(0, 200))
def test_any_bytes_are_read_whole_or_refused(raw: bytes, count: int) -> None:
    mask = from_bytes(raw, count)
    if mask is None:
        fits = len(raw) == (count + 7) // 8
        assert not fits or int.from_bytes(raw, "little") >> count
    else:
        assert to_bytes(mask, count) == raw


@given(st.integers(1, 300), st.integers(1, 80), st.data())
def test_a_strip_is_full_empty_or_between(count: int, width: int, data: st.DataObject) -> None:
    chunks = data.draw(st.sets(st.integers(0, count - 1)))
    drawn = strip(mask_of(chunks), count, width)
    assert len(drawn) == width
    for column, shade in enumerate(drawn):
        start = column * count // width
        part = set(range(start, max(start + 1, (column + 1) * count // width)))
        assert (shade == "█") == (part <= chunks)
        assert (shade == " ") == (not part & chunks)
