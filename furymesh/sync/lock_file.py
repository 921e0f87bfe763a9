"""The lock file on the disk: read with suspicion, written in batches.

Always true: what the file claims of a part was on the disk before it. Updates
wait for each other, because each write is of the whole file.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Mapping

from furymesh.core.errors import EnvironmentFault, UsageError
from furymesh.core.paths import shown
from furymesh.storage.files import atomic_write, open_beneath, translating
from furymesh.sync.folder import Folder
from furymesh.sync.lock_format import (
    MAX_GROWTH,
    MAX_LOCK_SIZE,
    FileState,
    Session,
    Status,
    decode,
    encode,
    encode_file,
)
from furymesh.sync.names import LOCK_NAME
from furymesh.sync.parts import drop_part, is_ours, is_passing, sync_part

BATCH_UPDATES = 150
BATCH_SECONDS = 2.0
# With very many files, this many writes of all of them are enough.
MAX_COUNTED_WRITES = 16

# What lies there can never be read as a lock. Other errors may be gone the next time.
_NO_LOCK = frozenset(
    {errno.ELOOP, errno.EISDIR, errno.EINVAL, errno.ENXIO, errno.EACCES, errno.EPERM}
)

Texts = dict[str, str]  # the JSON of each file, by its name


class LockFile:
    """What a session's lock says on the disk, and what it does not say yet. Methods block."""

    def __init__(self, folder: Folder, clock: Callable[[], float]) -> None:
        self.path = folder.path / LOCK_NAME
        self.session: Session | None = None
        self._folder = folder
        self._clock = clock
        self._texts: Texts = {}  # as last written
        self._changed: set[str] = set()
        self._updates = 0
        self._written_at = 0.0

    def begin(self, session: Session, texts: Texts) -> None:
        """Write the lock of a session, whose `texts` are; raises EnvironmentFault."""
        self.take_up(session, texts)
        # What was written of these before may still have to be synced.
        self._changed = {
            name for name, state in session.files.items() if state.status is Status.IN_PROGRESS
        }
        self._write(session)

    def take_up(self, session: Session, texts: Texts | None = None) -> None:
        """Go on with a session that was read."""
        self.session, self._changed = session, set()
        self._texts = _encode(session.files) if texts is None else texts
        self._updates, self._written_at = 0, self._clock()

    def join(self, files: Mapping[str, FileState]) -> None:
        """Let more files into the session; on the disk as if each was `put`."""
        assert self.session is not None
        self.session.files.update(files)
        self._texts.update(dict.fromkeys(files, ""))
        self._changed.update(files)
        self._updates += len(files)
        self._flush_if_due()

    def put(self, name: str, state: FileState) -> None:
        """Change what is known of a file; on the disk with others, or when it is time."""
        assert self.session is not None
        self.session.files[name] = state
        self._changed.add(name)
        self._updates += 1
        self._flush_if_due()

    def flush(self) -> None:
        """Write what changed since the last time; raises EnvironmentFault."""
        if self.session is not None and self._changed:
            self._write(self.session)

    def try_flush(self) -> None:
        """`flush`; what the disk refuses is in the log, and asked again with the next batch."""
        try:
            self.flush()
        except EnvironmentFault as fault:
            self._folder.warn(str(fault))

    def _flush_if_due(self) -> None:
        due = max(BATCH_UPDATES, len(self._texts) // MAX_COUNTED_WRITES)
        # The clock may jump, both ways.
        if self._updates >= due or abs(self._clock() - self._written_at) >= BATCH_SECONDS:
            self.try_flush()

    def _write(self, session: Session) -> None:
        self._updates, self._written_at = 0, self._clock()
        session.timestamp = self._written_at
        self._sync_parts(session)
        for name in self._changed:
            self._texts[name] = encode_file(name, session.files[name])
        raw = encode(session, self._texts.values())
        if len(raw) > MAX_LOCK_SIZE:
            raise EnvironmentFault(f"cannot write {shown(str(self.path))}: it is too large")
        atomic_write(self.path, raw)
        self._changed.clear()
        self._folder.forget_directories()

    def _sync_parts(self, session: Session) -> None:
        """What the lock is about to claim of files under way has to be on the disk."""
        for name in self._changed:
            state = session.files[name]
            if state.status is Status.IN_PROGRESS and state.transferred_bytes:
                try:
                    sync_part(self._folder, self._folder.place(name))
                except OSError as error:
                    fault = self._folder.fault(name, "sync", error)
                    if is_passing(error):
                        raise fault from error
                    self._folder.warn(f"{fault}: it is sent again")
                    session.files[name] = self._lost(name, state)

    def _lost(self, name: str, state: FileState) -> FileState:
        """The state of a file whose part is not on the disk, whatever later syncs say."""
        status = Status.PENDING
        try:
            drop_part(self._folder, self._folder.place(name))
        except OSError as error:
            self._folder.warn(str(self._folder.fault(name, "remove the part of", error)))
            status = Status.FAILED  # of those no part is gone on from
        return state._replace(status=status, transferred_bytes=0, partial_hash="")


def encode_all(files: Mapping[str, FileState]) -> Texts:
    """The texts of all files of a session; raises UsageError if a lock has no room for them."""
    texts = _encode(files)
    if sum(len(text.encode()) + MAX_GROWTH for text in texts.values()) > MAX_LOCK_SIZE:
        raise UsageError(f"{len(texts):,} files with names this long are too many for one transfer")
    return texts


def read_lock(folder: Folder) -> Session | None:
    """The session in the folder's lock file; None if there is no such file.

    Raises ValueError if it is not to be used, saying why, and EnvironmentFault if
    it could not be read this time: then it is not known to be of no use.
    """
    with translating(folder.path / LOCK_NAME, "read"):
        try:
            fd = open_beneath(folder.root_fd, (LOCK_NAME,), os.O_RDONLY)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno in _NO_LOCK:
                raise ValueError((error.strerror or str(error)).lower()) from None
            raise
        with open(fd, "rb") as file:
            status = os.fstat(fd)
            if not is_ours(status):
                raise ValueError("it is a file of another user")
            if status.st_size > MAX_LOCK_SIZE:
                raise ValueError(f"it is larger than {MAX_LOCK_SIZE} bytes")
            raw = file.read(status.st_size + 1)  # the room is taken before anything is read
    return decode(raw, folder.place)


def _encode(files: Mapping[str, FileState]) -> Texts:
    return {name: encode_file(name, state) for name, state in files.items()}
