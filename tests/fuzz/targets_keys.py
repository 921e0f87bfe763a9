"""Targets that hold keys: the identity, the passphrase, what is sealed, the swarm."""

from __future__ import annotations

from contextlib import AbstractContextManager
from unittest.mock import patch

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from furymesh.core import protection
from furymesh.core.errors import (
    EnvironmentFault,
    LocalDataError,
    PassphraseError,
)
from furymesh.core.ids import node_id_text
from furymesh.core.protection import Protection
from furymesh.net import identity
from furymesh.node import secret_file
from tests.fuzz.engine import Target
from tests.fuzz.material import FILE_ID, KEY, place, put, text_of

PASSPHRASE = "correct horse \udcff"


def with_checksum(data: bytes) -> bytes:
    """A line of fields, its last one replaced by the checksum that it should be."""
    name, *fields = text_of(data).removesuffix("\n").split(" ")[:-1] or [""]
    try:
        return protection.encode_line(name, *fields)
    except UnicodeEncodeError:
        return data


def identity_key(data: bytes) -> None:
    """The key file as it is, and with its checksum made good; opened, and only looked at."""
    directory = place("identity")
    found = []
    for raw in (data, with_checksum(data)):
        put(directory / identity.FILE_NAME, raw)
        for read in (identity.load_or_create, identity.stored_node_id):
            try:
                found.append(read(directory))
            except LocalDataError as error:
                failure = error
    if not found:
        raise failure


def cheap_derivation() -> AbstractContextManager[object]:
    """A key from a passphrase takes 64 MiB and a third of a second; here neither."""
    return patch.object(protection, "SCRYPT_N", 2)


def passphrase_key(data: bytes) -> None:
    """The master key under a passphrase, as it is kept."""
    with cheap_derivation():
        for raw in (data, with_checksum(data)):
            try:
                assert len(protection.unwrap_master(raw, PASSPHRASE)) == protection.KEY_SIZE
                return
            except (LocalDataError, PassphraseError) as error:
                failure = error
        raise failure


def sealed_key(data: bytes) -> None:
    """A secret as it is kept: what opens was sealed for this purpose."""
    purpose = protection.content_key_of(FILE_ID)
    kept = Protection(KEY)
    secret = kept.reveal(purpose, data)
    assert secret == data or kept.protect(purpose, secret) == data


def psk(data: bytes) -> None:
    key = secret_file.read_psk(put(place("psk") / "psk", data))
    assert key is not None
    assert len(key) == 32


def _identity(kept: Protection) -> bytes:
    """A key file, its random seed replaced by a fixed one."""
    name = "furymesh-identity-sealed-1" if kept.on else "furymesh-identity-2"
    sealed = kept.protect(protection.IDENTITY, KEY)
    node = node_id_text(Ed25519PrivateKey.from_private_bytes(KEY).public_key().public_bytes_raw())
    fields = (node, protection.as_field(sealed)) if kept.on else (protection.as_field(sealed),)
    return protection.encode_line(name, *fields)


def _passphrase() -> bytes:
    with cheap_derivation():
        return protection.wrap_master(KEY, PASSPHRASE, bytes(16))


TARGETS = (
    Target(
        "identity",
        identity_key,
        lambda: {
            "key": _identity(protection.PLAIN),
            "sealed": _identity(Protection(KEY)),
            "bare": b"furymesh-identity-1 " + protection.as_field(KEY).encode() + b"\n",
        },
        (LocalDataError,),
        (b"furymesh-identity-2 ", b"furymesh-identity-sealed-1 ", b" ", b"=", b"\n", b"\r\n"),
    ),
    Target(
        "passphrase_key",
        passphrase_key,
        lambda: {"key": _passphrase()},
        (LocalDataError, PassphraseError),
        (b" ", b"=", b"\n", b"AAAA", protection.as_field(b"\xf5fm1" + bytes(60)).encode()),
    ),
    Target(
        "sealed_key",
        sealed_key,
        lambda: {"sealed": Protection(KEY).protect(protection.content_key_of(FILE_ID), KEY)},
        (LocalDataError,),
        (b"\xf5fm1",),
    ),
    Target(
        "psk",
        psk,
        lambda: {"key": b"ab" * 32 + b"\n", "spaced": b" ab" * 32},
        (LocalDataError, EnvironmentFault),
        (b"0x", b"\n", b" ", "٣".encode()),
    ),
)
