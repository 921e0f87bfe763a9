"""Bit-sliced counters against the slow oracle: collections.Counter."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from furymesh.core.availability import Availability
from furymesh.core.bitfield import chunks_of, mask_of
from furymesh.core.errors import IllegalStateError

CHUNKS = 40
masks = st.integers(0, 2**CHUNKS - 1)


@given(st.lists(masks, max_size=20), st.data())
def test_counts_and_rarest(peers: list[int], data: st.DataObject) -> None:
    availability = Availability()
    oracle: Counter[int] = Counter()
    for mask in peers:
        availability.add(mask)
        oracle.update(chunks_of(mask))
    left = data.draw(st.lists(st.sampled_from(peers), unique_by=id)) if peers else []
    for mask in left:
        availability.remove(mask)
        oracle.subtract(chunks_of(mask))
    assert [availability.count(chunk) for chunk in range(CHUNKS)] == [
        oracle[chunk] for chunk in range(CHUNKS)
    ]
    candidates = data.draw(masks)
    fewest = min((oracle[chunk] for chunk in chunks_of(candidates)), default=0)
    rarest = mask_of(c for c in chunks_of(candidates) if oracle[c] == fewest)
    assert availability.rarest(candidates) == rarest


@given(masks, masks)
def test_no_count_falls_below_zero(held: int, taken: int) -> None:
    availability = Availability()
    availability.add(held)
    if taken & ~held:
        with pytest.raises(IllegalStateError):
            availability.remove(taken)
    else:
        availability.remove(taken)
        held &= ~taken
    # Refused or not, what is counted stays true.
    assert [availability.count(c) for c in range(CHUNKS)] == [held >> c & 1 for c in range(CHUNKS)]
