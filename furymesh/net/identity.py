"""This node's identity: one Ed25519 key in one file, made on first use.

The file `<data_dir>/identity.key` holds one line: a format name, the 32-byte
seed in base64 and a checksum, without which a flipped bit would make another
identity. Where a passphrase is set it holds another format name, the node id, the
sealed seed and a checksum instead, so that the id can be told without the
passphrase. A file of before the checksum is good for as long as it lasts.

Invariants: the key exists only in files of mode 0600, from the first system
call on. The file appears whole or not at all, and the key in it never changes: it is
written under a temporary name, synced, and linked into place, and a link does
not replace. So any number of processes that start at once agree on one key, and
a crash leaves either no key or a good one. Only `reprotect` replaces the file,
by rename, by another form of the same key.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from furymesh.core.errors import DiskFullError, EnvironmentFault, LocalDataError, UsageError
from furymesh.core.ids import NodeId, node_id_text, parse_node_id
from furymesh.core.protection import (
    IDENTITY,
    MAX_LINE,
    PLAIN,
    Protection,
    as_field,
    decode_line,
    encode_line,
    from_field,
    is_sealed,
)

FILE_NAME: Final = "identity.key"

_FORMAT: Final = "furymesh-identity-2"
_BARE_FORMAT: Final = "furymesh-identity-1"  # without a checksum
_SEED_SIZE: Final = 32
_SEALED_FORMAT: Final = "furymesh-identity-sealed-1"
# A file that is one byte longer than it may be is already wrong; reading on
# would only serve whoever put a huge one there.
_READ_LIMIT: Final = MAX_LINE + 1
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO


class Identity:
    """The private key of a node and the node id that goes with it."""

    __slots__ = ("node_id", "private")

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self.private: Final = private
        self.node_id: Final = NodeId(private.public_key().public_bytes_raw())

    def sign(self, message: bytes) -> bytes:
        """The 64-byte Ed25519 signature of `message` by this node."""
        return self.private.sign(message)

    def __repr__(self) -> str:
        return f"<Identity {node_id_text(self.node_id)}>"


def load_or_create(data_dir: Path, protection: Protection = PLAIN) -> Identity:
    """The identity kept in `data_dir`, made there if there is none yet.

    A missing directory is made with mode 0700. Raises EnvironmentFault when
    the file cannot be read or made, or others may read it; DiskFullError; and
    LocalDataError when its content is not a key, or `protection` does not open it.
    """
    path = data_dir / FILE_NAME
    with _translating(path):
        _make_directory(data_dir)
        raw = _read(path)
        if raw is None:
            _create(path, protection)
            raw = _read(path)
    if raw is None:
        raise EnvironmentFault(f"{path} was removed while it was being made; try again")
    return _parse(raw, path, protection)


def stored_node_id(data_dir: Path) -> NodeId | None:
    """The id of the identity kept in `data_dir`, sealed or not; None if there is none.

    Raises as `load_or_create` does.
    """
    path = data_dir / FILE_NAME
    with _translating(path):
        raw = _read(path)
    if raw is None:
        return None
    told = _sealed(raw)
    return told[0] if told is not None else _parse(raw, path, PLAIN).node_id


def reprotect(data_dir: Path, old: Protection, new: Protection) -> None:
    """Keep the identity, made if there is none, in the form that `new` gives it.

    The file is replaced whole, or stays. Raises as `load_or_create` does.
    """
    path = data_dir / FILE_NAME
    identity = load_or_create(data_dir, old)
    with _translating(path):
        with _temporary(path, _line(identity.private.private_bytes_raw(), new)) as temporary:
            os.replace(temporary, path)
        _sync_directory(path.parent)


def _read(path: Path) -> bytes | None:
    """The content of the key file, at most `_READ_LIMIT` bytes; None if there is no file."""
    try:
        # Non-blocking, so that a pipe in its place does not hang the node.
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise EnvironmentFault(f"{path} is not a plain file: move it away")
        if status.st_mode & _OTHERS:
            # Not put right silently: the key may have been copied already,
            # and only the user can tell whether that matters.
            raise EnvironmentFault(
                f"other users may read the identity key {path}: run `chmod 600 {path}`, or remove "
                "it to get a new identity if somebody may have copied it"
            )
        return os.read(fd, _READ_LIMIT)
    finally:
        os.close(fd)


def _parse(raw: bytes, path: Path, protection: Protection) -> Identity:
    """The identity in the file's one line; raises LocalDataError."""
    claimed: NodeId | None = None
    told = _sealed(raw)
    if told is not None:
        claimed, sealed = told
        seed = protection.reveal(IDENTITY, sealed)
    else:
        seed = _plain(raw)
    if len(seed) == _SEED_SIZE:
        identity = Identity(Ed25519PrivateKey.from_private_bytes(seed))
        if claimed in (None, identity.node_id):
            return identity
    raise LocalDataError(
        f"the identity key {path} is damaged: restore it from a backup, or remove it to get "
        "a new identity (peers will know this node by another id)"
    )


