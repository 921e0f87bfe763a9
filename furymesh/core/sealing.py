"""Encrypted shares: sealing chunks so that mirrors can carry what they cannot read.

A sealed chunk is ``nonce 12 | AES-256-GCM ciphertext | tag 16``, with the chunk
index as associated data. The nonce is a keyed hash of the index and the
plaintext (a synthetic nonce, as in RFC 8452's argument for misuse resistance):
the same content seals to the same bytes, so digests can be checked again from
the plain file on disk, and other content never meets a nonce twice under one
key. The sealed stream has its own geometry: each chunk carries 28 bytes less.
"""

from __future__ import annotations

from blake3 import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from furymesh.core.errors import InvalidManifestError, UsageError, WrongKeyError
from furymesh.core.geometry import Geometry
from furymesh.core.hashing import Buffer

KEY_SIZE = 32
CHECK_SIZE = 16
NONCE_SIZE = 12
TAG_SIZE = 16
OVERHEAD = NONCE_SIZE + TAG_SIZE
# The file table is sealed as one blob under an index that no chunk can have.
TABLE_INDEX = 1 << 63

_ENCRYPTION_CONTEXT = "furymesh 1 content encryption key"
_NONCE_CONTEXT = "furymesh 1 content nonce key"
_CHECK_CONTEXT = "furymesh 1 content key check"


def cipher_size(plain_size: int, chunk_size: int) -> int:
    """Bytes of the sealed stream of a plain stream; an empty one stays empty."""
    full, rest = divmod(plain_size, chunk_size - OVERHEAD)
    return full * chunk_size + (rest + OVERHEAD if rest else 0)


def plain_size(cipher_size: int, chunk_size: int) -> int:
    """Bytes of the plain stream inside a sealed one.

    Raises InvalidManifestError for a size that no plain stream seals to.
    """
    full, rest = divmod(cipher_size, chunk_size)
    if 0 < rest <= OVERHEAD:
        raise InvalidManifestError(
            f"an encrypted stream cannot end in a chunk of {rest} bytes: the share is malformed"
        )
    return full * (chunk_size - OVERHEAD) + max(rest - OVERHEAD, 0)


def plain_range(geometry: Geometry, chunk: int) -> tuple[int, int]:
    """Offset and length in the plain stream of what a sealed chunk carries."""
    return chunk * (geometry.chunk_size - OVERHEAD), geometry.length(chunk) - OVERHEAD


def carried_range(geometry: Geometry, chunk: int, *, sealed: bool) -> tuple[int, int]:
    """Offset and length in the plain stream of what a chunk carries, sealed or as it is."""
    if sealed:
        return plain_range(geometry, chunk)
    return geometry.offset(chunk), geometry.length(chunk)


class Sealer:
    """Seals and opens the chunks of one share under its content key.

    Safe to use from several threads. Never shows the key.
    """

    __slots__ = ("_cipher", "_nonce_key", "check")

    def __init__(self, key: bytes) -> None:
        """`key` is 32 random bytes; raises UsageError for another length."""
        if len(key) != KEY_SIZE:
            raise UsageError(f"a content key has {KEY_SIZE} bytes, not {len(key)}")
        self._cipher = AESGCM(blake3(key, derive_key_context=_ENCRYPTION_CONTEXT).digest())
        self._nonce_key = blake3(key, derive_key_context=_NONCE_CONTEXT).digest()
        #: 16 bytes that tell whether a key fits a share, and nothing else.
        self.check = blake3(key, derive_key_context=_CHECK_CONTEXT).digest(CHECK_SIZE)

    def require(self, check: bytes) -> None:
        """Raise WrongKeyError unless the share with this check value has our key."""
        if check != self.check:
            raise WrongKeyError(
                "the key does not belong to this share: get the whole link from whoever shared it"
            )

    def seal(self, index: int, plain: Buffer) -> bytes:
        """The sealed form of a chunk, 28 bytes longer than it."""
        out = bytearray(len(plain) + OVERHEAD)
        self.seal_into(index, plain, memoryview(out))
        return bytes(out)

    def seal_into(self, index: int, plain: Buffer, out: memoryview) -> int:
        """Seal into the start of `out`, which does not overlap `plain`; bytes written."""
        end = len(plain) + OVERHEAD
        label = index.to_bytes(8, "big")
        nonce = self._nonce(label, plain)
        out[:NONCE_SIZE] = nonce
        self._cipher.encrypt_into(nonce, plain, label, out[NONCE_SIZE:end])
        return end

    def open(self, index: int, sealed: Buffer) -> bytes:
        """The plaintext of a sealed chunk; raises as `open_into` does."""
        out = bytearray(max(len(sealed) - OVERHEAD, 0))
        self.open_into(index, sealed, memoryview(out))
        return bytes(out)

    def open_into(self, index: int, sealed: Buffer, out: memoryview) -> int:
        """Open into the start of `out`; returns the bytes of plaintext.

        Check the digest first: what then fails to open was sealed wrongly or
        with another key, which no other peer can mend. Raises WrongKeyError.
        """
        end = len(sealed) - OVERHEAD
        label = index.to_bytes(8, "big")
        view = memoryview(sealed)
        nonce = bytes(view[:NONCE_SIZE])
        plain = out[: max(end, 0)]
        try:
            if end < 0:
                raise InvalidTag
            self._cipher.decrypt_into(nonce, view[NONCE_SIZE:], label, plain)
        except InvalidTag:
            raise _unopened(index) from None
        # Only the nonce that sealing would choose lets us seal this again later.
        if nonce != self._nonce(label, plain):
            raise _unopened(index)
        return end

    def _nonce(self, label: bytes, plain: Buffer) -> bytes:
        hasher = blake3(label, key=self._nonce_key)
        hasher.update(plain)
        return hasher.digest(NONCE_SIZE)


def _unopened(index: int) -> WrongKeyError:
    what = "the file table" if index == TABLE_INDEX else f"chunk {index}"
    return WrongKeyError(
        f"the key does not open {what} of this share: ask for it to be shared anew"
    )
