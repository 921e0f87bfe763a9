"""Targets of the handshake: its messages, and the identity inside them."""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from furymesh.core.errors import HandshakeError
from furymesh.wire.authentication import (
    LENGTH_SIZE,
    PROLOGUE,
    check_payload,
    frame_message,
    make_payload,
    message_size,
)
from furymesh.wire.noise import Handshake
from tests.fuzz.engine import Target

PSK = b"p" * 32
# A point of low order: it agrees on nothing with anybody.
LOW_ORDER = bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800")
# By the role: the initiator's, the responder's.
_STATIC = {
    True: X25519PrivateKey.from_private_bytes(b"1" * 32),
    False: X25519PrivateKey.from_private_bytes(b"2" * 32),
}
_EPHEMERAL = {
    True: X25519PrivateKey.from_private_bytes(b"3" * 32),
    False: X25519PrivateKey.from_private_bytes(b"4" * 32),
}
_IDENTITY = Ed25519PrivateKey.from_private_bytes(b"5" * 32)


def _ends(psk: bytes | None) -> tuple[Handshake, Handshake]:
    initiator, responder = (
        Handshake(
            initiator=role,
            static=_STATIC[role],
            prologue=PROLOGUE,
            psk=psk,
            ephemeral=_EPHEMERAL[role],
        )
        for role in (True, False)
    )
    return initiator, responder


def _payload(step: int) -> bytes:
    mine = _STATIC[step == 2].public_key().public_bytes_raw()
    return make_payload(_IDENTITY, mine) if step else b""


def _until(step: int, psk: bytes | None) -> tuple[Handshake, Handshake]:
    """Who writes message `step` and who reads it, all before having gone well."""
    writer, reader = _ends(psk)
    for earlier in range(step):
        reader.read_message(writer.write_message(_payload(earlier)))
        writer, reader = reader, writer
    return writer, reader


def handshake(data: bytes) -> None:
    """One message of the handshake, as its first byte says, to the end that awaits it."""
    step, psk = data[:1].rjust(1, b"\0")[0] % 3, PSK if data[:1] > b"\x7f" else None
    _, reader = _until(step, psk)
    size = message_size(data[1 : 1 + LENGTH_SIZE])
    payload = reader.read_message(data[1 + LENGTH_SIZE :][:size])
    if step:
        check_payload(payload, reader.remote_static)


def hostile_payload(data: bytes) -> None:
    """A peer with good keys who claims something else inside them."""
    step = 1 + data[:1].rjust(1, b"\0")[0] % 2
    writer, reader = _until(step, None)
    payload = reader.read_message(writer.write_message(data[1:800]))
    assert payload == data[1:800]
    check_payload(payload, reader.remote_static)


def _handshakes() -> dict[str, bytes]:
    seeds = {}
    for psk in (None, PSK):
        for step in range(3):
            writer, _ = _until(step, psk)
            message = frame_message(writer.write_message(_payload(step)))
            first = bytes([step + (129 if psk else 0)])
            seeds[f"{step}-{'psk' if psk else 'plain'}"] = first + message
    return seeds


TARGETS = (
    Target(
        "handshake", handshake, _handshakes, (HandshakeError,), (LOW_ORDER, bytes(32), b"\0\x20")
    ),
    Target(
        "handshake_payload",
        hostile_payload,
        lambda: {"second": b"\0" + _payload(1), "third": b"\1" + _payload(2)},
        (HandshakeError,),
        (LOW_ORDER, bytes(32), b"\1" + bytes(31), b"\xff" * 32),
    ),
)