def _plain(raw: bytes) -> bytes:
    """The seed in a file whose key is not sealed; nothing if the file is damaged."""
    with suppress(ValueError):
        return from_field(*decode_line(raw, _FORMAT, 1))
    with suppress(ValueError):
        seed = from_field(raw.decode("ascii").removeprefix(_BARE_FORMAT + " ").removesuffix("\n"))
        if raw == f"{_BARE_FORMAT} {as_field(seed)}\n".encode("ascii"):
            return seed
    return b""


def _sealed(raw: bytes) -> tuple[NodeId, bytes] | None:
    """Node id and sealed seed of a file whose key is sealed, None for any other."""
    try:
        node_id, sealed = decode_line(raw, _SEALED_FORMAT, 2)
        told = parse_node_id(node_id), from_field(sealed)
    except (ValueError, UsageError):
        return None
    return told if is_sealed(told[1]) else None


def _line(seed: bytes, protection: Protection) -> bytes:
    stored = protection.protect(IDENTITY, seed)
    if is_sealed(stored):
        node_id = Identity(Ed25519PrivateKey.from_private_bytes(seed)).node_id
        return encode_line(_SEALED_FORMAT, node_id_text(node_id), as_field(stored))
    return encode_line(_FORMAT, as_field(seed))


def _create(path: Path, protection: Protection) -> None:
    """Put a new key at `path` unless another process was faster."""
    line = _line(secrets.token_bytes(_SEED_SIZE), protection)
    # Losing the race is as good as winning it: their key is read next.
    with _temporary(path, line) as temporary, suppress(FileExistsError):
        os.link(temporary, path)
    _sync_directory(path.parent)


@contextmanager
def _temporary(path: Path, line: bytes) -> Iterator[Path]:
    """A synced file beside `path` that holds `line`, for as long as the block lasts."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(temporary, flags, 0o600)
    try:
        try:
            rest = line
            while rest:  # a signal or a disk may cut a write short
                rest = rest[os.write(fd, rest) :]
            os.fsync(fd)
        finally:
            os.close(fd)
        yield temporary
    finally:
        with suppress(FileNotFoundError):
            os.unlink(temporary)


def _make_directory(path: Path) -> None:
    """Make `path` and its parents, each durable under its name before anything is in it."""
    for missing in reversed([p for p in (path, *path.parents) if not p.exists()]):
        missing.mkdir(mode=0o700, exist_ok=True)
        _sync_directory(missing.parent)
    path.mkdir(exist_ok=True)  # complains if it is something else


def _sync_directory(path: Path) -> None:
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


@contextmanager
def _translating(path: Path) -> Iterator[None]:
    """Turn the operating system's refusals into our errors, naming the key file."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFullError(
                f"no room for the identity key {path} ({reason})", "free some space"
            ) from error
        if error.errno == errno.ELOOP:
            raise EnvironmentFault(
                f"the identity key {path} is a symbolic link: put the file itself there"
            ) from error
        if error.errno in (errno.EPERM, errno.EOPNOTSUPP):
            raise EnvironmentFault(
                f"cannot keep the identity key {path} ({reason}): its filesystem has to support "
                "hard links and modes; choose another --data-dir"
            ) from error
        raise EnvironmentFault(
            f"cannot use the identity key {path} ({reason}): check the directory and its "
            "permissions, or choose another --data-dir"
        ) from error
