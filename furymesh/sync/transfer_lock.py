"""What a transfer of many files has reached, kept where it can be taken up again.

Always true: what the lock file claims was on the disk before it, and whatever
it claims is looked for there when a transfer is resumed. So a lock that is
old, foreign or forged costs hashing or sending again, never a wrong byte. One
process at a time works in the folder: it holds the kernel's lock of it.
"""

from __future__ import annotations

import contextlib
import os
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from furymesh.core.errors import EnvironmentFault, UsageError
from furymesh.core.paths import shown
from furymesh.core.units import MAX_SIZE
from furymesh.storage.files import fsync_dir, sweep_temporaries, translating
from furymesh.storage.lock import lock_open_file
from furymesh.storage.resume_reader import current_boot_id
from furymesh.sync.folder import Folder
from furymesh.sync.found import file_digest, finished_state
from furymesh.sync.lock_file import LockFile, encode_all, read_lock
from furymesh.sync.lock_format import (
    MAX_FILES,
    MAX_TEXT,
    VERSION,
    FileState,
    IncomingFile,
    Session,
    Status,
    incoming_states,
    is_hash,
    is_size,
)
from furymesh.sync.names import LOCK_NAME
from furymesh.sync.parts import drop_parts
from furymesh.sync.plan import ResumePlan, make_plan, resumable, take_up

STALE_SECONDS = 24 * 3600  # a sender that was away for longer has other files by now


