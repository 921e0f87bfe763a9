"""Which server a client id is used with: the first one, until another is named.

A server gets whatever the client has. So one that merely answers first, or has
taken an address, is not enough after the first time: its node id is kept here,
and whoever answers has to be that node.
"""

from __future__ import annotations

from pathlib import Path

from furymesh.core.errors import LocalDataError, UsageError
from furymesh.core.ids import NodeId, node_id_text, parse_node_id
from furymesh.core.paths import shown
from furymesh.storage.files import atomic_write, make_private_directory, read_bytes
from furymesh.sync.hash_index import DIRECTORY

MAX_PIN = 256  # bytes; a node id has 52


class ServerPin:
    """The pin of one client id, a line in a file. Methods block."""

    def __init__(self, data_dir: Path, client_id: str) -> None:
        self._path = data_dir / DIRECTORY / f"{client_id}.server"

    def load(self) -> NodeId | None:
        """The server, None before there was one; raises LocalDataError, EnvironmentFault."""
        raw = read_bytes(self._path, MAX_PIN)
        if raw is None:
            return None
        try:
            return parse_node_id(raw.decode("ascii").strip())
        except (UnicodeDecodeError, UsageError):
            raise LocalDataError(
                f"{shown(str(self._path))} names no server: remove it, and name the server"
                " with --server NODE_ID@HOST:PORT"
            ) from None

    def save(self, node_id: NodeId) -> None:
        """Keep the server; raises EnvironmentFault."""
        make_private_directory(self._path.parent)
        atomic_write(self._path, f"{node_id_text(node_id)}\n".encode("ascii"))
