"""Which node a client id belongs to: the first one that used it.

Always true: an id that is in the book is nobody else's, and two ids never name
one folder on any file system. A book that cannot be read lets nobody in: an empty
one would give every folder away.
"""

from __future__ import annotations

import os
from pathlib import Path

from furymesh.core.errors import InvalidManifestError, LocalDataError, UsageError
from furymesh.core.ids import NodeId, node_id_text, parse_node_id
from furymesh.core.paths import check_path, folded, shown
from furymesh.storage import checked_json
from furymesh.storage.files import (
    atomic_write,
    make_private_directory,
    open_directory_beneath,
    open_root,
    read_bytes,
    sweep_temporaries,
    translating,
)
from furymesh.storage.lock import FileLock
from furymesh.sync.hash_index import state_path
from furymesh.sync.names import is_reserved

MAX_ID = 64  # characters; it is typed by people, and read in every line of a server's log
# Identities cost nothing. This keeps what strangers can claim small, and is a large household.
MAX_CLIENTS = 1000
MAX_PER_NODE = 16
_MAX_BOOK = MAX_CLIENTS * 1024  # bytes; a client has at most some 900


def check_client_id(text: str) -> str:
    """`text` if it can name a folder anywhere; raises UsageError."""
    try:
        good = len(check_path(text)) == 1 and len(text) <= MAX_ID and text[0] not in ".-~"
    except InvalidManifestError:
        good = False
    if not good or is_reserved(text):
        raise UsageError(
            f'"{shown(text[:MAX_ID])}" cannot be a client id: use up to {MAX_ID} letters,'
            " digits, - and _, like my-laptop"
        )
    return text


class ClientBook:
    """The clients of one archive. Methods block."""

    def __init__(self, archive: Path, data_dir: Path) -> None:
        """`archive` is the folder that holds the folders of all clients."""
        self._archive = Path(archive).resolve()
        self.path = state_path(data_dir, self._archive, "clients")

    def claim(self, client_id: str, node_id: NodeId) -> Path:
        """The folder of a client, made if it is missing; from now on the id is this node's.

        Raises UsageError for an id that is malformed or belongs to another node,
        LocalDataError for a damaged book, AlreadyRunningError, EnvironmentFault.
        """
        check_client_id(client_id)
        with FileLock(self.path.with_suffix(".lock"), what="being changed"):
            book = self._load()
            if book.get(client_id) != node_id:
                self._add(book, client_id, node_id)
        with translating(self._archive / client_id, "create"):
            self._make_folder(client_id)
        return self._archive / client_id

    def _add(self, book: dict[str, NodeId], client_id: str, node_id: NodeId) -> None:
        other = next((known for known in book if folded(known) == folded(client_id)), None)
        if other is not None:
            raise UsageError(
                f'the client id "{shown(other)}" belongs to another node: choose another one'
                if other == client_id
                else f'there is a client "{shown(other)}" already: choose another client id'
            )
        if len(book) >= MAX_CLIENTS or list(book.values()).count(node_id) >= MAX_PER_NODE:
            raise UsageError("this server has as many clients as it takes: use an id of before")
        book[client_id] = node_id
        make_private_directory(self.path.parent)
        sweep_temporaries(self.path.parent, self.path.name)
        atomic_write(self.path, _encode(book))

    def _load(self) -> dict[str, NodeId]:
        raw = read_bytes(self.path, _MAX_BOOK)
        try:
            return {} if raw is None else _decode(raw)
        except (ValueError, UsageError) as error:
            raise LocalDataError(
                f"the list of clients {shown(str(self.path))} is damaged ({shown(str(error))}):"
                " delete it, and whoever comes first under an id has it from then on"
            ) from None

    def _make_folder(self, client_id: str) -> None:
        """Raises OSError, for a link that has the name too."""
        root = open_root(self._archive)
        try:
            os.close(open_directory_beneath(root, (client_id,), make=True))
        finally:
            os.close(root)


def _encode(book: dict[str, NodeId]) -> bytes:
    return checked_json.encode(
        {client_id: node_id_text(node_id) for client_id, node_id in book.items()}
    )


def _decode(raw: bytes) -> dict[str, NodeId]:
    """Raises ValueError and UsageError."""
    try:
        value, checked = checked_json.decode(raw)
    except RecursionError:
        value, checked = None, False
    if not checked or not isinstance(value, dict):
        raise ValueError("its checksum is wrong")
    book = {}
    for client_id, node_id in value.items():
        if not isinstance(node_id, str):
            raise ValueError("a node id is missing")
        book[check_client_id(client_id)] = parse_node_id(node_id)
    return book
