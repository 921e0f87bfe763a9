"""Secrets at rest: sealed under one master key, which a passphrase opens.

A secret (the seed of the identity, the content key of a share) is kept as it is
or, where a passphrase was set, as ``magic 4 | nonce 12 | AES-256-GCM ciphertext
| tag 16`` under a random master key. The master key itself is sealed in the same
way, under a key that scrypt (RFC 7914) derives from the passphrase. So a change
of the passphrase replaces one small file and nothing else.

The associated data is the purpose, so that no sealed secret passes for another.
The nonce is a keyed hash of purpose and secret (a synthetic nonce, as in
`furymesh.core.sealing`): sealing needs no randomness and gives the same bytes
each time.
"""

from __future__ import annotations

import base64
from typing import Final

from blake3 import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from furymesh.core.errors import LocalDataError, PassphraseError
from furymesh.core.ids import FileId

KEY_SIZE: Final = 32
SALT_SIZE: Final = 16
MAX_LINE: Final = 1024  # bytes of a file that this module describes; real ones take 200

# 64 MiB and about a third of a second a guess: no less costly than the 2^17, 8, 1
# that OWASP's password storage cheat sheet asks for, in half the memory.
SCRYPT_N: Final = 2**16
SCRYPT_R: Final = 8
SCRYPT_P: Final = 2

_MAGIC: Final = b"\xf5fm1"
_NONCE_SIZE: Final = 12
_TAG_SIZE: Final = 16
_ENCRYPTION_CONTEXT: Final = "furymesh 1 master encryption key"
_NONCE_CONTEXT: Final = "furymesh 1 master nonce key"
_CHECKSUM_SIZE: Final = 8
_FORMAT: Final = "furymesh-passphrase-1"
_MASTER: Final = b"master key"
IDENTITY: Final = b"identity"


def content_key_of(file_id: FileId) -> bytes:
    """The purpose of the content key of one share."""
    return b"content key " + file_id


def is_sealed(stored: bytes) -> bool:
    """Whether `stored` is a sealed 32-byte secret; a plain one is shorter."""
    return stored.startswith(_MAGIC) and len(stored) == (
        len(_MAGIC) + _NONCE_SIZE + KEY_SIZE + _TAG_SIZE
    )


class Protection:
    """Seals and opens 32-byte secrets; without a master key it leaves them as they are.

    Immutable and safe to use from several threads. Never shows the key.
    """

    __slots__ = ("_cipher", "_nonce_key")

    def __init__(self, master: bytes | None = None) -> None:
        """`master` is 32 random bytes, or None where no passphrase is set."""
        self._cipher = None
        self._nonce_key = b""
        if master is not None:
            self._cipher = AESGCM(blake3(master, derive_key_context=_ENCRYPTION_CONTEXT).digest())
            self._nonce_key = blake3(master, derive_key_context=_NONCE_CONTEXT).digest()

    @property
    def on(self) -> bool:
        """Whether secrets are sealed."""
        return self._cipher is not None

    def protect(self, purpose: bytes, secret: bytes) -> bytes:
        """The form in which to keep a secret."""
        if self._cipher is None:
            return secret
        nonce = blake3(purpose + secret, key=self._nonce_key).digest(_NONCE_SIZE)
        return _MAGIC + nonce + self._cipher.encrypt(nonce, secret, purpose)

    def reveal(self, purpose: bytes, stored: bytes) -> bytes:
        """The secret that is kept as `stored`, sealed or not.

        Raises LocalDataError if it is sealed and does not open.
        """
        if not is_sealed(stored):
            return stored
        if self._cipher is None:
            raise LocalDataError(
                "a key here is sealed and passphrase.key, which opens it, is missing from the"
                " data directory: restore that file from a backup"
            )
        nonce, sealed = stored[len(_MAGIC) :][:_NONCE_SIZE], stored[len(_MAGIC) + _NONCE_SIZE :]
        try:
            return self._cipher.decrypt(nonce, sealed, purpose)
        except InvalidTag:
            raise LocalDataError(
                "a sealed key is damaged or was sealed elsewhere: restore the data directory"
                " from a backup"
            ) from None


PLAIN: Final = Protection()


def wrap_master(master: bytes, passphrase: str, salt: bytes) -> bytes:
    """The content of passphrase.key; `salt` is 16 random bytes. Takes scrypt's time."""
    sealed = _under(passphrase, salt).protect(_MASTER, master)
    return encode_line(_FORMAT, as_field(salt), as_field(sealed))


def unwrap_master(raw: bytes, passphrase: str) -> bytes:
    """The master key in the content of passphrase.key. Takes scrypt's time.

    Raises PassphraseError for the wrong passphrase, LocalDataError for damage.
    """
    try:
        salt, sealed = map(from_field, decode_line(raw, _FORMAT, 2))
    except ValueError:
        salt = sealed = b""
    if len(salt) != SALT_SIZE or not is_sealed(sealed):
        raise LocalDataError(
            "passphrase.key in the data directory is damaged: restore it from a backup"
        )
    try:
        return _under(passphrase, salt).reveal(_MASTER, sealed)
    except LocalDataError:
        raise PassphraseError("wrong passphrase: try again") from None


def encode_line(name: str, *fields: str) -> bytes:
    """A file of one line: a format name, fields, a checksum of all before it."""
    line = " ".join((name, *fields))
    return f"{line} {_checksum(line)}\n".encode("ascii")


def decode_line(raw: bytes, name: str, count: int) -> list[str]:
    """The `count` fields of such a line; raises ValueError for any other bytes."""
    text = raw.decode("ascii")
    line, _, _ = text.removesuffix("\n").rpartition(" ")
    first, *fields = line.split(" ")
    if first != name or len(fields) != count or encode_line(name, *fields) != raw:
        raise ValueError
    return fields


def _under(passphrase: str, salt: bytes) -> Protection:
    kdf = Scrypt(salt=salt, length=KEY_SIZE, n=SCRYPT_N, r=SCRYPT_R, p=SCRYPT_P)
    return Protection(kdf.derive(passphrase.encode("utf-8", "surrogatepass")))


def _checksum(line: str) -> str:
    return blake3(line.encode("ascii")).hexdigest(_CHECKSUM_SIZE)


def as_field(raw: bytes) -> str:
    """Bytes as a field of such a line."""
    return base64.b64encode(raw).decode("ascii")


def from_field(text: str) -> bytes:
    """The reverse of `as_field`; raises ValueError."""
    return base64.b64decode(text, validate=True)
