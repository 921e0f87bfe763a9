"""The passphrase over the keys of a data directory: opening, setting, removing.

``<data_dir>/passphrase.key`` holds the master key, sealed with the passphrase
(`furymesh.core.protection`); the identity, the catalog, orders and resume data
hold their keys sealed with the master key.

Always true: passphrase.key is there before the first key is sealed with what is
in it, and goes after the last one was opened. So a crash in the middle of a
change leaves keys that are sealed beside keys that are not, and all of them can
be read; the same command again finishes it.

Whoever uses keys holds a shared flock of the data directory, and a change the
exclusive one, so nobody writes keys in a form that has just been given up.
"""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from furymesh.core.errors import (
    AlreadyRunningError,
    LocalDataError,
    NotFoundError,
    PassphraseNeededError,
    UsageError,
)
from furymesh.core.protection import (
    KEY_SIZE,
    MAX_LINE,
    PLAIN,
    SALT_SIZE,
    Protection,
    content_key_of,
    unwrap_master,
    wrap_master,
)
from furymesh.net import identity
from furymesh.node import leftovers
from furymesh.node.config import Config
from furymesh.node.orders import Orders
from furymesh.node.secret_file import read_secret
from furymesh.storage.catalog import Catalog
from furymesh.storage.files import (
    atomic_write,
    fsync_dir,
    make_private_directory,
    open_root,
    read_bytes,
    sweep_temporaries,
    translating,
)
from furymesh.storage.lock import DownloadLock
from furymesh.storage.resume import ResumeData, ResumeMeta, list_all, peek

FILE_NAME = "passphrase.key"
VARIABLE = "FURYMESH_PASSPHRASE_FILE"
NEW_VARIABLE = "FURYMESH_NEW_PASSPHRASE_FILE"
MAX_PASSPHRASE = 1024  # characters


def is_set(config: Config) -> bool:
    """Whether a passphrase is needed to use the keys of the data directory."""
    return os.path.lexists(_place(config))


def passphrase_in_file(config: Config) -> str | None:
    """The passphrase in the file of $FURYMESH_PASSPHRASE_FILE, else of the configuration.

    None if neither names one. Raises EnvironmentFault, UsageError.
    """
    return _in_file(VARIABLE) or _configured(config)


def new_passphrase_in_file() -> str | None:
    """The passphrase to change to, in the file of $FURYMESH_NEW_PASSPHRASE_FILE."""
    return _in_file(NEW_VARIABLE)


def checked_passphrase(text: str) -> str:
    """`text` if it will do as a passphrase; raises UsageError."""
    if not text:
        raise UsageError("the passphrase is empty: give one of several words")
    if len(text) > MAX_PASSPHRASE:
        raise UsageError(f"the passphrase is longer than {MAX_PASSPHRASE} characters")
    return text


@contextmanager
def opened_protection(config: Config, passphrase: str | None = None) -> Iterator[Protection]:
    """What the keys in the data directory are sealed with, for as long as the block lasts.

    Without `passphrase` a file that is named for it is read. Takes a third of a
    second where one is set. Raises PassphraseNeededError, PassphraseError,
    LocalDataError, EnvironmentFault, and AlreadyRunningError during a change.
    """
    make_private_directory(config.data_dir)
    with _flocked(config.data_dir, fcntl.LOCK_SH, "its passphrase is being changed; try again"):
        master = _master(config, passphrase)
        yield PLAIN if master is None else Protection(master)


def set_passphrase(config: Config, new: str, current: str | None = None) -> None:
    """Seal the keys of the data directory with a passphrase, or change it.

    Raises as `opened_protection` does; AlreadyRunningError also while a node or
    a download uses the keys.
    """
    checked_passphrase(new)
    with _changing(config):
        master = _master(config, current)
        if master is None:
            master = secrets.token_bytes(KEY_SIZE)
        line = wrap_master(master, new, secrets.token_bytes(SALT_SIZE))
        atomic_write(_place(config), line)
        protection = Protection(master)
        _reprotect(config, protection, protection)


