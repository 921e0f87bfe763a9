"""Sealed secrets: what opens them, and that nothing else does."""

from __future__ import annotations

import pytest

from furymesh.core import protection
from furymesh.core.errors import LocalDataError, PassphraseError
from furymesh.core.ids import FileId
from furymesh.core.protection import (
    IDENTITY,
    PLAIN,
    Protection,
    content_key_of,
    decode_line,
    encode_line,
    is_sealed,
    unwrap_master,
    wrap_master,
)

SECRET = bytes(range(32))
MASTER = b"m" * 32
SALT = b"s" * 16
ONE = content_key_of(FileId(b"\1" * 32))


@pytest.fixture
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protection, "SCRYPT_N", 2)


def test_without_a_passphrase_secrets_are_kept_as_they_are() -> None:
    assert PLAIN.protect(IDENTITY, SECRET) == SECRET
    assert PLAIN.reveal(IDENTITY, SECRET) == SECRET
    assert not is_sealed(SECRET)
    assert not PLAIN.on
    assert Protection(MASTER).on


def test_sealed_and_opened_again() -> None:
    stored = Protection(MASTER).protect(ONE, SECRET)
    assert is_sealed(stored)
    assert SECRET not in stored
    assert Protection(MASTER).reveal(ONE, stored) == SECRET
    assert Protection(MASTER).protect(ONE, SECRET) == stored


def test_what_is_not_sealed_yet_can_be_read_beside_what_is() -> None:
    assert Protection(MASTER).reveal(ONE, SECRET) == SECRET


def test_a_sealed_secret_serves_no_other_purpose() -> None:
    stored = Protection(MASTER).protect(ONE, SECRET)
    for purpose in (IDENTITY, content_key_of(FileId(b"\2" * 32))):
        with pytest.raises(LocalDataError, match="damaged"):
            Protection(MASTER).reveal(purpose, stored)


def test_every_flipped_bit_is_found() -> None:
    stored = Protection(MASTER).protect(ONE, SECRET)
    for bit in range(8 * 4, 8 * len(stored)):
        damaged = bytearray(stored)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(LocalDataError):
            Protection(MASTER).reveal(ONE, bytes(damaged))


def test_other_masters_and_none_open_nothing() -> None:
    stored = Protection(MASTER).protect(ONE, SECRET)
    for other in (Protection(b"n" * 32), PLAIN):
        with pytest.raises(LocalDataError):
            other.reveal(ONE, stored)


def test_the_cost_of_a_guess_is_not_below_what_is_asked_for() -> None:
    assert protection.SCRYPT_N >= 2**15
    assert protection.SCRYPT_R >= 8
    raw = wrap_master(MASTER, "correct horse", SALT)
    assert raw.count(b"\n") == 1
    assert unwrap_master(raw, "correct horse") == MASTER


@pytest.mark.usefixtures("cheap")
def test_wrong_passphrase_is_told_from_damage() -> None:
    raw = wrap_master(MASTER, "correct horse", SALT)
    for wrong in ("", "Correct horse", "correct horse ", "häßlich", "\udcff"):
        with pytest.raises(PassphraseError, match="wrong passphrase"):
            unwrap_master(raw, wrong)
    for bit in range(8 * len(raw)):
        damaged = bytearray(raw)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(LocalDataError, match="damaged"):
            unwrap_master(bytes(damaged), "correct horse")
    for end in range(len(raw)):
        with pytest.raises(LocalDataError, match="damaged"):
            unwrap_master(raw[:end], "correct horse")


def test_lines_are_read_in_one_spelling_only() -> None:
    raw = encode_line("name-1", "a", "b")
    assert decode_line(raw, "name-1", 2) == ["a", "b"]
    for other in (raw[:-1], raw + b"\n", b" " + raw, raw.replace(b"a", b"c"), b"\xff" + raw, b""):
        with pytest.raises(ValueError):  # noqa: PT011
            decode_line(other, "name-1", 2)
    for name, count in (("name-2", 2), ("name-1", 1), ("name-1", 3)):
        with pytest.raises(ValueError):  # noqa: PT011
            decode_line(raw, name, count)


def test_nothing_shows_a_key() -> None:
    made = Protection(MASTER)
    assert MASTER.hex() not in repr(made)
    assert "mmmm" not in repr(made)
