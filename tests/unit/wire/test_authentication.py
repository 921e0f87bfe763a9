"""Identities in the handshake: proven, pinned, refused."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from furymesh.core.errors import HandshakeError, IllegalStateError
from furymesh.core.ids import NodeId, node_id_text
from furymesh.wire.authentication import (
    PAYLOAD_SIZE,
    PROLOGUE,
    IdentityPayload,
    check_payload,
    frame_message,
    make_payload,
    message_size,
)
from furymesh.wire.noise import MAX_MESSAGE, Handshake

ALICE = Ed25519PrivateKey.from_private_bytes(b"a" * 32)
MALLORY = Ed25519PrivateKey.from_private_bytes(b"m" * 32)
STATIC = bytes(range(32))


def id_of(private: Ed25519PrivateKey) -> NodeId:
    return NodeId(private.public_key().public_bytes_raw())


def test_an_identity_is_proven() -> None:
    payload = make_payload(ALICE, STATIC)
    assert len(payload) == PAYLOAD_SIZE == 96
    assert check_payload(payload, STATIC) == id_of(ALICE)
    assert check_payload(payload, STATIC, expected=id_of(ALICE)) == id_of(ALICE)


def test_the_signed_bytes() -> None:
    payload = IdentityPayload.decode(make_payload(ALICE, STATIC))
    ALICE.public_key().verify(payload.signature, b"furymesh-noise-static-key:" + STATIC)
    assert payload.encode() == make_payload(ALICE, STATIC)


def test_another_node_than_expected_is_refused() -> None:
    payload = make_payload(MALLORY, STATIC)
    with pytest.raises(HandshakeError, match=node_id_text(id_of(ALICE))):
        check_payload(payload, STATIC, expected=id_of(ALICE))


def test_a_payload_is_worth_nothing_with_another_static_key() -> None:
    payload = make_payload(ALICE, STATIC)
    with pytest.raises(HandshakeError, match="cannot prove"):
        check_payload(payload, bytes(32))


def test_a_claim_to_another_node_id_is_refused() -> None:
    own = IdentityPayload.decode(make_payload(MALLORY, STATIC))
    with pytest.raises(HandshakeError, match="cannot prove"):
        check_payload(IdentityPayload(id_of(ALICE), own.signature).encode(), STATIC)


def test_a_signature_made_for_something_else_is_refused() -> None:
    for message in (STATIC, b"furymesh-noise-static-key:", b"furymesh-another:" + STATIC):
        payload = IdentityPayload(id_of(ALICE), ALICE.sign(message)).encode()
        with pytest.raises(HandshakeError):
            check_payload(payload, STATIC)


def test_every_altered_byte_is_noticed() -> None:
    payload = make_payload(ALICE, STATIC)
    for position in range(PAYLOAD_SIZE):
        altered = bytearray(payload)
        altered[position] ^= 1
        with pytest.raises(HandshakeError):
            check_payload(bytes(altered), STATIC)


@pytest.mark.parametrize("size", [0, 32, 95, 97, 1000])
def test_a_payload_has_one_length(size: int) -> None:
    with pytest.raises(HandshakeError, match="96"):
        check_payload((make_payload(ALICE, STATIC) * 20)[:size], STATIC)


def test_a_man_in_the_middle_cannot_pass_an_identity_on() -> None:
    """Mallory talks to both ends and forwards Alice's payload under her own static key."""
    keys = [X25519PrivateKey.from_private_bytes(bytes([number]) * 32) for number in range(1, 5)]
    alice_static, mallory_static = (
        private.public_key().public_bytes_raw() for private in (keys[0], keys[1])
    )
    dialler = Handshake(
        initiator=True, static=keys[2], prologue=PROLOGUE, psk=None, ephemeral=keys[3]
    )
    mallory = Handshake(
        initiator=False, static=keys[1], prologue=PROLOGUE, psk=None, ephemeral=keys[0]
    )
    mallory.read_message(dialler.write_message(b""))
    payload = dialler.read_message(mallory.write_message(make_payload(ALICE, alice_static)))
    assert dialler.remote_static == mallory_static
    with pytest.raises(HandshakeError):
        check_payload(payload, dialler.remote_static)


def test_framing() -> None:
    assert frame_message(b"abc") == b"\x00\x03abc"
    assert message_size(b"\x00\x03") == 3
    assert message_size(frame_message(b"a")[:2]) == 1
    assert message_size(frame_message(bytes(MAX_MESSAGE))[:2]) == MAX_MESSAGE


@pytest.mark.parametrize("header", [b"\0\0", b"\x04\x01", b"\xff\xff", b"GE", b"\x01", b"\0\0\1"])
def test_message_lengths_are_refused_on_the_header(header: bytes) -> None:
    with pytest.raises(HandshakeError):
        message_size(header)


@pytest.mark.parametrize("size", [0, MAX_MESSAGE + 1])
def test_no_message_is_framed_that_no_peer_accepts(size: int) -> None:
    with pytest.raises(IllegalStateError):
        frame_message(bytes(size))
