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

from furymesh.core.errors import EnvironmentFault, UsageError
from furymesh.core.paths import shown
from furymesh.storage.files import (
    atomic_write,
    fsync_dir,
    read_bytes,
    sweep_temporaries,
    translating,
)
from furymesh.storage.lock import lock_open_file
from furymesh.storage.resume_reader import current_boot_id
from furymesh.sync.folder import LOCK_NAME, Folder
from furymesh.sync.found import (
    drop_parts,
    file_digest,
    find_finished,
    finished_state,
    part_size,
    sync_part,
    truncate_part,
)
from furymesh.sync.lock_format import (
    MAX_LOCK_SIZE,
    MAX_TEXT,
    VERSION,
    FileState,
    IncomingFile,
    Session,
    Status,
    decode,
    encode,
    encode_file,
    incoming_states,
    is_hash,
    is_size,
)
from furymesh.sync.plan import ResumePlan, known_content

STALE_SECONDS = 24 * 3600  # a sender that was away for longer has other files by now
BATCH_UPDATES = 150
BATCH_SECONDS = 2.0
# Each write is of the whole lock. With very many files, this many writes of it are enough.
MAX_COUNTED_WRITES = 16


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
        clock: Callable[[], float] = time.time,
        boot_id: bytes | None = None,
    ) -> None:
        """`clock` gives seconds since 1970; `boot_id` 16 bytes, of this boot if None."""
        self.folder = Folder(working_dir, clock)
        self.working_dir = self.folder.path
        self.lock_file_path = self.working_dir / LOCK_NAME
        self._clock = clock
        boot = current_boot_id() if boot_id is None else boot_id
        self._boot_id = boot.hex() if any(boot) else ""  # "" is like no other
        self._session: Session | None = None
        self._texts: dict[str, str] = {}  # the JSON of each file, as last written
        self._changed: set[str] = set()
        self._updates = 0
        self._written_at = 0.0

    @property
    def lock_data(self) -> Session | None:
        """The session under way, None before there is one."""
        return self._session

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
        UsageError for files that cannot be received, AlreadyRunningError, and
        EnvironmentFault.
        """
        states = incoming_states(file_list)
        if not is_size(total_size):
            raise UsageError(f"{total_size} bytes cannot be transferred")
        self._hold()
        self._drop_parts(states)
        session = Session(
            str(uuid.uuid4()),
            self._clock(),
            shown(sender_ip)[:MAX_TEXT],
            total_size,
            self._boot_id,
            states,
        )
        self._begin(session)
        return session.session_id

    def load_existing_lock(self) -> bool:
        """Take up the session in the lock file; False if there is none of use.

        Why it is of no use is in the log; one that is older than 24 hours is
        removed. Raises AlreadyRunningError, and EnvironmentFault if there is no
        such folder.
        """
        self._hold()
        self._session = None
        try:
            raw = read_bytes(self.lock_file_path, MAX_LOCK_SIZE)
            if raw is None:
                return False
            session = decode(raw)
        except (ValueError, EnvironmentFault) as error:
            self.folder.warn(f"the transfer lock was not used: {error}")
            return False
        # One of the future is of a clock that was set back: what it says is checked anyway.
        if self._clock() - session.timestamp > STALE_SECONDS:
            self.folder.warn("the transfer lock was older than 24 hours and was removed")
            with contextlib.suppress(OSError):
                self.lock_file_path.unlink()
            return False
        self._session = session
        self._texts = {name: encode_file(name, state) for name, state in session.files.items()}
        self._changed.clear()
        self._updates, self._written_at = 0, self._clock()
        return True

    def cleanup_on_completion(self) -> None:
        """Remove the lock file, and let others into the folder."""
        self._session = None
        try:
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
            self._try_flush()
        finally:
            self.folder.close()

    # --- resuming -------------------------------------------------------------

    def get_resume_plan(self, incoming_files: Iterable[IncomingFile]) -> ResumePlan:
        """What of these files is here, by the lock and by what lies in the folder.

        If anything is, the session goes on with exactly these files. A file
        counts as the same if its SHA-256 is, or if that is not known its size
        and time. Raises InvalidManifestError, UsageError, EnvironmentFault.
        """
        incoming = incoming_states(incoming_files)
        plan = ResumePlan(
            action="fresh_transfer", completed_files=[], resume_files=[], fresh_files=[]
        )
        for name, state in incoming.items():
            known = known_content(self.get_state(name), state)
            if known is not None and (finished := find_finished(self.folder, name, known)):
                incoming[name] = finished
                plan["completed_files"].append(name)
            elif known is not None and (here := self._resumable(name, known)):
                incoming[name] = known._replace(status=Status.IN_PROGRESS)
                plan["resume_files"].append((name, here))
            else:
                plan["fresh_files"].append(name)
        if self._session and (plan["completed_files"] or plan["resume_files"]):
            plan["action"] = "resume"
            self._drop_parts(plan["fresh_files"])
            # What was not synced before a reboot must not count as if written in this one.
            for name, here in plan["resume_files"]:
                truncate_part(self.folder, name, here)
            self._session.files, self._session.boot_id = incoming, self._boot_id
            self._begin(self._session)
        return plan

    def get_resume_bytes(self, filename: str) -> int:
        """How many bytes of a file are in its part and can be gone on from."""
        state = self._state(filename)
        return 0 if state.status is Status.COMPLETED else self._resumable(filename, state)

    def get_state(self, filename: str) -> FileState | None:
        """What the lock says of a file, None if nothing."""
        return self._session.files.get(filename) if self._session else None

    def verify_source_files_unchanged(self, source_file_paths: Mapping[str, str]) -> list[str]:
        """The names of source files that are gone or have another SHA-256 than in the lock.

        They are marked to be transferred afresh, and named in the log.
        """
        changed = []
        for name, path in source_file_paths.items():
            state = self._state(name)
            if state.original_hash and file_digest(path) == state.original_hash:
                continue
            changed.append(name)
            self.folder.warn(f"{name} has changed since the transfer began: it is sent again")
            self._drop_parts([name])
            self._put(name, FileState(Status.PENDING, state.size, "", 0, "", state.last_modified))
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
        self._put(
            filename,
            state._replace(
                status=known, transferred_bytes=transferred_bytes, partial_hash=digest, facts=None
            ),
        )

    def complete(self, filename: str, saved_as: str, digest: str, status: os.stat_result) -> None:
        """Note that a file of this digest has its final name, and what the disk says of it."""
        self._put(
            filename, finished_state(self._state(filename), filename, saved_as, digest, status)
        )

    def flush(self) -> None:
        """Make everything noted so far durable; raises EnvironmentFault."""
        if self._session is None or not self._changed:
            return
        self._updates, self._written_at = 0, self._clock()
        self._session.timestamp = self._written_at
        self._sync_parts(self._session)
        for name in self._changed:
            self._texts[name] = encode_file(name, self._session.files[name])
        atomic_write(self.lock_file_path, encode(self._session, self._texts.values()))
        self._changed.clear()
        self.folder.forget_directories()

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

    def _begin(self, session: Session) -> None:
        self._session = session
        self._texts = dict.fromkeys(session.files, "")
        self._changed = set(session.files)
        self.flush()

    def _state(self, filename: str) -> FileState:
        state = self.get_state(filename)
        if state is None:
            raise UsageError(f"{shown(filename)} is not among the files of this transfer")
        return state

    def _put(self, filename: str, state: FileState) -> None:
        assert self._session is not None
        self._session.files[filename] = state
        self._changed.add(filename)
        self._updates += 1
        due = max(BATCH_UPDATES, len(self._session.files) // MAX_COUNTED_WRITES)
        # The clock may jump, both ways.
        if self._updates >= due or abs(self._clock() - self._written_at) >= BATCH_SECONDS:
            self._try_flush()

    def _try_flush(self) -> None:
        try:
            self.flush()
        except EnvironmentFault as fault:
            self.folder.warn(str(fault))

    def _sync_parts(self, session: Session) -> None:
        """What the lock is about to claim of files under way has to be on the disk."""
        for name in self._changed:
            state = session.files[name]
            if state.status is Status.IN_PROGRESS and state.transferred_bytes:
                with translating(self.working_dir / name, "sync"):
                    sync_part(self.folder, name)

    def _resumable(self, name: str, state: FileState) -> int:
        """Bytes of a part to go on from: all of it, or what was synced before a reboot."""
        assert self._session is not None
        here = part_size(self.folder, name)
        if not state.transferred_bytes <= here <= state.size:
            return 0
        same_boot = self._boot_id and self._session.boot_id == self._boot_id
        return here if same_boot else state.transferred_bytes

    def _drop_parts(self, names: Iterable[str]) -> None:
        with translating(self.working_dir, "remove old parts from"):
            drop_parts(self.folder, names)
