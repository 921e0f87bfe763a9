"""The Noise handshake: two strangers agree on keys and learn each other's static key.

Source: The Noise Protocol Framework, revision 34, patterns XX (section 7.5)
and XXpsk3 (section 9) over X25519, AES-256-GCM and SHA-256::

    XX                      XXpsk3
      -> e                    -> e
      <- e, ee, s, es         <- e, ee, s, es
      -> s, se                -> s, se, psk

No I/O happens here. The caller moves each message and gives every key,
ephemeral keys included, so a test replays the published vectors and one
random source, outside, serves the whole process.

Invariant: a `Handshake` only walks forward through its three messages. A
message that fails leaves it failed for good, because half of it has already
been mixed into the hash. The two kinds of failure are two exceptions: a
message that does not hold up is the peer's (`HandshakeError`); a call out of
turn is a bug here (`IllegalStateError`).
"""

from __future__ import annotations

import hmac
from enum import Enum, auto
from hashlib import sha256
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import (
    X25519PrivateKey,
    X25519PublicKey,
)
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from furymesh.core.errors import HandshakeError, IllegalStateError

KEY_SIZE: Final = 32
TAG_SIZE: Final = 16
# Noise allows 65,535. The longest of our own is the second, 192 bytes with an
# identity in it; the rest is room for a longer payload in a later version.
MAX_MESSAGE: Final = 1024


class Token(Enum):
    """One step inside a handshake message, as the specification names it."""

    E = auto()  # a fresh ephemeral public key, in clear
    S = auto()  # the static public key, encrypted: in both patterns it follows an agreement
    EE = auto()  # initiator's ephemeral with responder's ephemeral
    ES = auto()  # initiator's ephemeral with responder's static
    SE = auto()  # initiator's static with responder's ephemeral
    PSK = auto()  # the pre-shared key


class _Key(Enum):
    EPHEMERAL = auto()
    STATIC = auto()


# Message 0 and 2 are the initiator's, message 1 the responder's.
_XX: Final[tuple[tuple[Token, ...], ...]] = (
    (Token.E,),
    (Token.E, Token.EE, Token.S, Token.ES),
    (Token.S, Token.SE),
)
_XXPSK3: Final[tuple[tuple[Token, ...], ...]] = (_XX[0], _XX[1], (*_XX[2], Token.PSK))

# A token names the initiator's key first, the responder's second.
_AGREEMENTS: Final[dict[Token, tuple[_Key, _Key]]] = {
    Token.EE: (_Key.EPHEMERAL, _Key.EPHEMERAL),
    Token.ES: (_Key.EPHEMERAL, _Key.STATIC),
    Token.SE: (_Key.STATIC, _Key.EPHEMERAL),
}


class _SymmetricState:
    """The running hash, the chaining key and the current cipher (section 5.2)."""

    __slots__ = ("_chaining_key", "_cipher", "_nonce", "hash")

    def __init__(self, protocol_name: bytes) -> None:
        # Both names are at most one hash long, so they are padded, not hashed.
        self.hash = protocol_name.ljust(sha256().digest_size, b"\0")
        self._chaining_key = self.hash
        self._cipher: AESGCM | None = None
        self._nonce = 0

    def _derive(self, material: bytes, count: int) -> tuple[bytes, ...]:
        """HKDF of section 4.3: `count` blocks of 32 bytes from the chaining key."""
        secret = hmac.digest(self._chaining_key, material, "sha256")
        blocks: list[bytes] = []
        block = b""
        for index in range(1, count + 1):
            block = hmac.digest(secret, block + bytes([index]), "sha256")
            blocks.append(block)
        return tuple(blocks)

    def _set_key(self, key: bytes) -> None:
        self._cipher = AESGCM(key)
        self._nonce = 0

    def mix_hash(self, data: bytes) -> None:
        self.hash = sha256(self.hash + data).digest()

    def mix_key(self, material: bytes) -> None:
        self._chaining_key, key = self._derive(material, 2)
        self._set_key(key)

    def mix_key_and_hash(self, material: bytes) -> None:
        self._chaining_key, extra, key = self._derive(material, 3)
        self.mix_hash(extra)
        self._set_key(key)

    def seal(self, plain: bytes) -> bytes:
        sealed = plain
        if self._cipher is not None:
            sealed = self._cipher.encrypt(self._next_nonce(), plain, self.hash)
        self.mix_hash(sealed)
        return sealed

    def open(self, sealed: bytes) -> bytes:
        """Raises InvalidTag."""
        plain = sealed
        if self._cipher is not None:
            plain = self._cipher.decrypt(self._next_nonce(), sealed, self.hash)
        self.mix_hash(sealed)
        return plain

    def _next_nonce(self) -> bytes:
        nonce = bytes(4) + self._nonce.to_bytes(8, "big")
        self._nonce += 1
        return nonce

    def split(self) -> tuple[bytes, bytes]:
        """The initiator's and the responder's sending key."""
        first, second = self._derive(b"", 2)
        return first, second


