"""Any sequence of records opens in order, and nothing else does."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from furymesh.core.errors import ProtocolError
from furymesh.wire.records import (
    HEADER_SIZE,
    MAX_PLAINTEXT,
    OVERHEAD,
    Opening,
    Sealing,
    ciphertext_size,
)

KEY = bytes(range(32))
plains = st.binary(min_size=1, max_size=300)


@given(st.lists(plains | st.just(bytes(MAX_PLAINTEXT)), max_size=12))
@settings(max_examples=60, deadline=None)
def test_a_stream_of_records_opens_in_order(contents: list[bytes]) -> None:
    sealing, opening = Sealing(KEY), Opening(KEY)
    stream = memoryview(bytearray(sum(map(len, contents)) + OVERHEAD * len(contents)))
    end = 0
    for plain in contents:
        end += sealing.seal_into(plain, stream, end)
    assert end == len(stream)

    opened, at = [], 0
    while at < end:
        size = ciphertext_size(stream, at)
        at += HEADER_SIZE
        opened.append(opening.open(stream[at : at + size]))
        at += size
    assert opened == contents


@given(st.lists(plains, min_size=1, max_size=6), st.data())
@settings(max_examples=100, deadline=None)
def test_one_altered_bit_anywhere_is_noticed(contents: list[bytes], data: st.DataObject) -> None:
    sealing, opening = Sealing(KEY), Opening(KEY)
    ciphers = []
    for plain in contents:
        out = bytearray(len(plain) + OVERHEAD)
        sealing.seal_into(plain, memoryview(out), 0)
        ciphers.append(out[HEADER_SIZE:])
    victim = data.draw(st.integers(0, len(ciphers) - 1))
    bit = data.draw(st.integers(0, 8 * len(ciphers[victim]) - 1))
    ciphers[victim][bit // 8] ^= 1 << bit % 8

    for cipher, plain in zip(ciphers[:victim], contents, strict=False):
        assert opening.open(cipher) == plain
    with pytest.raises(ProtocolError):
        opening.open(ciphers[victim])


@given(st.binary(min_size=4, max_size=4))
def test_a_header_is_a_length_in_bounds_or_refused(header: bytes) -> None:
    size = int.from_bytes(header, "big")
    if 16 < size <= MAX_PLAINTEXT + 16:
        assert ciphertext_size(header) == size
    else:
        with pytest.raises(ProtocolError):
            ciphertext_size(header)