class TransferLockManager:
    """The lock file of one folder. Methods block; one thread at a time.

    Closed by `close`, or by `cleanup_on_completion` when everything has arrived.
    """

    LOCK_FILE_NAME = LOCK_NAME
    LOCK_VERSION = VERSION

    def __init__(
        self,
        working_dir: str | os.PathLike[str] = ".",
        *,
        distinct_parts: bool = False,
        clock: Callable[[], float] = time.time,
        boot_id: bytes | None = None,
    ) -> None:
        """`clock` gives seconds since 1970; `boot_id` 16 bytes, of this boot if None.

        With `distinct_parts` any file may be called ``name.part``: see `furymesh.sync.names`.
        """
        self.folder = Folder(working_dir, clock, distinct_parts=distinct_parts)
        self.working_dir = self.folder.path
        self._file = LockFile(self.folder, clock)
        self.lock_file_path = self._file.path
        self._clock = clock
        boot = current_boot_id() if boot_id is None else boot_id
        self._boot_id = boot.hex() if any(boot) else ""  # "" is like no other

    @property
    def lock_data(self) -> Session | None:
        """The session under way, None before there is one."""
        return self._file.session

    def __enter__(self) -> TransferLockManager:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- sessions -------------------------------------------------------------

    def create_lock_file(
        self, sender_ip: str, file_list: Iterable[IncomingFile], total_size: int
    ) -> str:
        """Begin a transfer of these files, `total_size` bytes; returns its UUID.

        Parts that others left are removed. Raises InvalidManifestError and
        UsageError for files that cannot be received, or are too many for one
        lock, AlreadyRunningError, and EnvironmentFault.
        """
        states = incoming_states(file_list, self.folder.place)
        if not is_size(total_size):
            raise UsageError(f"{total_size} bytes cannot be transferred")
        self._hold()
        session = Session(
            str(uuid.uuid4()),
            self._clock(),
            shown(sender_ip)[:MAX_TEXT],
            total_size,
            self._boot_id,
            states,
        )
        texts = encode_all(session.files)
        self._drop_parts(states.keys() | _unfinished(self.lock_data))
        self._file.begin(session, texts)
        return session.session_id

    def load_existing_lock(self) -> bool:
        """Take up the session in the lock file; False if there is none of use.

        Why it is of no use is in the log; one that is older than 24 hours is
        removed, with its parts. Raises AlreadyRunningError, and EnvironmentFault if
        there is no such folder, or the lock could not be read this time.
        """
        self._hold()
        self._file.session = None
        with contextlib.suppress(EnvironmentFault):  # who was killed left them
            sweep_temporaries(self.working_dir, LOCK_NAME)
        try:
            session = read_lock(self.folder)
        except ValueError as error:
            self.folder.warn(f"the transfer lock was not used: {error}")
            return False
        if session is None:
            return False
        # One of the future is of a clock that was set back: what it says is checked anyway.
        if self._clock() - session.timestamp > STALE_SECONDS:
            self.folder.warn("the transfer lock was older than 24 hours and was removed")
            self._drop_parts(_unfinished(session))
            with contextlib.suppress(OSError):
                self.lock_file_path.unlink()
            return False
        self._file.take_up(session)
        return True

    def cleanup_on_completion(self) -> None:
        """Remove the lock file and what parts there are, and let others into the folder."""
        session, self._file.session = self._file.session, None
        try:
            self._drop_parts(_unfinished(session))
            with translating(self.lock_file_path, "remove"), contextlib.suppress(FileNotFoundError):
                self.lock_file_path.unlink()
            fsync_dir(self.working_dir)
            sweep_temporaries(self.working_dir, LOCK_NAME)
        except EnvironmentFault as fault:
            self.folder.warn(str(fault))  # who finds it sees that everything is there
        self.close()

    def close(self) -> None:
        """Write what was not yet written, and let others into the folder."""
        try:
            self._file.try_flush()
        finally:
            self.folder.close()

    # --- resuming -------------------------------------------------------------

    def get_resume_plan(self, incoming_files: Iterable[IncomingFile]) -> ResumePlan:
        """What of these files is here, by the lock and by what lies in the folder.

        If anything is, the session goes on with exactly these files. A file
        counts as the same if its SHA-256 is, or if that is not known its size
        and time. Raises InvalidManifestError, UsageError, EnvironmentFault.
        """
        incoming = incoming_states(incoming_files, self.folder.place)
        known = self.lock_data
        with translating(self.working_dir, "look at what is in"):
            plan = make_plan(self.folder, self.get_state, incoming, same_boot=self._is_same_boot)
        if known and plan["action"] == "resume":
            size = _total_size(incoming)
            session = replace(known, files=incoming, boot_id=self._boot_id, total_size=size)
            texts = encode_all(session.files)
            partial = dict(plan["resume_files"])
            self._drop_parts((incoming.keys() | _unfinished(known)) - partial.keys())
            self._file.begin(session, texts)
        return plan

    def add_files(self, file_list: Iterable[IncomingFile], sender_ip: str = "") -> ResumePlan:
        """Let more files join the session, which is begun if there is none.

        What is here of them is looked for as by `get_resume_plan`; what the lock says
        of others stays. It is for the caller that no two names are one on some file
        system. Raises InvalidManifestError and UsageError for files that cannot be
        received, AlreadyRunningError, and EnvironmentFault.
        """
        joining = incoming_states(file_list, self.folder.place)
        session = self.lock_data
        if session is None:
            self.create_lock_file(sender_ip, [], 0)
            session = self._session
        if len(session.files.keys() | joining.keys()) > MAX_FILES:
            raise UsageError(f"more than {MAX_FILES:,} files are too many for one transfer")
        with translating(self.working_dir, "look at what is in"):
            if session.boot_id != self._boot_id:
                for name in _unfinished(session):
                    take_up(self.folder, name, session.files[name], same_boot=False)
                session.boot_id = self._boot_id
            plan = make_plan(self.folder, self.get_state, joining, same_boot=self._is_same_boot)
        partial = dict(plan["resume_files"])
        self._drop_parts(joining.keys() - partial.keys())
        session.total_size = _total_size(session.files | joining)
        self._file.join(joining)
        return plan

    def get_resume_bytes(self, filename: str) -> int:
        """How many bytes of a file are in its part and can be gone on from.

        Raises EnvironmentFault if the moment is bad.
        """
        state = self._state(filename)
        with translating(self.working_dir / filename, "take up"):
            return resumable(self.folder, filename, state, self._is_same_boot)

    def get_state(self, filename: str) -> FileState | None:
        """What the lock says of a file, None if nothing."""
        session = self._file.session
        return session.files.get(filename) if session else None

    def verify_source_files_unchanged(self, source_file_paths: Mapping[str, str]) -> list[str]:
        """The names of source files that are gone or have another SHA-256 than in the lock.

        They are marked to be transferred afresh, and named in the log. Raises
        EnvironmentFault if the moment is bad.
        """
        changed = []
        for name, path in source_file_paths.items():
            state = self._state(name)
            with translating(path, "read"):
                if state.original_hash and file_digest(path) == state.original_hash:
                    continue
            changed.append(name)
            self.folder.warn(f"{name} has changed since the transfer began: it is sent again")
            self._drop_parts([name])
            unknown = FileState(Status.PENDING, state.size, "", 0, "", state.last_modified)
            self._file.put(name, unknown)
        return changed

    # --- progress -------------------------------------------------------------

    def update_file_status(
        self,
        filename: str,
        status: str,
        transferred_bytes: int,
        partial_hash: str | None = None,
    ) -> None:
        """Note how far a file is; `partial_hash` is the SHA-256 of what was transferred.

        Written with others: after 150 updates (more if there are thousands of
        files) or 2 seconds. A disk that refuses is for the log, and is asked
        again with the next batch. Raises UsageError.
        """
        state = self._state(filename)
        try:
            known = Status(status)
        except ValueError:
            raise UsageError(f'"{shown(status)}" is no status of a file') from None
        if not 0 <= transferred_bytes <= state.size:
            raise UsageError(f"{transferred_bytes} bytes of {state.size} cannot be transferred")
        digest = partial_hash or ""
        if not is_hash(digest):
            raise UsageError(f'"{shown(digest)}" is no SHA-256 in hexadecimal digits')
        self._file.put(
            filename,
            state._replace(
                status=known, transferred_bytes=transferred_bytes, partial_hash=digest, facts=None
            ),
        )

    def complete(self, filename: str, saved_as: str, digest: str, status: os.stat_result) -> None:
        """Note that a file of this digest has its final name, and what the disk says of it."""
        self._file.put(
            filename, finished_state(self._state(filename), filename, saved_as, digest, status)
        )

    def flush(self) -> None:
        """Make everything noted so far durable.

        Of a file under way the part is synced first. If that fails, what was
        written of it counts as lost, and the file is pending again. Raises
        EnvironmentFault if the lock itself cannot be written.
        """
        self._file.flush()

    # --- within ---------------------------------------------------------------

    def _hold(self) -> None:
        """Keep other processes out; the lock ends with the root's descriptor."""
        with translating(self.working_dir, "open"):
            root = self.folder.root_fd
        try:
            lock_open_file(root, self.working_dir, what="received into")
        except BaseException:
            self.folder.close()
            raise

    @property
    def _is_same_boot(self) -> bool:
        """Whether what was written since the lock was is still there."""
        session = self._file.session
        return session is not None and bool(self._boot_id) and session.boot_id == self._boot_id

    @property
    def _session(self) -> Session:
        session = self._file.session
        assert session is not None
        return session

    def _state(self, filename: str) -> FileState:
        state = self.get_state(filename)
        if state is None:
            raise UsageError(f"{shown(filename)} is not among the files of this transfer")
        return state

    def _drop_parts(self, names: Iterable[str]) -> None:
        with translating(self.working_dir, "remove old parts from"):
            drop_parts(self.folder, names)


def _unfinished(session: Session | None) -> set[str]:
    files = session.files if session else {}
    return {name for name, state in files.items() if state.status is not Status.COMPLETED}


def _total_size(files: Mapping[str, FileState]) -> int:
    return min(sum(state.size for state in files.values()), MAX_SIZE)
