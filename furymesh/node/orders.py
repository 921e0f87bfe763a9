"""Downloads that were handed to the node: one small file each, until they are done.

``<data_dir>/orders/<file-id>.json`` (0600, because the link may carry a key).
The progress itself is resume data like any other.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from furymesh.core.errors import EnvironmentFault, FuryMeshError, UsageError
from furymesh.core.ids import FileId
from furymesh.core.link import Address, Link, Mirror
from furymesh.core.paths import shown
from furymesh.core.protection import PLAIN, Protection, as_field, content_key_of, from_field
from furymesh.core.sealing import KEY_SIZE
from furymesh.core.secrets import quoted
from furymesh.storage import checked_json
from furymesh.storage.files import (
    atomic_write,
    fsync_dir,
    make_private_directory,
    read_bytes,
    translating,
)

DIRECTORY = "orders"
MAX_ORDER = 64 * 1024  # a link of the greatest length and some paths
_SHA256 = re.compile(r"[0-9a-fA-F]{64}")


@dataclass(frozen=True, slots=True)
class DetachedOrder:
    """What `get --detach` asked for."""

    link: Link
    output: Path | None = None
    peers: tuple[Address, ...] = ()
    overwrite: bool = False
    sha256: str | None = None
    mirrors: tuple[Mirror, ...] = ()  # named by the user, besides those of the link

    def encode(self) -> dict[str, Any]:
        return {
            "link": self.link.text,
            "output": str(self.output) if self.output else None,
            "peers": [str(peer) for peer in self.peers],
            "overwrite": self.overwrite,
            "sha256": self.sha256,
            "mirrors": [str(mirror) for mirror in self.mirrors],
        }

    @classmethod
    def decode(cls, value: dict[str, Any]) -> DetachedOrder:
        """Read an order from JSON; raises UsageError."""
        try:
            output = value.get("output")
            sha256 = value.get("sha256")
            peers, mirrors = value.get("peers", []), value.get("mirrors", [])
            if not isinstance(peers, list) or not isinstance(mirrors, list):
                raise TypeError("its peers or mirrors are not a list")
            return cls(
                Link.parse(_text(value["link"], "link")),
                _usable_path(output) if output else None,
                tuple(Address.parse(_text(peer, "peer")) for peer in peers),
                bool(value.get("overwrite", False)),
                checked_sha256(_text(sha256, "sha256")) if sha256 else None,
                tuple(Mirror.parse(_text(mirror, "mirror")) for mirror in mirrors),
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise UsageError(f"malformed order: {error}") from None


class Orders:
    """The orders of one data directory. Methods block; all raise EnvironmentFault."""

    def __init__(self, data_dir: Path, protection: Protection = PLAIN) -> None:
        self._directory = data_dir / DIRECTORY
        self._protection = protection

    def add(self, order: DetachedOrder) -> None:
        """Keep an order; raises UsageError for one that is too long."""
        raw = checked_json.encode(self._sealed(order))
        if len(raw) > MAX_ORDER:
            raise UsageError("the order is too long: use a shorter output path or fewer peers")
        make_private_directory(self._directory)
        atomic_write(self._path(order.link.file_id), raw)

    def remove(self, file_id: FileId) -> None:
        """Forget an order, for good: what is done must not be ordered again by a power cut."""
        with translating(self._path(file_id), "remove"):
            try:
                self._path(file_id).unlink()
            except FileNotFoundError:
                return
        fsync_dir(self._directory)

    def list(self, *, certain: bool = False) -> tuple[list[DetachedOrder], list[str]]:
        """The readable orders, and a line for each that is not.

        If `certain`, one that the disk refuses to read raises: it may be good.
        """
        orders, problems = [], []
        with translating(self._directory, "read"):
            paths = sorted(self._directory.glob("*.json")) if self._directory.is_dir() else []
        for path in paths:
            try:
                value, _ = checked_json.decode(read_bytes(path, MAX_ORDER) or b"")
                orders.append(self._opened(DetachedOrder.decode(value), value))
            except (ValueError, RecursionError, FuryMeshError) as error:
                if certain and isinstance(error, EnvironmentFault):
                    raise
                problems.append(
                    f"{shown(str(path))}: not a readable order ({shown(str(error))}); remove it"
                )
        return orders, problems

    def _sealed(self, order: DetachedOrder) -> dict[str, Any]:
        """The order as it is kept: where a passphrase is set its key is not in the link."""
        key, file_id = order.link.key, order.link.file_id
        if key is None or not self._protection.on:
            return order.encode()
        value = replace(order, link=replace(order.link, key=None)).encode()
        return {**value, "key": as_field(self._protection.protect(content_key_of(file_id), key))}

    def _opened(self, order: DetachedOrder, value: dict[str, Any]) -> DetachedOrder:
        """The reverse of `_sealed`; raises ValueError or LocalDataError."""
        if value.get("key") is None:
            return order
        purpose = content_key_of(order.link.file_id)
        key = self._protection.reveal(purpose, from_field(str(value["key"])))
        if len(key) != KEY_SIZE:
            raise ValueError("its key is malformed")
        return replace(order, link=replace(order.link, key=key))

    def _path(self, file_id: FileId) -> Path:
        return self._directory / f"{file_id.hex()}.json"


def checked_sha256(text: str) -> str:
    """`text` if it is a hex SHA-256; raises UsageError."""
    if not _SHA256.fullmatch(text):
        raise UsageError(f"{quoted(text)} is not a SHA-256: expected 64 hex digits")
    return text


def _text(value: object, what: str) -> str:
    if not isinstance(value, str):
        raise TypeError(f"its {what} is not a text")
    return value


def _usable_path(value: object) -> Path:
    """A path that the system can be asked about; raises TypeError or ValueError."""
    text = _text(value, "output")
    if b"\0" in os.fsencode(text):
        raise ValueError("its output has a NUL in it")
    return Path(text)