def remove_passphrase(config: Config, current: str | None = None) -> None:
    """Keep the keys of the data directory open again; raises as `set_passphrase` does."""
    with _changing(config):
        master = _master(config, current)
        if master is None:
            raise NotFoundError("no passphrase is set in this data directory: nothing to remove")
        _reprotect(config, Protection(master), PLAIN)
        with translating(_place(config), "remove"):
            _place(config).unlink()
        fsync_dir(config.data_dir)


# --- every key, one after the other ---------------------------------------------------


def _reprotect(config: Config, old: Protection, new: Protection) -> None:
    """Keep every key in the form that `new` gives it; what is damaged stays.

    What the disk refuses to read may be good: that ends the change.
    """
    identity.reprotect(config.data_dir, old, new)
    theirs = Catalog(config.data_dir, new)
    for entry in Catalog(config.data_dir, old).list(certain=True).entries:
        if entry.key is not None:
            theirs.rewrite(entry)
    orders, _ = Orders(config.data_dir, old).list(certain=True)
    for order in orders:
        Orders(config.data_dir, new).add(order)
    for item in list_all(config.transfer.resume_dir):
        with suppress(NotFoundError, LocalDataError):
            found = peek(item.path)
            if found.meta.key is not None:
                _reprotect_resume(config.transfer.resume_dir, found.meta, old, new)
    _sweep(config)


def _reprotect_resume(directory: Path, meta: ResumeMeta, old: Protection, new: Protection) -> None:
    assert meta.key is not None
    purpose = content_key_of(meta.file_id)
    key = new.protect(purpose, old.reveal(purpose, meta.key))
    with DownloadLock(directory, meta.file_id) as lock:
        lock.acquire("furymesh id")
        with ResumeData.load(directory, meta.file_id) as resume:
            resume.update_meta(key=key)


def _sweep(config: Config) -> None:
    """Remove the temporary files that crashes left: they may hold keys in the other form."""
    leftovers.sweep(config)
    sweep_temporaries(config.data_dir, FILE_NAME)
    with translating(config.data_dir, "clean up"):
        # Nobody writes one now, because all who write keys hold the flock.
        for path in config.data_dir.glob(f".{identity.FILE_NAME}.*"):
            path.unlink(missing_ok=True)


# --- helpers --------------------------------------------------------------------------


def _place(config: Config) -> Path:
    return config.data_dir / FILE_NAME


def _master(config: Config, passphrase: str | None) -> bytes | None:
    """The master key, None where no passphrase is set."""
    raw = read_bytes(_place(config), MAX_LINE)
    if raw is None:
        return None
    passphrase = passphrase or passphrase_in_file(config)
    if passphrase is None:
        raise PassphraseNeededError(
            "the keys here are sealed with a passphrase and there is no terminal to ask for it:"
            f" name a file that holds it in ${VARIABLE} or encryption.passphrase_file"
        )
    return unwrap_master(raw, passphrase)


@contextmanager
def _changing(config: Config) -> Iterator[None]:
    make_private_directory(config.data_dir)
    busy = "a node or a download uses the keys in it: stop it first, then try again"
    with _flocked(config.data_dir, fcntl.LOCK_EX, busy):
        yield


@contextmanager
def _flocked(directory: Path, kind: int, busy: str) -> Iterator[None]:
    fd = open_root(directory)
    try:
        with translating(directory, "lock"):
            try:
                fcntl.flock(fd, kind | fcntl.LOCK_NB)
            except BlockingIOError:
                raise AlreadyRunningError(f"the data directory is in use: {busy}") from None
        yield
    finally:
        os.close(fd)


def _in_file(variable: str) -> str | None:
    named = os.environ.get(variable)
    return _read(Path(named), f"${variable}") if named else None


def _configured(config: Config) -> str | None:
    named = config.encryption.passphrase_file
    return _read(named, "encryption.passphrase_file") if named else None


def _read(path: Path, setting: str) -> str:
    raw = read_secret(path, setting)
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise UsageError(f"the file that {setting} names is not UTF-8 text") from None
    return checked_passphrase(text.removesuffix("\n").removesuffix("\r"))
