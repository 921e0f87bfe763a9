"""Files to and from SFTP servers: atomic, resumed, checked, over verified host keys.

`Connection` blocks, `AsyncConnection` runs under trio; both have `sftp_write`
and `sftp_read`. Paths and names that a server sends are hostile input, links
are neither created nor followed below what the caller named, and every failure
is a `FuryMeshError`. Needs the extra ``sftp``.

Inside: `connection` (trio) and `blocking` (threads) are the faces of a `session`
in the thread of a `loop`, since the SSH library knows asyncio only. Its transfers
are `upload` and `download` for a file each and `folders` for trees; `pipeline` is
what is in flight, `remote` a server's file operations, `faults` its errors,
`options` and `how` what callers ask for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from furymesh.core.errors import UsageError

if TYPE_CHECKING:
    from furymesh.sftp.blocking import Connection
    from furymesh.sftp.connection import AsyncConnection
    from furymesh.sftp.how import Transferred

_HOMES = {
    "AsyncConnection": "furymesh.sftp.connection",
    "Connection": "furymesh.sftp.blocking",
    "Transferred": "furymesh.sftp.how",
}

__all__ = ["AsyncConnection", "Connection", "Transferred"]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(_HOMES[name]), name)
    except ModuleNotFoundError as error:
        if error.name != "asyncssh":
            raise
        raise UsageError('SFTP needs the package asyncssh: pip install "furymesh[sftp]"') from None
