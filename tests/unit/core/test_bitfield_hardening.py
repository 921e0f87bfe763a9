"""Masks of the greatest share: sparse ones must not cost their width."""

from __future__ import annotations

from time import process_time

from furymesh.core.bitfield import chunks_of, mask_of

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
