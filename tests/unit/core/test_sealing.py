import pytest

from furymesh.core.errors import InvalidManifestError, UsageError, WrongKeyError
from furymesh.core.geometry import Geometry
from furymesh.core.sealing import (
    OVERHEAD,
    Sealer,
    carried_range,
    cipher_size,
    plain_range,
    plain_size,
)

CHUNK = 16 * 1024
KEY = bytes(range(32))


def test_sealing_is_deterministic_and_bound_to_place_and_key() -> None:
    sealed = Sealer(KEY).seal(3, b"content")
    assert sealed == Sealer(KEY).seal(3, b"content")
    assert len(sealed) == len(b"content") + OVERHEAD
    others = {Sealer(KEY).seal(4, b"content"), Sealer(KEY).seal(3, b"contenT")}
    others.add(Sealer(bytes(32)).seal(3, b"content"))
    assert len({other[:12] for other in others} | {sealed[:12]}) == 4
    assert Sealer(KEY).open(3, sealed) == b"content"


@pytest.mark.parametrize("position", [0, 11, 12, 18, 19, 34])
def test_one_flipped_bit_anywhere_is_noticed(position: int) -> None:
    sealed = bytearray(Sealer(KEY).seal(0, b"content"))
    sealed[position] ^= 1
    with pytest.raises(WrongKeyError, match="chunk 0"):
        Sealer(KEY).open(0, sealed)


def test_wrong_key_place_or_length() -> None:
    sealed = Sealer(KEY).seal(1, b"content")
    for key, index, raw in [
        (bytes(32), 1, sealed),
        (KEY, 2, sealed),
        (KEY, 1, sealed[:-1]),
        (KEY, 1, sealed[:27]),
        (KEY, 1, b""),
    ]:
        with pytest.raises(WrongKeyError):
            Sealer(key).open(index, raw)


def test_a_nonce_of_another_making_is_refused() -> None:
    # Whoever has the key could choose nonces freely; such a chunk could not be
    # sealed again from the plain file, so it must not be taken in.
    sealer = Sealer(KEY)
    nonce = bytes(12)
    label = (0).to_bytes(8, "big")
    forged = nonce + sealer._cipher.encrypt(nonce, b"content", label)
    with pytest.raises(WrongKeyError):
        sealer.open(0, forged)


def test_check_value_tells_the_key_and_leaks_nothing_of_it() -> None:
    assert Sealer(KEY).check != Sealer(bytes(32)).check
    assert len(Sealer(KEY).check) == 16
    Sealer(KEY).require(Sealer(KEY).check)
    with pytest.raises(WrongKeyError):
        Sealer(KEY).require(bytes(16))
    assert KEY.hex() not in repr(Sealer(KEY))


def test_key_length() -> None:
    with pytest.raises(UsageError, match="32 bytes"):
        Sealer(b"short")


@pytest.mark.parametrize("rest", [1, 27, 28])
def test_impossible_sealed_sizes(rest: int) -> None:
    for size in (rest, CHUNK + rest):
        with pytest.raises(InvalidManifestError):
            plain_size(size, CHUNK)


def test_sizes_around_chunk_borders() -> None:
    capacity = CHUNK - OVERHEAD
    assert cipher_size(0, CHUNK) == 0
    assert cipher_size(1, CHUNK) == 29
    assert cipher_size(capacity, CHUNK) == CHUNK
    assert cipher_size(capacity + 1, CHUNK) == CHUNK + 29
    geometry = Geometry(cipher_size(2 * capacity + 5, CHUNK), CHUNK)
    assert [plain_range(geometry, chunk) for chunk in range(3)] == [
        (0, capacity),
        (capacity, capacity),
        (2 * capacity, 5),
    ]
    assert carried_range(geometry, 1, sealed=True) == (capacity, capacity)
    assert carried_range(geometry, 1, sealed=False) == (CHUNK, CHUNK)
