"""The journal: one 16-byte record for every chunk that reached the disk.

Always true:

* A journal only ever adds claims. A chunk is withdrawn by writing a new
  snapshot without it, so a record that is lost or damaged can make furymesh
  forget a chunk (and look at it again) but never believe in one it lacks.
* Each record vouches for itself. Its checksum covers the salt of the snapshot
  it follows and its own position, so a stale, moved or foreign record is never
  taken for a good one, and a bad record says nothing about its neighbours.
* An EPOCH record with index n says: when it was written, the content behind
  every record with a sequence below n had been synced to the disk. It names n,
  rather than meaning "all before me", because other threads append while the
  sync runs.

A record is ``crc32 u32 | sequence u32 | kind u8, index u56``, big-endian.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from zlib import crc32

from furymesh.core.bitfield import mask_of

RECORD_SIZE = 16
SALT_SIZE = 8

_RECORD = struct.Struct(">I12s")  # checksum, body
# Sequence, kind and index. A journal is compacted millions of times before it
# could hold 2^32 records.
_BODY = struct.Struct(">IQ")
_INDEX_BITS = 56
_INDEX_MASK = (1 << _INDEX_BITS) - 1


class RecordKind(IntEnum):
    """What a record says about its index."""

    HAVE = 1  # index: a chunk that was verified and written
    EPOCH = 2  # index: content of records with a lower sequence is synced


@dataclass(frozen=True, slots=True)
class Replay:
    """What a journal claims: two disjoint masks, and how it looked.

    `durable` chunks were synced before the last epoch; `volatile` ones only
    reached the page cache, so they are good until the machine restarts.
    `damaged` means that some record was destroyed and its claim is unknown.
    """

    durable: int
    volatile: int
    damaged: bool
    records: int


class RecordWriter:
    """Numbers and seals the records of one journal. Not thread-safe.

    The owner writes out what `record` returns and calls `advance` once the
    bytes are in the file; a record that failed to be written is then simply
    made again under the same number.
    """

    __slots__ = ("_seed", "sequence")

    def __init__(self, salt: bytes) -> None:
        self._seed = crc32(salt)
        self.sequence = 0

    def record(self, kind: RecordKind, index: int) -> bytes:
        """The next record, 16 bytes."""
        return self._encode(kind, index, self.sequence)

    def have(self, chunks: Iterable[int]) -> bytes:
        """HAVE records for several chunks, end to end, numbered from the next one."""
        numbered = enumerate(chunks, self.sequence)
        return b"".join(self._encode(RecordKind.HAVE, chunk, number) for number, chunk in numbered)

    def advance(self, records: int = 1) -> None:
        """Count records that are now in the file."""
        self.sequence += records

    def _encode(self, kind: RecordKind, index: int, sequence: int) -> bytes:
        body = _BODY.pack(sequence, kind << _INDEX_BITS | index)
        return _RECORD.pack(crc32(body, self._seed), body)


def replay(raw: bytes, salt: bytes, chunk_count: int) -> Replay:
    """Read a journal back; any bytes are accepted and nothing is raised.

    A partial last record and trailing zeros are what a crash leaves behind and
    are no damage. Claims on chunks outside ``range(chunk_count)`` are damage,
    which also bounds the masks.
    """
    seed = crc32(salt)
    whole = len(raw) // RECORD_SIZE
    count = -(-len(raw[: whole * RECORD_SIZE].rstrip(b"\0")) // RECORD_SIZE)
    records = synced_below = 0
    claims: list[tuple[int, int]] = []
    numbered = enumerate(_RECORD.iter_unpack(raw[: count * RECORD_SIZE]))
    for sequence, (checksum, body) in numbered:
        stated, word = _BODY.unpack(body)
        if stated != sequence or checksum != crc32(body, seed):
            continue
        kind, index = word >> _INDEX_BITS, word & _INDEX_MASK
        if kind == RecordKind.HAVE and index < chunk_count:
            claims.append((sequence, index))
        elif kind == RecordKind.EPOCH and index <= sequence:
            synced_below = max(synced_below, index)
        else:
            continue
        records += 1
    durable = mask_of(chunk for sequence, chunk in claims if sequence < synced_below)
    claimed = mask_of(chunk for _, chunk in claims)
    return Replay(durable, claimed & ~durable, records < count, records)
