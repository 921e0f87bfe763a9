"""The record layer: what follows the handshake on a secure link.

A record is a u32 big-endian length, then that many bytes of AES-256-GCM
ciphertext and tag. The nonce is Noise's (revision 34, section 12.4): four zero
bytes and a u64 big-endian counter. The counter is never sent, so a record that
is lost, repeated, reordered or altered does not open. The length is not
authenticated by itself; a forged one cuts the ciphertext at the wrong place
and fails at the tag. Noise caps a transport message at 65,535 bytes; records
are longer, because the cost of a Python call is paid for each.

Invariant: a key and a counter value meet at most once. One task at a time may
use a `Sealing` or an `Opening`; each direction of a link has its own key.

These calls are hot. They write into buffers that the caller owns and allocate
nothing but the 12-byte nonce and a view.
"""

from __future__ import annotations

from struct import Struct
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from furymesh.core.errors import IllegalStateError, LinkClosedError, ProtocolError

HEADER_SIZE: Final = 4
TAG_SIZE: Final = 16
# Long enough that Python's cost for each record disappears beside the cipher's
# (about 1 µs beside 10), short enough to be one of many in a 1 MiB buffer.
MAX_PLAINTEXT: Final = 128 * 1024
MAX_CIPHERTEXT: Final = MAX_PLAINTEXT + TAG_SIZE
MAX_RECORD: Final = HEADER_SIZE + MAX_CIPHERTEXT
# What a record adds to its plaintext.
OVERHEAD: Final = HEADER_SIZE + TAG_SIZE
# 2**35 full records are 2**48 cipher blocks, where telling AES-GCM from noise
# is still a 2**-32 chance. That is 4.5 PB in one direction of one link; a link
# that gets there is closed and dialled anew, with new keys.
MAX_RECORDS: Final = 2**35

_HEADER: Final = Struct(">I")
_NONCE: Final = Struct(">4xQ")


def sealed_size(size: int) -> int:
    """The length of the records that carry `size` bytes, each but the last as long as allowed."""
    return size + OVERHEAD * -(-size // MAX_PLAINTEXT)


def ciphertext_size(buffer: bytes | bytearray | memoryview, at: int = 0) -> int:
    """The ciphertext length that the header at `buffer[at:at + 4]` announces.

    Raises ProtocolError when no record may have that length; nothing should be
    allocated, awaited or read before this has passed.
    """
    size: int = _HEADER.unpack_from(buffer, at)[0]
    if not TAG_SIZE < size <= MAX_CIPHERTEXT:
        raise ProtocolError(
            f"the peer announced a record of {size} bytes; "
            f"{TAG_SIZE + 1} to {MAX_CIPHERTEXT} are allowed"
        )
    return size


class Sealing:
    """The sending half: turns plaintext into records, in order."""

    __slots__ = ("_counter", "_encrypt_into")

    def __init__(self, key: bytes) -> None:
        self._encrypt_into = AESGCM(key).encrypt_into
        self._counter = 0

    def seal_into(self, plain: bytes | bytearray | memoryview, out: memoryview, at: int) -> int:
        """Write one record of `plain` to `out[at:]`; returns its length in bytes.

        `plain` holds 1 to MAX_PLAINTEXT bytes and must not overlap the place
        written to. Raises LinkClosedError when the key is used up: the link
        has to be made anew.
        """
        size = len(plain)
        if not 0 < size <= MAX_PLAINTEXT:
            raise IllegalStateError(f"a record holds 1 to {MAX_PLAINTEXT} bytes, not {size}")
        counter = self._counter
        if counter >= MAX_RECORDS:
            raise LinkClosedError("this link has carried all its keys allow; connect again")
        start = at + HEADER_SIZE
        end = start + size + TAG_SIZE
        if at < 0 or end > len(out):
            raise IllegalStateError(f"no room for a record of {size} bytes at {at}")
        # Taken before it is used: whatever happens next, it is not used again.
        self._counter = counter + 1
        _HEADER.pack_into(out, at, size + TAG_SIZE)
        self._encrypt_into(_NONCE.pack(counter), plain, None, out[start:end])
        return end - at


class Opening:
    """The receiving half: turns the records of one sender back, in order."""

    __slots__ = ("_counter", "_decrypt_into")

    def __init__(self, key: bytes) -> None:
        self._decrypt_into = AESGCM(key).decrypt_into
        self._counter = 0

    def open_into(self, cipher: bytes | bytearray | memoryview, out: memoryview) -> int:
        """Open one record's ciphertext (header already off) into `out[:n]`; returns n.

        Raises ProtocolError when it is not the next record as the peer sent
        it; the link is then of no more use and what stands in `out` is
        worthless.
        """
        size = len(cipher) - TAG_SIZE
        if not 0 < size <= MAX_PLAINTEXT:
            raise ProtocolError(f"the peer sent a record of {size} bytes, none may be so long")
        counter = self._counter
        if counter >= MAX_RECORDS:
            raise ProtocolError("this link has failed or carried all its keys allow; connect again")
        if size > len(out):
            raise IllegalStateError(f"no room to open a record of {size} bytes")
        try:
            self._decrypt_into(_NONCE.pack(counter), cipher, None, out[:size])
        except InvalidTag:
            # No second guess at the same counter.
            self._counter = MAX_RECORDS
            raise ProtocolError(
                "a record does not decrypt: it was altered, repeated or reordered on the way"
            ) from None
        self._counter = counter + 1
        return size

    def open(self, cipher: bytes | bytearray | memoryview) -> bytes:
        """Open one record's ciphertext into new bytes; for small records, else as `open_into`."""
        out = bytearray(max(0, min(len(cipher) - TAG_SIZE, MAX_PLAINTEXT)))
        self.open_into(cipher, memoryview(out))
        return bytes(out)
