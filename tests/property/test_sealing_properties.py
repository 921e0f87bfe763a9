from hypothesis import given
from hypothesis import strategies as st

from furymesh.core.geometry import MAX_CHUNK_SIZE, MIN_CHUNK_SIZE, Geometry
from furymesh.core.sealing import OVERHEAD, Sealer, cipher_size, plain_range, plain_size

CHUNK_SIZES = st.sampled_from([MIN_CHUNK_SIZE << shift for shift in range(11)])


@given(st.binary(min_size=32, max_size=32), st.integers(0, 2**64 - 1), st.binary(max_size=200))
def test_what_was_sealed_opens(key: bytes, index: int, plain: bytes) -> None:
    sealed = Sealer(key).seal(index, plain)
    assert len(sealed) == len(plain) + OVERHEAD
    assert Sealer(key).open(index, sealed) == plain
    room = memoryview(bytearray(len(plain) + 10))
    assert Sealer(key).open_into(index, memoryview(sealed), room) == len(plain)
    assert room[: len(plain)] == plain
    assert bytes(room[len(plain) :]) == bytes(10)


@given(st.integers(0, 1 << 43), CHUNK_SIZES)
def test_sizes_invert(size: int, chunk_size: int) -> None:
    assert plain_size(cipher_size(size, chunk_size), chunk_size) == size


@given(st.integers(0, MIN_CHUNK_SIZE * 40))
def test_plain_ranges_cover_the_plain_stream(size: int) -> None:
    geometry = Geometry(cipher_size(size, MIN_CHUNK_SIZE), MIN_CHUNK_SIZE)
    end = 0
    for chunk in range(geometry.chunk_count):
        offset, length = plain_range(geometry, chunk)
        assert offset == end
        assert length > 0
        end += length
    assert end == size
    assert MIN_CHUNK_SIZE <= MAX_CHUNK_SIZE
