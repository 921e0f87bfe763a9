"""Where chunks and pages begin and end, and which sizes are refused."""

from __future__ import annotations

import pytest

from furymesh.core.bitfield import mask_of
from furymesh.core.errors import UsageError
from furymesh.core.geometry import (
    MAX_CHUNK_SIZE,
    MAX_CHUNKS,
    MAX_STREAM_SIZE,
    MIN_CHUNK_SIZE,
    PAGE_DIGESTS,
    Geometry,
    default_chunk_size,
)

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB


@pytest.mark.parametrize(
    ("stream", "chunk"),
    [
        (0, 256 * KIB),
        (1 * GIB - 1, 256 * KIB),
        (1 * GIB, 512 * KIB),
        (2 * GIB - 1, 512 * KIB),
        (2 * GIB, 1 * MIB),
        (4 * GIB, 2 * MIB),
        (8 * GIB - 1, 2 * MIB),
        (8 * GIB, 4 * MIB),
        (8192 * GIB, 4 * MIB),
    ],
)
def test_everyone_cuts_a_stream_into_the_same_chunks(stream: int, chunk: int) -> None:
    # These numbers are part of the protocol: with others, file ids would differ.
    assert default_chunk_size(stream) == chunk


@pytest.mark.parametrize("size", [0, 1, 16 * KIB - 1, 16 * KIB, 16 * KIB + 1, 99 * KIB])
def test_chunks_lie_end_to_end_and_only_the_last_is_short(size: int) -> None:
    geometry = Geometry(size, 16 * KIB)
    lengths = [geometry.length(chunk) for chunk in range(geometry.chunk_count)]
    assert sum(lengths) == size
    assert all(length == 16 * KIB for length in lengths[:-1])
    assert all(0 < length <= 16 * KIB for length in lengths)
    assert [geometry.offset(chunk) for chunk in range(len(lengths))] == [
        sum(lengths[:chunk]) for chunk in range(len(lengths))
    ]
    assert geometry.all_chunks == mask_of(range(len(lengths)))


@pytest.mark.parametrize("size", [0, 1, 16 * KIB, 5 * 16 * KIB, 5 * 16 * KIB - 1])
def test_the_bytes_in_a_mask_are_those_of_its_chunks(size: int) -> None:
    geometry = Geometry(size, 16 * KIB)
    for mask in range(geometry.all_chunks + 1):
        chunks = [chunk for chunk in range(geometry.chunk_count) if mask >> chunk & 1]
        assert geometry.bytes_in(mask) == sum(map(geometry.length, chunks))


@pytest.mark.parametrize(
    ("chunks", "pages"),
    [
        (0, []),
        (1, [1]),
        (PAGE_DIGESTS, [PAGE_DIGESTS]),
        (PAGE_DIGESTS + 1, [PAGE_DIGESTS, 1]),
        (3 * PAGE_DIGESTS - 1, [PAGE_DIGESTS, PAGE_DIGESTS, PAGE_DIGESTS - 1]),
    ],
)
def test_every_digest_has_its_page(chunks: int, pages: list[int]) -> None:
    geometry = Geometry(chunks * MIN_CHUNK_SIZE, MIN_CHUNK_SIZE)
    assert geometry.page_count == len(pages)
    assert [geometry.digests_on_page(page) for page in range(len(pages))] == pages


@pytest.mark.parametrize("chunk_size", [MIN_CHUNK_SIZE, 256 * KIB, MAX_CHUNK_SIZE])
def test_the_longest_stream_there_can_be_in_such_chunks(chunk_size: int) -> None:
    longest = MAX_CHUNKS * chunk_size
    assert Geometry(longest, chunk_size).chunk_count == MAX_CHUNKS
    with pytest.raises(UsageError, match=r"choose a larger chunk size|is outside"):
        Geometry(longest + 1, chunk_size)


@pytest.mark.parametrize(
    "chunk_size",
    [*(0, 1, -(16 * KIB), MIN_CHUNK_SIZE // 2, MIN_CHUNK_SIZE + 1), 3 * MIB, 2 * MAX_CHUNK_SIZE],
)
def test_chunk_sizes_that_are_refused(chunk_size: int) -> None:
    with pytest.raises(UsageError, match="is not a power of two from 16 KiB to 16 MiB"):
        Geometry(MIB, chunk_size)


@pytest.mark.parametrize("size", [-1, MAX_STREAM_SIZE + 1, 2**64])
def test_stream_sizes_that_are_refused(size: int) -> None:
    with pytest.raises(UsageError, match=f"stream size {size} is outside"):
        Geometry(size, MAX_CHUNK_SIZE)
