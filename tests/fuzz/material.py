"""What the targets share: fixed ids and keys, places on the disk, texts from bytes."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from functools import cache
from pathlib import Path

from furymesh.core.ids import FileId, NodeId

FILE_ID = FileId(bytes(range(32)))
NODE_ID = NodeId(bytes(range(32, 64)))
KEY = bytes(range(64, 96))
SALT = b"8 bytes."
BOOT = b"this boot of us."


def text_of(data: bytes) -> str:
    """Every text that JSON, YAML or an argument can hold, lone surrogates among them."""
    try:
        return data.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return data.decode("utf-8", "surrogateescape")


NAMES = (
    *(b"CON", b"nul.txt", b"C:", b"..", b"/", b"\\", b" ", b"."),
    *(b"\xed\xa0\x80", b"\n", "é".encode() * 60),
)
JSON = (rb"\ud800", rb"\u0000", b"null", b"true", b"[]", b"{}")  # what any field may hold


@cache
def place(name: str) -> Path:
    """A directory of this process for one target; gone when the process ends."""
    path = Path(tempfile.mkdtemp(prefix=f"furymesh-fuzz-{name}-"))
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return path


def put(path: Path, data: bytes) -> Path:
    """Make `data` the content of a private file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        file.write(data)
    return path
