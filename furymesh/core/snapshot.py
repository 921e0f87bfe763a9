"""The snapshot: the head of a resume file, and what a whole resume file claims.

A resume file is a snapshot followed by a journal (`furymesh.core.journal`):

    prelude   magic 8 | salt 8 | boot id 16 | chunk count u32 | metadata size u32
    metadata  JSON object, ASCII
    bitmaps   have | doubtful, each ceil(chunk count / 8) bytes

big-endian, each of the three parts followed by a 16-byte BLAKE3 checksum that
also covers the salt. Resume data is untrusted: every length is checked before
it is used, and whatever the bytes are, the outcome is a `Recovered` or a
DamagedResumeDataError.

Always true of a `Recovered`: `durable`, `volatile` and `doubtful` are disjoint;
`doubtful` chunks may be on disk but must be hashed before anyone relies on them.
"""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from types import UnionType
from typing import Any

from blake3 import blake3

from furymesh.core import bitfield
from furymesh.core.errors import DamagedResumeDataError, UsageError
from furymesh.core.geometry import MAX_CHUNKS, MAX_STREAM_SIZE
from furymesh.core.ids import FileId, parse_file_id
from furymesh.core.journal import SALT_SIZE, replay

# A manifest header in hex is at most 128 KiB; the rest is paths and peers.
MAX_METADATA = 1024 * 1024
MAX_SNAPSHOT = MAX_METADATA + 2 * (MAX_CHUNKS // 8) + 256
MAX_INODE = 2**64 - 1
MAX_TIME = 2**40  # seconds; finite, so that any clock can show it
BOOT_ID_SIZE = 16
UNKNOWN_BOOT = bytes(BOOT_ID_SIZE)

_MAGIC = b"FMRESUM1"
_PRELUDE = struct.Struct(f">8s{SALT_SIZE}s{BOOT_ID_SIZE}sII")
_CHECKSUM_SIZE = 16


@dataclass(frozen=True, slots=True)
class ResumeMeta:
    """All that a download needs to be taken up again, besides its chunks.

    `output` is the final path that was asked for, `part` where the bytes are
    until then. `size` and `chunk_size` (bytes), `chunks_total` and `header`
    (manifest header bytes) are None until the header has been fetched; `key`
    is the content key of an encrypted share, as `furymesh.core.protection` keeps
    it. `part_inode` tells the part from
    other files, even when it has got its final name already. `created_at` is in
    seconds since the epoch.
    """

    file_id: FileId
    name: str
    output: str
    part: str
    created_at: float
    size: int | None = None
    chunk_size: int | None = None
    chunks_total: int | None = None
    header: bytes | None = field(default=None, repr=False)
    key: bytes | None = field(default=None, repr=False)
    peers: tuple[str, ...] = ()
    part_inode: int | None = None
    executable: bool = False
    detached: bool = False
    trackers: tuple[str, ...] = field(default=(), repr=False)  # of the link; see `Tracker`
    nodes: tuple[str, ...] = ()  # node ids of the link
    private: bool = False
    mirrors: tuple[str, ...] = field(default=(), repr=False)  # of the link; see `Mirror`
    own_mirrors: tuple[str, ...] = field(default=(), repr=False)  # named by the user himself

    @property
    def chunk_count(self) -> int:
        """Bits in each bitmap: 0 until the header is known."""
        return self.chunks_total or 0


@dataclass(frozen=True, slots=True)
class Recovered:
    """What a resume file amounts to on the machine that reads it now."""

    meta: ResumeMeta
    durable: int
    volatile: int
    doubtful: int
    damaged: bool

    @property
    def have(self) -> int:
        """Chunks that may be relied on."""
        return self.durable | self.volatile


def encode_snapshot(
    meta: ResumeMeta, *, salt: bytes, boot_id: bytes, have: int, doubtful: int
) -> bytes:
    """The bytes of a snapshot, to be followed by a journal under the same salt."""
    count = meta.chunk_count
    metadata = _encode_meta(meta)
    prelude = _PRELUDE.pack(_MAGIC, salt, boot_id, count, len(metadata))
    bitmaps = bitfield.to_bytes(have, count) + bitfield.to_bytes(doubtful & ~have, count)
    return b"".join(part + _checksum(salt, part) for part in (prelude, metadata, bitmaps))


def recover(raw: bytes, boot_id: bytes) -> Recovered:
    """Read a whole resume file on a machine whose current boot is `boot_id`.

    Records that were not synced count as volatile in the boot that wrote them
    and as doubtful in any other. Damage to the bitmaps or the journal makes
    every chunk that is not vouched for elsewhere doubtful. Raises
    DamagedResumeDataError if the prelude or the metadata cannot be read.
    """
    reader = _Reader(raw)
    prelude = reader.take(_PRELUDE.size)
    magic, salt, written_in, count, metadata_size = _PRELUDE.unpack(prelude)
    if magic != _MAGIC:
        raise DamagedResumeDataError("it does not begin like resume data")
    if not reader.check(salt, prelude):
        raise DamagedResumeDataError("its first bytes are damaged")
    if count > MAX_CHUNKS or metadata_size > MAX_METADATA:
        raise DamagedResumeDataError("it claims an impossible size")
    metadata = reader.take(metadata_size)
    if not reader.check(salt, metadata):
        raise DamagedResumeDataError("its description of the download is damaged")
    meta = _decode_meta(metadata)
    if meta.chunk_count != count:
        raise DamagedResumeDataError("its chunk counts contradict each other")

    width = (count + 7) // 8
    bitmaps = reader.take(2 * width)
    have = doubtful = None
    if reader.check(salt, bitmaps):
        have = bitfield.from_bytes(bitmaps[:width], count)
        doubtful = bitfield.from_bytes(bitmaps[width:], count)
    journal = replay(reader.rest(), salt, count)

    damaged = journal.damaged or have is None or doubtful is None
    durable = (have or 0) | journal.durable
    volatile = journal.volatile & ~durable
    suspect = (1 << count) - 1 if damaged else doubtful or 0
    if boot_id == UNKNOWN_BOOT or boot_id != written_in:
        suspect |= volatile
        volatile = 0
    return Recovered(meta, durable, volatile, suspect & ~(durable | volatile), damaged)


class _Reader:
    """Takes a resume file apart from front to back; never reads past its end."""

    def __init__(self, raw: bytes) -> None:
        self._raw = raw
        self._at = 0

    def take(self, size: int) -> bytes:
        part = self._raw[self._at : self._at + size]
        if len(part) != size:
            raise DamagedResumeDataError("it is cut short")
        self._at += size
        return part

    def check(self, salt: bytes, part: bytes) -> bool:
        return self.take(_CHECKSUM_SIZE) == _checksum(salt, part)

    def rest(self) -> bytes:
        return self._raw[self._at :]


def _checksum(salt: bytes, part: bytes) -> bytes:
    return blake3(salt + part).digest(_CHECKSUM_SIZE)


def _encode_meta(meta: ResumeMeta) -> bytes:
    record = {
        "file_id": meta.file_id.hex(),
        "name": meta.name,
        "output": meta.output,
        "part": meta.part,
        "created_at": meta.created_at,
        "size": meta.size,
        "chunk_size": meta.chunk_size,
        "chunks_total": meta.chunks_total,
        "header": None if meta.header is None else meta.header.hex(),
        "key": None if meta.key is None else base64.b64encode(meta.key).decode("ascii"),
        "peers": list(meta.peers),
        "part_inode": meta.part_inode,
        "executable": meta.executable,
        "detached": meta.detached,
    }
    listed = {
        "trackers": meta.trackers,
        "nodes": meta.nodes,
        "mirrors": meta.mirrors,
        "own_mirrors": meta.own_mirrors,
    }
    record |= {name: list(texts) for name, texts in listed.items() if texts}
    if meta.private:
        record["private"] = True
    # ASCII escapes carry names that are not valid UTF-8 through unharmed.
    encoded = json.dumps(record, ensure_ascii=True, separators=(",", ":")).encode("ascii")
    if len(encoded) > MAX_METADATA:
        raise UsageError("this download's paths and peers do not fit in resume data: name fewer")
    return encoded


def _decode_meta(raw: bytes) -> ResumeMeta:
    try:
        fields = _Fields(json.loads(raw))
        return ResumeMeta(
            file_id=parse_file_id(fields.text("file_id")),
            name=fields.text("name"),
            output=fields.text("output"),
            part=fields.text("part"),
            created_at=fields.time("created_at"),
            size=fields.count("size", MAX_STREAM_SIZE),
            chunk_size=fields.count("chunk_size", MAX_STREAM_SIZE),
            chunks_total=fields.count("chunks_total", MAX_CHUNKS),
            header=fields.packed("header", bytes.fromhex),
            key=fields.packed("key", lambda text: base64.b64decode(text, validate=True)),
            peers=fields.texts("peers"),
            part_inode=fields.count("part_inode", MAX_INODE),
            executable=fields.flag("executable"),
            detached=fields.flag("detached"),
            trackers=fields.optional_texts("trackers"),
            nodes=fields.optional_texts("nodes"),
            private=fields.has("private") and fields.flag("private"),
            mirrors=fields.optional_texts("mirrors"),
            own_mirrors=fields.optional_texts("own_mirrors"),
        )
    except (ValueError, KeyError, TypeError, RecursionError, UsageError):
        # The cause may quote the content key, so it is not chained.
        raise DamagedResumeDataError("its description of the download makes no sense") from None


class _Fields:
    """Typed access to a JSON object from outside; any surprise is a TypeError or KeyError."""

    def __init__(self, record: Any) -> None:
        if not isinstance(record, dict):
            raise TypeError
        self._record = record

    def _get(self, name: str, kind: type | UnionType) -> Any:
        value = self._record[name]
        # bool is an int to isinstance, and must not pass for one here.
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise TypeError(name)
        return value

    def has(self, name: str) -> bool:
        return name in self._record

    def text(self, name: str) -> str:
        value: str = self._get(name, str)
        # A path may be no UTF-8, but it has to be bytes of some kind; raises ValueError.
        if b"\0" in value.encode("utf-8", "surrogateescape"):
            raise TypeError(name)
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        values = self._get(name, list)
        if not all(isinstance(value, str) for value in values):
            raise TypeError(name)
        return tuple(values)

    def optional_texts(self, name: str) -> tuple[str, ...]:
        return self.texts(name) if self.has(name) else ()

    def flag(self, name: str) -> bool:
        value: bool = self._get(name, bool)
        return value

    def time(self, name: str) -> float:
        value: float = self._get(name, int | float)
        if not 0 <= value < MAX_TIME:
            raise TypeError(name)
        return float(value)

    def count(self, name: str, limit: int) -> int | None:
        if self._record[name] is None:
            return None
        value: int = self._get(name, int)
        if not 0 <= value <= limit:
            raise TypeError(name)
        return value

    def packed(self, name: str, unpack: Callable[[str], bytes]) -> bytes | None:
        if self._record[name] is None:
            return None
        return unpack(self._get(name, str))