class Handshake:
    """One side of one handshake.

    `static` is this side's Noise key and `ephemeral` a key made for this
    handshake alone; using an ephemeral key twice breaks forward secrecy.
    `prologue` must be equal on both sides. With `psk` (32 bytes, equal on both
    sides) the pattern is XXpsk3, without it XX: the two never complete with
    each other.

    `write_message` and `read_message` alternate, the initiator writing first,
    until `complete`; then `split` gives the keys of the link.
    """

    __slots__ = (
        "_broken",
        "_ephemeral",
        "_initiator",
        "_pattern",
        "_psk",
        "_remote",
        "_split",
        "_static",
        "_step",
        "_symmetric",
    )

    def __init__(
        self,
        *,
        initiator: bool,
        static: X25519PrivateKey,
        prologue: bytes,
        psk: bytes | None,
        ephemeral: X25519PrivateKey,
    ) -> None:
        if psk is not None and len(psk) != KEY_SIZE:
            raise IllegalStateError(f"a pre-shared key has {KEY_SIZE} bytes, not {len(psk)}")
        modifier = b"" if psk is None else b"psk3"
        self._initiator = initiator
        self._static = static
        self._ephemeral = ephemeral
        self._psk = psk
        self._remote: dict[_Key, X25519PublicKey] = {}
        self._pattern = _XX if psk is None else _XXPSK3
        self._step = 0
        self._broken = False
        self._split = False
        self._symmetric = _SymmetricState(b"Noise_XX" + modifier + b"_25519_AESGCM_SHA256")
        self._symmetric.mix_hash(prologue)

    @property
    def complete(self) -> bool:
        """Whether all three messages went through."""
        return self._step == len(self._pattern)

    @property
    def my_turn(self) -> bool:
        """Whether the next call is `write_message` rather than `read_message`."""
        return not self.complete and (self._step % 2 == 0) == self._initiator

    @property
    def handshake_hash(self) -> bytes:
        """32 bytes that name this one handshake; both sides see the same once complete."""
        if not self.complete:
            raise IllegalStateError("the handshake hash is final only after the last message")
        return self._symmetric.hash

    @property
    def remote_static(self) -> bytes:
        """The peer's static public key (32 bytes), known once `read_message` gave its payload.

        The peer has then proven that it holds the private half; who it is,
        only that payload can say.
        """
        remote = self._remote.get(_Key.STATIC)
        if remote is None or self._broken:
            raise IllegalStateError("the peer's static key has not been read yet")
        return remote.public_bytes_raw()

    def write_message(self, payload: bytes) -> bytes:
        """This side's next message, `payload` inside.

        The payload of the first message of XX travels in clear. Raises
        IllegalStateError out of turn and HandshakeError when the peer's key
        agrees on nothing (a low-order point).
        """
        tokens = self._begin(writing=True)
        message = bytearray()
        for token in tokens:
            if token is Token.E:
                public = self._ephemeral.public_key().public_bytes_raw()
                message += public
                self._mix_ephemeral(public)
            elif token is Token.S:
                message += self._symmetric.seal(self._static.public_key().public_bytes_raw())
            else:
                self._mix(token)
        message += self._symmetric.seal(payload)
        if len(message) > MAX_MESSAGE:
            raise IllegalStateError(f"a handshake message would be longer than {MAX_MESSAGE} bytes")
        self._advance()
        return bytes(message)

    def read_message(self, message: bytes) -> bytes:
        """Take the peer's next message and return the payload inside.

        Raises HandshakeError when any byte of it is wrong, and
        IllegalStateError out of turn.
        """
        tokens = self._begin(writing=False)
        if len(message) > MAX_MESSAGE:
            raise HandshakeError(
                f"the peer's handshake message has {len(message)} bytes, more than {MAX_MESSAGE}"
            )
        rest = message
        try:
            for token in tokens:
                if token is Token.E:
                    public, rest = _take(rest, KEY_SIZE)
                    self._remote[_Key.EPHEMERAL] = X25519PublicKey.from_public_bytes(public)
                    self._mix_ephemeral(public)
                elif token is Token.S:
                    sealed, rest = _take(rest, KEY_SIZE + TAG_SIZE)
                    public = self._symmetric.open(sealed)
                    self._remote[_Key.STATIC] = X25519PublicKey.from_public_bytes(public)
                else:
                    self._mix(token)
            payload = self._symmetric.open(rest)
        except InvalidTag:
            raise HandshakeError(
                "the peer's handshake message does not decrypt: it was altered on the way, or the "
                "peer speaks another version or holds another pre-shared key"
            ) from None
        self._advance()
        return payload

    def split(self) -> tuple[bytes, bytes]:
        """The keys of the link: (for sending, for receiving), 32 bytes each.

        Given out once: two ciphers on one key would repeat their nonces.
        """
        if not self.complete or self._split:
            raise IllegalStateError("split a handshake once, after its last message")
        self._split = True
        first, second = self._symmetric.split()
        return (first, second) if self._initiator else (second, first)

    def _begin(self, *, writing: bool) -> tuple[Token, ...]:
        """The tokens of the next message."""
        if self._broken:
            raise IllegalStateError("this handshake has failed; start a new one")
        if self.complete:
            raise IllegalStateError("this handshake is complete; there is no further message")
        if writing is not self.my_turn:
            raise IllegalStateError("it is the other side's turn in this handshake")
        # Broken until proven whole, so that no way out of a message by an
        # exception leaves the state usable.
        self._broken = True
        return self._pattern[self._step]

    def _advance(self) -> None:
        self._broken = False
        self._step += 1

    def _mix_ephemeral(self, public: bytes) -> None:
        self._symmetric.mix_hash(public)
        # Section 9.2: with a pre-shared key, ephemerals also go into the cipher
        # key, so that no two handshakes encrypt under the psk alone.
        if self._psk is not None:
            self._symmetric.mix_key(public)

    def _mix(self, token: Token) -> None:
        """Mix a key agreement, or the pre-shared key, into the state."""
        if token is Token.PSK:
            assert self._psk is not None
            self._symmetric.mix_key_and_hash(self._psk)
            return
        ours, theirs = _AGREEMENTS[token]
        if not self._initiator:
            ours, theirs = theirs, ours
        private = self._ephemeral if ours is _Key.EPHEMERAL else self._static
        try:
            shared = private.exchange(self._remote[theirs])
        except ValueError:
            # The library refuses an all-zero result: a low-order point would
            # let a third party know the key.
            raise HandshakeError(
                "the peer sent a public key that agrees on nothing; it is broken or hostile"
            ) from None
        self._symmetric.mix_key(shared)


def _take(data: bytes, size: int) -> tuple[bytes, bytes]:
    """Cut `size` bytes off the front; raises HandshakeError if there are fewer."""
    if len(data) < size:
        raise HandshakeError("the peer's handshake message is cut short")
    return data[:size], data[size:]
