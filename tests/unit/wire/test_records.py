"""The record layer: what opens, what does not, and where the limits are."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from furymesh.core.errors import IllegalStateError, LinkClosedError, ProtocolError
from furymesh.wire import records
from furymesh.wire.records import (
    HEADER_SIZE,
    MAX_CIPHERTEXT,
    MAX_PLAINTEXT,
    MAX_RECORD,
    OVERHEAD,
    TAG_SIZE,
    Opening,
    Sealing,
    ciphertext_size,
    sealed_size,
)

KEY = bytes(range(32))


def seal(sealing: Sealing, plain: bytes) -> bytes:
    out = bytearray(len(plain) + OVERHEAD)
    assert sealing.seal_into(plain, memoryview(out), 0) == len(out)
    return bytes(out)


def test_the_bytes_on_the_wire() -> None:
    sealing = Sealing(KEY)
    for counter in range(3):
        record = seal(sealing, b"plain")
        nonce = bytes(4) + counter.to_bytes(8, "big")
        assert record == (21).to_bytes(4, "big") + AESGCM(KEY).encrypt(nonce, b"plain", None)


def test_many_records_in_one_buffer() -> None:
    sealing, opening = Sealing(KEY), Opening(KEY)
    plains = [b"a", b"bc" * 500, bytes(MAX_PLAINTEXT), b"last"]
    out = memoryview(bytearray(b"\xee" * (sum(map(len, plains)) + len(plains) * OVERHEAD + 20)))
    end = 10
    for plain in plains:
        end += sealing.seal_into(memoryview(plain), out, end)
    assert end == len(out) - 10
    assert bytes(out[:10]) == bytes(out[-10:]) == b"\xee" * 10

    at = 10
    slab = memoryview(bytearray(MAX_PLAINTEXT + 5))
    for plain in plains:
        size = ciphertext_size(out, at)
        at += HEADER_SIZE
        assert opening.open_into(out[at : at + size], slab) == len(plain)
        assert slab[: len(plain)] == plain
        at += size
    assert at == end


def test_opening_writes_nothing_past_the_plaintext() -> None:
    slab = memoryview(bytearray(b"\xee" * 20))
    Opening(KEY).open_into(seal(Sealing(KEY), b"plain")[HEADER_SIZE:], slab)
    assert bytes(slab) == b"plain" + b"\xee" * 15


@pytest.mark.parametrize(
    "size", [0, 1, TAG_SIZE, MAX_CIPHERTEXT + 1, 2**31, 2**32 - 1], ids=lambda size: f"{size}"
)
def test_lengths_are_refused_on_the_header(size: int) -> None:
    with pytest.raises(ProtocolError, match=str(size)):
        ciphertext_size(size.to_bytes(4, "big"))


@pytest.mark.parametrize("size", [TAG_SIZE + 1, MAX_CIPHERTEXT])
def test_lengths_at_the_limits(size: int) -> None:
    assert ciphertext_size(b"xx" + size.to_bytes(4, "big"), 2) == size


def test_an_http_request_is_not_a_record() -> None:
    with pytest.raises(ProtocolError):
        ciphertext_size(b"GET / HTTP/1.1")


@pytest.mark.parametrize("size", [0, TAG_SIZE, MAX_CIPHERTEXT + 1])
def test_opening_checks_lengths_itself(size: int) -> None:
    with pytest.raises(ProtocolError):
        Opening(KEY).open(bytes(size))
    with pytest.raises(ProtocolError):
        Opening(KEY).open_into(bytes(size), memoryview(bytearray(MAX_RECORD)))


@pytest.mark.parametrize("size", [0, MAX_PLAINTEXT + 1])
def test_sealing_refuses_sizes_no_peer_accepts(size: int) -> None:
    out = memoryview(bytearray(size + OVERHEAD))
    with pytest.raises(IllegalStateError):
        Sealing(KEY).seal_into(bytes(size), out, 0)


@pytest.mark.parametrize("at", [-1, 1, 100])
def test_sealing_needs_room(at: int) -> None:
    sealing = Sealing(KEY)
    out = memoryview(bytearray(5 + OVERHEAD))
    with pytest.raises(IllegalStateError, match="room"):
        sealing.seal_into(b"plain", out, at)
    assert not any(out)
    # The place in the sequence is not lost.
    assert Opening(KEY).open(seal(sealing, b"plain")[HEADER_SIZE:]) == b"plain"


def test_opening_needs_room() -> None:
    opening = Opening(KEY)
    cipher = seal(Sealing(KEY), b"plain")[HEADER_SIZE:]
    with pytest.raises(IllegalStateError, match="room"):
        opening.open_into(cipher, memoryview(bytearray(4)))
    assert opening.open(cipher) == b"plain"


def test_every_altered_byte_is_noticed() -> None:
    cipher = seal(Sealing(KEY), b"some plaintext")[HEADER_SIZE:]
    for position in range(len(cipher)):
        altered = bytearray(cipher)
        altered[position] ^= 1
        with pytest.raises(ProtocolError):
            Opening(KEY).open(altered)


def test_every_truncation_is_noticed() -> None:
    cipher = seal(Sealing(KEY), b"some plaintext")[HEADER_SIZE:]
    for size in range(len(cipher)):
        with pytest.raises(ProtocolError):
            Opening(KEY).open(cipher[:size])


@pytest.mark.parametrize(
    "order", [(1, 0), (0, 0), (0, 2), (0, 1, 1)], ids=["swapped", "repeated", "lost", "repeated 2"]
)
def test_records_out_of_order_are_noticed(order: tuple[int, ...]) -> None:
    sealing, opening = Sealing(KEY), Opening(KEY)
    ciphers = [seal(sealing, plain)[HEADER_SIZE:] for plain in (b"zero", b"one", b"two")]

    def open_all() -> None:
        for index in order:
            opening.open(ciphers[index])

    with pytest.raises(ProtocolError, match="does not decrypt"):
        open_all()


def test_a_link_that_failed_once_stays_failed() -> None:
    opening = Opening(KEY)
    cipher = seal(Sealing(KEY), b"plain")[HEADER_SIZE:]
    with pytest.raises(ProtocolError):
        opening.open(cipher[:-1] + b"x")
    with pytest.raises(ProtocolError, match="failed"):
        opening.open(cipher)


def test_another_key_opens_nothing() -> None:
    with pytest.raises(ProtocolError):
        Opening(bytes(32)).open(seal(Sealing(KEY), b"plain")[HEADER_SIZE:])


def test_a_key_is_used_up(monkeypatch: pytest.MonkeyPatch) -> None:
    sealing, opening, longer = Sealing(KEY), Opening(KEY), Sealing(KEY)
    ciphers = [seal(longer, b"plain")[HEADER_SIZE:] for _ in range(3)]
    monkeypatch.setattr(records, "MAX_RECORDS", 2)
    for cipher in ciphers[:2]:
        assert seal(sealing, b"plain")[HEADER_SIZE:] == cipher
        assert opening.open(cipher) == b"plain"
    with pytest.raises(LinkClosedError, match="connect again"):
        seal(sealing, b"plain")
    with pytest.raises(ProtocolError, match="connect again"):
        opening.open(ciphers[2])


def test_the_limit_keeps_the_counter_in_its_field() -> None:
    assert records.MAX_RECORDS * (MAX_PLAINTEXT // 16) == 2**48


@pytest.mark.parametrize(
    ("size", "records"),
    [(0, 0), (1, 1), (MAX_PLAINTEXT, 1), (MAX_PLAINTEXT + 1, 2), (5 * MAX_PLAINTEXT, 5)],
)
def test_sealed_size_counts_every_record(size: int, records: int) -> None:
    assert sealed_size(size) == size + records * OVERHEAD
