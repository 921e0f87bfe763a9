from collections import Counter
from random import Random
from time import process_time

import pytest

from furymesh.core.bitfield import (
    chunks_of,
    from_bytes,
    mask_of,
    nth_chunk,
    random_chunk,
    strip,
    to_bytes,
)


def test_bit_order_on_the_wire() -> None:
    assert to_bytes(mask_of([0, 9]), 10) == b"\x01\x02"
    assert from_bytes(b"\x01\x02", 10) == mask_of([0, 9])


@pytest.mark.parametrize(
    ("raw", "count"), [(b"", 1), (b"\x00\x00", 8), (b"\x02", 1), (b"\x00\x04", 10), (b"\x00", 0)]
)
def test_wrong_length_and_spare_bits_are_refused(raw: bytes, count: int) -> None:
    assert from_bytes(raw, count) is None


def test_the_empty_mask() -> None:
    assert mask_of([]) == 0
    assert list(chunks_of(0)) == []
    assert to_bytes(0, 0) == b""
    assert from_bytes(b"", 0) == 0


def test_chunks_of_a_wide_mask() -> None:
    assert list(chunks_of(mask_of([999_999, 3, 64]))) == [3, 64, 999_999]
    assert nth_chunk(mask_of([999_999, 3, 64]), 2) == 999_999


def test_random_chunks_are_equally_likely() -> None:
    rng = Random(1)
    seen = Counter(random_chunk(mask_of([2, 70, 700]), rng) for _ in range(3000))
    assert set(seen) == {2, 70, 700}
    assert min(seen.values()) > 900


@pytest.mark.parametrize(
    ("chunks", "count", "width", "drawn"),
    [
        ([], 8, 4, "    "),
        (range(8), 8, 4, "████"),
        ([0, 1, 2], 8, 4, "█▒  "),
        ([0], 1, 3, "███"),
        (range(99), 100, 1, "▓"),
        ([0], 100, 1, "░"),
    ],
)
def test_density_strips(chunks: list[int], count: int, width: int, drawn: str) -> None:
    assert strip(mask_of(chunks), count, width) == drawn


WIDTH = 2_400_000


def test_sparse_masks_cost_what_they_hold() -> None:
    mask = mask_of([0, 8, 9, WIDTH])
    best = 1.0
    for _ in range(5):
        began = process_time()
        assert list(chunks_of(mask)) == [0, 8, 9, WIDTH]
        best = min(best, process_time() - began)
    assert best < 0.008, "byte by byte it took 15 ms and more"


def test_runs_and_gaps_come_out_in_order() -> None:
    for chunks in ([], [0], [7, 8], [0, 255, 256, 10_000], [*range(40), *range(400, 440)]):
        assert list(chunks_of(mask_of(chunks))) == chunks
