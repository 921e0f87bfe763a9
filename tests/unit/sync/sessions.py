"""A session of a few files that all have the same content, for the tests of its lock."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from furymesh.sync import LOCK_NAME, FileWriter, IncomingFile, TransferLockManager

DATA = bytes(range(250)) * 4
DIGEST = hashlib.sha256(DATA).hexdigest()
BOOT, LATER_BOOT = b"boot of a 16byte", b"boot of another."


def listed(*names: str) -> list[IncomingFile]:
    """What is to come, as the sender lists it."""
    return [
        {
            "filename": name,
            "size": len(DATA),
            "original_hash": DIGEST,
            "last_modified": "2024-01-01T11:59:00Z",
        }
        for name in names
    ]


def write(lock: TransferLockManager, name: str, size: int = len(DATA)) -> FileWriter:
    """Receive a file up to `size`, from where it was."""
    writer = FileWriter(name, len(DATA), 0, lock)
    writer.open_for_writing(lock.get_resume_bytes(name))
    assert writer.write_chunk(DATA[writer.written : size]) >= 0
    return writer


def stored(directory: Path) -> dict[str, Any]:
    """The lock file of a folder."""
    value: dict[str, Any] = json.loads((directory / LOCK_NAME).read_text("utf-8"))
    return value
