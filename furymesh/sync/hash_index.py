"""The SHA-256 of files that were hashed once, found again by their facts.

Always true: a hash is given out only for exactly the facts it was noted with,
whatever the file is called by now. The index is replaced as a whole and has a
checksum; one that is damaged, foreign or of another version is as good as none:
everything is hashed again.

    "furymesh sync index 1\\n" | BLAKE3 of the rest, 16 bytes | rows

A row is five facts and a hash, 72 bytes, little-endian. In memory it costs some 250.
"""

from __future__ import annotations

import os
import struct
import threading
from pathlib import Path

from blake3 import blake3

from furymesh.core.errors import EnvironmentFault
from furymesh.storage.files import (
    atomic_write,
    make_private_directory,
    read_bytes,
    sweep_temporaries,
)
from furymesh.storage.scan import Facts
from furymesh.sync.entries import HASH_SIZE

DIRECTORY = "sync"
MAX_INDEX_SIZE = 256 * 1024 * 1024  # bytes; more files than a client may list
_MAGIC = b"furymesh sync index 1\n"
_CHECK = 16  # bytes: against accidents, not against people
_FACTS = struct.Struct("<QQqqq")
_ROW = _FACTS.size + HASH_SIZE


def state_path(data_dir: Path, archive: Path, suffix: str) -> Path:
    """Where the state of the archive at `archive`, a real path, is kept: by a hash of that."""
    name = blake3(os.fsencode(archive)).hexdigest(16)
    return data_dir / DIRECTORY / f"{name}.{suffix}"


class HashIndex:
    """The hashes of one archive. Thread-safe, but for one look at a time.

    What is not asked for between `begin` and a complete `end` is forgotten.
    """

    def __init__(self, path: Path) -> None:
        """Reads the file at `path`, if there is one of use. Never raises."""
        self.path = path
        self._rows: dict[bytes, bytes] = {}
        self._earlier: dict[bytes, bytes] = {}  # not asked for since `begin`
        self._changed = False
        self._lock = threading.Lock()  # one thread scans while another hashes
        try:
            raw = read_bytes(path, MAX_INDEX_SIZE)
            self._rows = _decode(raw) if raw is not None else {}
        except (ValueError, EnvironmentFault):
            self._changed = True  # the next write mends it

    def __len__(self) -> int:
        return len(self._rows) + len(self._earlier)

    def get(self, facts: Facts) -> bytes:
        """The SHA-256 of the file that has these facts; no bytes if it is not known."""
        key = _FACTS.pack(*facts)
        with self._lock:
            digest = self._rows.get(key)
            if digest is None:
                digest = self._earlier.pop(key, b"")
                if digest:
                    self._rows[key] = digest
        return digest

    def put(self, facts: Facts, sha256: bytes) -> None:
        """Note a hash, if the facts prove that it is of their content."""
        if facts.is_proof:
            with self._lock:
                self._rows[_FACTS.pack(*facts)] = sha256
                self._changed = True

    def begin(self) -> None:
        """A look at all files of the archive begins."""
        self.end(complete=False)
        with self._lock:
            self._rows, self._earlier = {}, self._rows

    def end(self, *, complete: bool) -> None:
        """The look ends; if it was not `complete`, what was not asked for is kept."""
        with self._lock:
            if complete:
                self._changed |= bool(self._earlier)
            else:
                self._rows.update(self._earlier)
            self._earlier = {}

    def save(self) -> None:
        """Write the index, if anything has changed; raises EnvironmentFault."""
        self.end(complete=False)
        with self._lock:
            if not self._changed:
                return
            raw = _encode(self._rows)
            self._changed = False
        make_private_directory(self.path.parent)
        sweep_temporaries(self.path.parent, self.path.name)
        atomic_write(self.path, raw)


def _encode(rows: dict[bytes, bytes]) -> bytes:
    body = b"".join(part for row in rows.items() for part in row)
    return _MAGIC + blake3(body).digest(_CHECK) + body


def _decode(raw: bytes) -> dict[bytes, bytes]:
    """The hashes in a file, by packed facts; raises ValueError."""
    head = len(_MAGIC) + _CHECK
    body = raw[head:]
    if not raw.startswith(_MAGIC) or blake3(body).digest(_CHECK) != raw[len(_MAGIC) : head]:
        raise ValueError("it is not a sync index, or it is damaged")
    if len(body) % _ROW:
        raise ValueError("it ends within a row")
    split = _FACTS.size
    return {body[at : at + split]: body[at + split : at + _ROW] for at in range(0, len(body), _ROW)}
