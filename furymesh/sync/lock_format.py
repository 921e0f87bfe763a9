"""The bytes of ``.transfer_lock.json``: what may stand in it, and how it is written.

Whoever can write into the folder can write one. So nothing in it is believed
that the files themselves do not bear out, and a file with anything in it that
this module would not have written is refused as a whole.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, NamedTuple, NotRequired, TypedDict

from furymesh.core.errors import InvalidManifestError, UsageError
from furymesh.core.paths import check_table
from furymesh.core.units import MAX_SIZE
from furymesh.storage.scan import Facts
from furymesh.sync.names import place_of

VERSION = "1.0"
# Reading takes ten times its size in memory.
MAX_LOCK_SIZE = 64 * 1024 * 1024
# What a file's some 200 bytes and its path grow by: digits, a second hash, facts, a number.
MAX_GROWTH = 250
MAX_FILES = 150_000  # with more of them the shortest paths would not fit
MAX_TEXT = 64  # characters of an address or a time
_HASH = re.compile("(?:[0-9a-f]{64})?")
_json = json.JSONEncoder(ensure_ascii=False).encode  # escapes would make names longer
_TIME = "%Y-%m-%dT%H:%M:%SZ"


class Status(StrEnum):
    """How far a file is."""

    PENDING = "pending"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    FAILED = "failed"


class IncomingFile(TypedDict):
    """A file that a sender announces; sizes in bytes, the hash is its SHA-256 in hex."""

    filename: str
    size: int
    original_hash: NotRequired[str]
    last_modified: NotRequired[str]


class FileState(NamedTuple):
    """What the lock says of one file; hashes are SHA-256 in hex, "" if not known.

    `partial_hash` is that of the first `transferred_bytes`. A finished file may
    be `saved_as` another name in its directory, and had these `facts`.
    """

    status: Status
    size: int
    original_hash: str
    transferred_bytes: int
    partial_hash: str
    last_modified: str
    saved_as: str = ""
    facts: Facts | None = None


@dataclass(slots=True)
class Session:
    """A transfer of many files; `timestamp` is when it was last written, since 1970."""

    session_id: str
    timestamp: float
    sender_ip: str
    total_size: int
    boot_id: str
    files: dict[str, FileState]


def is_size(value: object) -> bool:
    """Whether this can be a number of bytes."""
    return type(value) is int and 0 <= value <= MAX_SIZE


def is_hash(text: str) -> bool:
    """Whether this can be a SHA-256 in hex, or "" for want of one."""
    return _HASH.fullmatch(text) is not None


def incoming_states(
    file_list: Iterable[IncomingFile], check: Callable[[str], object] = place_of
) -> dict[str, FileState]:
    """Every announced file as one of which nothing has arrived.

    `check` raises for a path that cannot be received. Raises InvalidManifestError
    for paths that are refused, alone or together, and UsageError for what is not
    a file's description, or too many of them.
    """
    states = {}
    names = []
    for file in file_list:
        try:
            name, size = file["filename"], file["size"]
            digest, modified = file.get("original_hash", ""), file.get("last_modified", "")
            _check(isinstance(name, str), "filename")
            _check(is_size(size), "size")
            state = FileState(
                Status.PENDING, size, _hash(digest), 0, "", _text(modified, "last_modified")
            )
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise UsageError(
                f"a file to receive is not described as it should be: {error}"
            ) from None
        check(name)
        names.append(name)
        states[name] = state
        if len(names) > MAX_FILES:
            raise UsageError(f"more than {MAX_FILES:,} files are too many for one transfer")
    check_table(names)
    return states


# --- writing ------------------------------------------------------------------


def encode_file(name: str, state: FileState) -> str:
    """One file's part of the JSON.

    Put together by hand: each of thousands is written twice, and only texts from
    outside need an encoder.
    """
    saved_as = f', "saved_as": {_json(state.saved_as)}' if state.saved_as else ""
    facts = f', "facts": {list(state.facts)}' if state.facts else ""
    return (
        f'{_json(name)}: {{"status": "{state.status.value}", "size": {state.size},'
        f' "original_hash": "{state.original_hash}",'
        f' "transferred_bytes": {state.transferred_bytes},'
        f' "partial_hash": "{state.partial_hash}",'
        f' "last_modified": {_json(state.last_modified)}{saved_as}{facts}}}'
    )


def encode(session: Session, files: Iterable[str]) -> bytes:
    """The file; `files` are made by `encode_file`, one for each of the session."""
    head = {
        "version": VERSION,
        "session_id": session.session_id,
        "timestamp": format_time(session.timestamp),
        "sender_ip": session.sender_ip,
        "total_files": len(session.files),
        "total_size": session.total_size,
        "boot_id": session.boot_id,
    }
    body = ",\n".join(files)
    return f'{json.dumps(head)[:-1]}, "files": {{\n{body}\n}}}}\n'.encode()


def format_time(seconds: float) -> str:
    """Seconds since 1970 as the lock writes them: "2024-01-01T12:00:00Z"."""
    # strftime would write the year 1 as "1".
    return f"{datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None).isoformat('T', 'seconds')}Z"


# --- reading ------------------------------------------------------------------


def decode(raw: bytes, check: Callable[[str], object] = place_of) -> Session:
    """The session in a lock file; raises ValueError, saying what is wrong with it.

    `check` raises InvalidManifestError for a path that cannot be received.
    """
    try:
        value = json.loads(raw)
        _check(value["version"] == VERSION, "version")
        files = value["files"]
        _check(isinstance(files, dict), "files")
        _check(type(value["total_files"]) is int and value["total_files"] == len(files), "files")
        _check(is_size(value["total_size"]), "total_size")
        session = Session(
            _uuid(value["session_id"]),
            datetime.strptime(value["timestamp"], _TIME).replace(tzinfo=UTC).timestamp(),
            _text(value["sender_ip"], "sender_ip"),
            value["total_size"],
            _text(value.get("boot_id", ""), "boot_id"),
            {name: _decode_file(name, entry, check) for name, entry in files.items()},
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"it is not a transfer lock ({type(error).__name__})") from None
    except (RecursionError, OverflowError, InvalidManifestError) as error:
        raise ValueError(str(error)) from None
    return session


def _decode_file(name: str, value: Mapping[str, Any], check: Callable[[str], object]) -> FileState:
    check(name)
    size, done = value["size"], value["transferred_bytes"]
    _check(is_size(size), "size")
    _check(is_size(done) and done <= size, "transferred_bytes")
    saved_as = value.get("saved_as", "")
    if saved_as != "":
        # In the file's own directory: one component, and no name of the transfer's own.
        _check(isinstance(saved_as, str) and "/" not in saved_as, "saved_as")
        check(f"x/{saved_as}" if "/" in name else saved_as)
    facts = value.get("facts")
    if facts is not None:
        _check(len(facts) == len(Facts._fields), "facts")
        _check(all(type(fact) is int for fact in facts), "facts")
    return FileState(
        Status(value["status"]),
        size,
        _hash(value["original_hash"]),
        done,
        _hash(value["partial_hash"]),
        _text(value["last_modified"], "last_modified"),
        saved_as,
        Facts(*facts) if facts is not None else None,
    )


def _check(good: bool, what: str) -> None:
    if not good:
        raise ValueError(f"its {what} cannot be")


def _text(value: object, what: str) -> str:
    if not isinstance(value, str) or len(value) > MAX_TEXT or not value.isprintable():
        raise ValueError(f"its {what} cannot be")
    return value


def _hash(value: object) -> str:
    if not isinstance(value, str) or not is_hash(value):
        raise ValueError("its hash cannot be")
    return value


def _uuid(value: str) -> str:
    _check(str(uuid.UUID(value)) == value, "session_id")
    return value
