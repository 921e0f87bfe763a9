"""Files in which a user keeps a secret: the pre-shared key, the passphrase.

A message about one names the setting and never the path: who writes the secret
itself where its file belongs must not find it in a log.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from furymesh.core.errors import EnvironmentFault, LocalDataError
from furymesh.wire.noise import KEY_SIZE

MAX_SECRET = 4096  # bytes; a passphrase of a page, and nothing to read for long
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def read_psk(path: Path | None) -> bytes | None:
    """The pre-shared key of a private swarm: 64 hex digits in a file; None if none is named.

    Raises EnvironmentFault, LocalDataError.
    """
    if path is None:
        return None
    raw = read_secret(path, "node.psk_file")
    try:
        key = bytes.fromhex(raw.decode("ascii").strip())
    except ValueError:
        key = b""
    if len(key) != KEY_SIZE:
        raise LocalDataError(
            "the file that node.psk_file names holds no pre-shared key: write 64 hex digits"
            " there, like those of `openssl rand -hex 32`"
        )
    return key


def read_secret(path: Path, setting: str) -> bytes:
    """The content of the file that `setting` names, which only its owner may read.

    A pipe will do as well. Raises EnvironmentFault.
    """
    try:
        with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY), "rb") as file:
            status = os.fstat(file.fileno())
            if stat.S_ISREG(status.st_mode) and status.st_mode & _OTHERS:
                raise EnvironmentFault(
                    f"other users may read the file that {setting} names: run `chmod 600` on it,"
                    " and write a new secret there if somebody may have seen this one"
                )
            raw = file.read(MAX_SECRET + 1)
    except (OSError, ValueError) as error:
        reason = (getattr(error, "strerror", None) or "not a usable path").lower()
        raise EnvironmentFault(
            f"cannot read the file that {setting} names: {reason};"
            " it wants the path of a file with the secret in it, not the secret"
        ) from None
    if len(raw) > MAX_SECRET:
        raise EnvironmentFault(f"the file that {setting} names is longer than {MAX_SECRET} bytes")
    return raw
