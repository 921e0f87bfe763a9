"""Small trees of files for the tests of folder sync."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

LONG_AGO_NS = 1_600_000_000_000_000_000


def make(root: Path, *names: str) -> None:
    """Files whose content is their name."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)


def put(path: Path, data: bytes, *, old: bool = True) -> bytes:
    """Write a file, by default with an old time; its SHA-256."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    if old:
        os.utime(path, ns=(LONG_AGO_NS, LONG_AGO_NS))
    return hashlib.sha256(data).digest()


def tree(root: Path) -> dict[str, bytes]:
    """The content of every file below a folder, links and directories left out."""
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and not path.is_symlink()
    }


def tick() -> None:
    """Wait until the clock of file times has moved on."""
    before = time.time_ns()
    while time.time_ns() - before < 25_000_000:
        os.sched_yield()
