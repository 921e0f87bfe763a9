"""Identifiers: what they are made of and how they are written.

A *file id* is 32 bytes, written as 64 hex digits. It is a capability: who has
it may fetch. A *node id* is an Ed25519 public key, written as 52 base32
characters. A *discovery tag* is derived one way from a file id and is the only
thing that strangers ever see of it.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable
from typing import NewType

from blake3 import blake3

from furymesh.core.errors import AmbiguousIdError, NotFoundError, UsageError
from furymesh.core.secrets import quoted

FileId = NewType("FileId", bytes)
NodeId = NewType("NodeId", bytes)
DiscoveryTag = NewType("DiscoveryTag", bytes)
Process = tuple[NodeId, bytes]  # node id and instance: one run of a node

ID_SIZE = 32
INSTANCE_SIZE = 8
# Eight hex digits are 32 bits: enough to tell a person's downloads apart and
# still short enough to type.
MIN_PREFIX = 8

_TAG_CONTEXT = "furymesh 1 discovery tag"
_INFO_HASH_CONTEXT = "furymesh 1 info-hash"
_PROOF_CONTEXT = "furymesh 1 proof of file id"
_HEX = re.compile(r"[0-9a-f]+")


def parse_file_id(text: str) -> FileId:
    """Read a whole file id (64 hex digits); raises UsageError."""
    lowered = text.strip().lower()
    if len(lowered) != 2 * ID_SIZE or not _HEX.fullmatch(lowered):
        raise UsageError(f"{quoted(text)} is not a file id: expected {2 * ID_SIZE} hex digits")
    return FileId(bytes.fromhex(lowered))


def resolve_prefix(text: str, known: Iterable[FileId], *, what: str, listed: str) -> FileId:
    """Find the one id in `known` that starts with the hex digits of `text`.

    In messages `what` names the collection ("share", "download"), and `listed` the
    command that shows it. A whole id is looked up too. Raises UsageError,
    NotFoundError or AmbiguousIdError.
    """
    lowered = text.strip().lower()
    if not MIN_PREFIX <= len(lowered) <= 2 * ID_SIZE or not _HEX.fullmatch(lowered):
        raise UsageError(
            f"{quoted(text)} is not a file id: give {MIN_PREFIX} to {2 * ID_SIZE} hex digits"
        )
    matches = sorted({file_id for file_id in known if file_id.hex().startswith(lowered)})
    if not matches:
        raise NotFoundError(f"no {what} has an id starting with {lowered}; see `{listed}`")
    if len(matches) > 1:
        shown = ", ".join(match.hex()[:16] for match in matches[:4])
        raise AmbiguousIdError(
            f"{lowered} fits {len(matches)} {what}s ({shown}…): give more digits of the id"
        )
    return matches[0]


def node_id_text(node_id: bytes) -> str:
    """The base32 form of a node id: 52 lower-case characters, no padding."""
    return base64.b32encode(node_id).decode("ascii").rstrip("=").lower()


def parse_node_id(text: str) -> NodeId:
    """Read a node id in base32 form, case ignored; raises UsageError."""
    padded = text.strip().upper()
    padded += "=" * (-len(padded) % 8)
    try:
        raw = base64.b32decode(padded)
    except ValueError:
        raw = b""
    # Re-encoding refuses the spare bits of the last character, so that one
    # node has one spelling.
    if len(raw) != ID_SIZE or node_id_text(raw) != text.strip().lower():
        raise UsageError(f"{quoted(text)} is not a node id: expected 52 characters a-z and 2-7")
    return NodeId(raw)


def discovery_tag(file_id: FileId) -> DiscoveryTag:
    """The tag under which peers look for a share without naming it (32 bytes)."""
    return DiscoveryTag(blake3(file_id, derive_key_context=_TAG_CONTEXT).digest())


def info_hash(tag: DiscoveryTag) -> bytes:
    """The 20 bytes that stand for a discovery tag where BitTorrent's info-hashes do."""
    return blake3(tag, derive_key_context=_INFO_HASH_CONTEXT).digest(length=20)


def access_proof(file_id: FileId, handshake_hash: bytes, *, initiator: bool) -> bytes:
    """Prove knowledge of a file id on one link and in one direction (32 bytes).

    Bound to the handshake hash, so it cannot be replayed on another link, and
    to the role, so it cannot be reflected.
    """
    key = blake3(file_id, derive_key_context=_PROOF_CONTEXT).digest()
    role = b"initiator" if initiator else b"responder"
    return blake3(handshake_hash + role, key=key).digest()
