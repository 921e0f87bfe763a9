"""Who is at the other end: identities inside the Noise handshake.

Noise proves that the peer holds a static X25519 key. The payload of the
second and third handshake message ties that key to a lasting identity: the
node id, an Ed25519 public key, and its signature over the static key, with a
prefix so that no signature made for another purpose can stand in (the
construction of libp2p's noise specification). The static key may thus live as
short as the process, and a stolen one names nobody.

On the wire a handshake message is a u16 big-endian length and the message.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)

from furymesh.core.errors import HandshakeError, IllegalStateError
from furymesh.core.ids import ID_SIZE, NodeId, node_id_text
from furymesh.wire.noise import MAX_MESSAGE

# Both sides mix this in first, so two versions of the protocol never connect.
PROLOGUE: Final = b"furymesh/1"
SIGNATURE_SIZE: Final = 64
PAYLOAD_SIZE: Final = ID_SIZE + SIGNATURE_SIZE
LENGTH_SIZE: Final = 2

_SIGNED_PREFIX: Final = b"furymesh-noise-static-key:"


@dataclass(frozen=True, slots=True)
class IdentityPayload:
    """A node id and its claim to a Noise static key; nothing is checked yet."""

    node_id: NodeId
    signature: bytes

    def encode(self) -> bytes:
        """The 96 bytes that travel."""
        return self.node_id + self.signature

    @classmethod
    def decode(cls, raw: bytes) -> IdentityPayload:
        """Raises HandshakeError unless `raw` has exactly the right length."""
        if len(raw) != PAYLOAD_SIZE:
            raise HandshakeError(
                f"the peer's identity has {len(raw)} bytes instead of {PAYLOAD_SIZE}"
            )
        return cls(NodeId(raw[:ID_SIZE]), raw[ID_SIZE:])


def make_payload(identity_private: Ed25519PrivateKey, static_public: bytes) -> bytes:
    """This node's handshake payload for the Noise static public key it uses (32 bytes)."""
    node_id = NodeId(identity_private.public_key().public_bytes_raw())
    signature = identity_private.sign(_SIGNED_PREFIX + static_public)
    return IdentityPayload(node_id, signature).encode()


def check_payload(
    payload: bytes, remote_static: bytes, *, expected: NodeId | None = None
) -> NodeId:
    """Who the peer is, proven by `payload` for the static key the handshake saw.

    With `expected`, anyone else is refused. Raises HandshakeError.
    """
    claim = IdentityPayload.decode(payload)
    try:
        key = Ed25519PublicKey.from_public_bytes(claim.node_id)
        key.verify(claim.signature, _SIGNED_PREFIX + remote_static)
    except (InvalidSignature, ValueError):
        raise HandshakeError(
            f"the peer claims to be node {node_id_text(claim.node_id)} and cannot prove it"
        ) from None
    if expected is not None and claim.node_id != expected:
        raise HandshakeError(
            f"the peer is node {node_id_text(claim.node_id)}, not the expected "
            f"{node_id_text(expected)}: check the address"
        )
    return claim.node_id


def frame_message(message: bytes) -> bytes:
    """A handshake message as it goes on the wire, length first."""
    if not 0 < len(message) <= MAX_MESSAGE:
        raise IllegalStateError(f"a handshake message has 1 to {MAX_MESSAGE} bytes")
    return len(message).to_bytes(LENGTH_SIZE, "big") + message


def message_size(header: bytes) -> int:
    """How long the message after this 2-byte header is.

    Raises HandshakeError when no handshake message may be that long; nothing
    should be awaited or allocated before this has passed.
    """
    size = int.from_bytes(header, "big")
    if len(header) != LENGTH_SIZE or not 0 < size <= MAX_MESSAGE:
        raise HandshakeError(
            f"the peer announced a handshake message of {size} bytes; 1 to {MAX_MESSAGE} are "
            "allowed: is that the port of a furymesh node?"
        )
    return size
