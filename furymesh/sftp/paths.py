"""The two paths of a transfer, checked before anything is asked of anybody."""

from __future__ import annotations

import os
from pathlib import Path

from furymesh.core.errors import UsageError
from furymesh.core.paths import shown
from furymesh.sftp.options import AnyPath

MAX_REMOTE_BYTES = 4096  # PATH_MAX of common servers


def local_path(path: AnyPath) -> Path:
    """An absolute path with a name at its end; raises UsageError."""
    text = os.fspath(path)
    if not text or "\0" in text:
        raise UsageError(f'"{shown(text)}" is not a path on this machine')
    return Path(os.path.abspath(text))


def remote_path(path: str) -> str:
    """A path that a server can be asked for; raises UsageError."""
    try:
        raw = path.encode()
    except UnicodeEncodeError:
        raw = b""
    if not raw or b"\0" in raw or len(raw) > MAX_REMOTE_BYTES:
        raise UsageError(f'"{shown(path[:200])}" is not a path on a server')
    return path


def check_file_name(path: str) -> None:
    """A file has a name of its own, which temporary files are called after; raises UsageError."""
    if path.rpartition("/")[2] in ("", ".", ".."):
        raise UsageError(f"{shown(path)} names a folder: add the name that the file is to have")
