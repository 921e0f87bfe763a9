"""Resume data of one made-up download, as its tests make and load it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from furymesh.core.bitfield import chunks_of
from furymesh.core.ids import FileId
from furymesh.storage.resume import ResumeData, ResumeMeta

FILE_ID = FileId(b"\x5a" * 32)
BOOT = b"a boot of sixtee"
OTHER = b"another, sixteen"
CHUNKS = 64


def meta(**changes: Any) -> ResumeMeta:
    known: dict[str, Any] = {
        "file_id": FILE_ID,
        "name": "film.mkv",
        "output": "/tmp/film.mkv",
        "part": "/tmp/film.mkv.5a5a5a5a.part",
        "created_at": 1.0,
        "chunks_total": CHUNKS,
        "key": b"k" * 32,
    }
    return ResumeMeta(**(known | changes))


def create(directory: Path, **changes: Any) -> ResumeData:
    return ResumeData.create(directory, meta(**changes), boot_id=BOOT)


def load(directory: Path, boot: bytes = BOOT) -> ResumeData:
    return ResumeData.load(directory, FILE_ID, boot_id=boot)


def synced() -> None:
    """A sync that works."""


def chunks(mask: int) -> list[int]:
    return list(chunks_of(mask))
