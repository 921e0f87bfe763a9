"""The nodes of the DHT that were good when last seen, kept from run to run.

The file is what libtorrent writes of its state: a bencoded dictionary. Of it only
the addresses of nodes are used. The DHT's own node id in it is not: it is no
secret and no name, and two processes with one data directory must not share it.
"""

from __future__ import annotations

import contextlib
import ipaddress
import struct
from pathlib import Path
from typing import Any

from furymesh.core.errors import EnvironmentFault
from furymesh.storage.files import atomic_write, read_bytes

FILE_NAME = "dht.state"
MAX_STATE = 64 * 1024  # bytes; libtorrent writes some hundred nodes of 6 or 18 bytes
MAX_NODES = 50  # to ask when starting; a handful that lives is enough

Nodes = tuple[tuple[str, int], ...]

_KINDS = ((b"nodes", 4), (b"nodes6", 16))  # key, and bytes of an address


def load(path: Path) -> Nodes:
    """The nodes remembered at `path`; none if it is absent, unreadable or damaged."""
    with contextlib.suppress(EnvironmentFault):
        raw = read_bytes(path, MAX_STATE)
        if raw is not None:
            return decode(raw)
    return ()


def save(path: Path, raw: bytes) -> None:
    """Replace the file at `path`; raises EnvironmentFault."""
    atomic_write(path, raw)


def decode(raw: bytes) -> Nodes:
    """The nodes in a state that libtorrent wrote; none if it is damaged."""
    import libtorrent as lt

    try:
        state: Any = lt.bdecode(raw)
    except (RuntimeError, ValueError):
        return ()
    inner = state.get(b"dht state") if isinstance(state, dict) else None
    if not isinstance(inner, dict):
        return ()
    found: list[tuple[str, int]] = []
    for key, size in _KINDS:
        listed = inner.get(key)
        for node in listed if isinstance(listed, list) else ():
            if isinstance(node, bytes) and len(node) == size + 2:
                port = struct.unpack(">H", node[size:])[0]
                if port:
                    found.append((str(ipaddress.ip_address(node[:size])), port))
    return tuple(found[:MAX_NODES])
