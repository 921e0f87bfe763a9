"""Writing one file as it arrives: to ``name.part``, and to its name when it is whole.

Always true: `written` bytes at the start of the part are those that were
passed in, and `hasher` has seen them. Nothing is held open between calls but
directories. When the part is whole, `furymesh.sync.completion` takes over.

What the disk refuses is one line in ``transfer_warnings.log`` and in `error`:
nothing of that call counts, and it may be tried again.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from furymesh.core.errors import EnvironmentFault, FuryMeshError, UsageError
from furymesh.core.paths import shown
from furymesh.storage.files import write_at
from furymesh.sync.completion import Completion
from furymesh.sync.folder import Folder
from furymesh.sync.found import hash_into
from furymesh.sync.group_commit import GroupCommit
from furymesh.sync.lock_format import Status
from furymesh.sync.parts import create_part, drop_part, is_passing, open_part
from furymesh.sync.transfer_lock import TransferLockManager


class FileWriter:
    """One file below a folder, written front to back. Methods block.

    `error` is what went wrong last, None if nothing. The rest is as documented:
    `written` bytes are in the part, `hasher` has seen them, `is_complete` is true
    once the final name is durable.
    """

    def __init__(
        self,
        filename: str,
        size: int,
        offset: int,
        lock_manager: TransferLockManager | None = None,
        overwrite_mode: bool = False,
        *,
        expected_hash: str | None = None,
        folder: Folder | None = None,
        commit: GroupCommit | None = None,
        mode: int | None = None,
        mtime_ns: int | None = None,
    ) -> None:
        """A file of `size` bytes that begins at byte `offset` of the unified stream.

        `filename` is relative to the folder: that of the lock manager, or
        `folder`, or the working directory. The SHA-256 that the content must
        have, in hex, is `expected_hash` or the lock's. With `commit` the file is
        made durable and gets its name with others, else by itself. `mode` (its
        permissions) and `mtime_ns` are given to it first, if they are not None.

        Raises InvalidManifestError for a path that is refused, UsageError for
        a size that cannot be, or is not the lock's.
        """
        if size < 0 or offset < 0:
            raise UsageError(f"{shown(filename)} cannot have {size} bytes from byte {offset} on")
        shared = commit or lock_manager
        self.folder = folder or (shared.folder if shared else Folder())
        self.place = self.folder.place(filename)
        state = lock_manager.get_state(filename) if lock_manager else None
        if state and state.size != size:
            raise UsageError(f"{shown(filename)} has {state.size} bytes in the lock, not {size}")
        if expected_hash is None and state:
            expected_hash = state.original_hash
        self.filename = filename
        self.size = size
        self.offset = offset
        self.written = 0
        self.hasher = hashlib.sha256()
        self.is_complete = False
        self.lock_manager = lock_manager
        self.needs_rehash = False
        self.overwrite_mode = overwrite_mode
        self.error: FuryMeshError | None = None
        self._own_folder = folder is None and shared is None
        self._completion = Completion(self, commit, expected_hash or "", mode, mtime_ns)

    @property
    def part_file(self) -> Path:
        """Where the file lies until it is whole."""
        return self.folder.path.joinpath(*self.place.parents, self.place.part)

    @property
    def saved_name(self) -> str:
        """The final name in its directory, "" before it has one."""
        return self._completion.saved_name

    @property
    def saved_as(self) -> Path | None:
        """Where the file lies under its final name, once it has one."""
        name = self.saved_name
        return self.folder.path.joinpath(*self.place.parents, name) if name else None

    @property
    def retries(self) -> int:
        """How often the whole file was wrong, or lost, and began afresh."""
        return self._completion.retries

    @property
    def has_failed(self) -> bool:
        """Whether that was too often: the file is given up."""
        return self._completion.has_failed

    # --- writing --------------------------------------------------------------

    def open_for_writing(self, resume_bytes: int = 0) -> None:
        """Make ready, going on after the first `resume_bytes` if the part has just these.

        They are hashed when the first chunk comes, or now if nothing is missing.
        A part of another size begins afresh: see `written`.
        """
        try:
            self.folder.directory(self.place.parents, make=True)
            if resume_bytes > 0:
                self._take_up(resume_bytes)
            if self.written == self.size:
                self.complete_file()
        except OSError as error:
            self.refused("begin", error)
        finally:
            self._let_go()

    def write_chunk(self, data: bytes | bytearray | memoryview) -> int:
        """Write the bytes that come next; returns how many were, in bytes.

        What goes beyond the file's size is left for the next file. 0 after an
        error, and if what was there before turns out to be wrong: `written`
        says from where the file is to be sent. The last byte completes it.
        """
        chunk = memoryview(data)[: self.size - self.written]
        if not chunk or self.is_complete or self.has_failed:
            return 0
        try:
            fd = self._open_part("write")
            if fd is None:
                return 0
            try:
                if self.needs_rehash and not self._ensure_resume_hash(fd):
                    return 0
                write_at(fd, chunk, self.written)
                # What comes in one piece and has a digest to match is hashed once, read back.
                if self.written or len(chunk) < self.size or not self._completion.expected_hash:
                    self.hasher.update(chunk)
                self.written += len(chunk)
                self.error = None
                if self.written == self.size:
                    self._completion.begin(fd)
                elif not self.tell(Status.IN_PROGRESS):
                    return 0
            finally:
                os.close(fd)
        except OSError as error:
            self.refused("write", error)
            return 0
        finally:
            self._let_go()
        return len(chunk)

    def complete_file(self) -> None:
        """Check the whole part and give it its name; called when the last byte is written.

        If its digest is wrong the file is to be sent again from its start, up to
        three times; then it has failed, and its part is removed.
        """
        if self.is_complete or self._completion.waiting:
            return
        if self.written < self.size:
            raise UsageError(f"{shown(self.filename)} lacks {self.size - self.written} bytes")
        try:
            fd = self._open_part("finish")
            if fd is None:
                return
            try:
                if not self.needs_rehash or self._ensure_resume_hash(fd):
                    self.error = None
                    self._completion.begin(fd)
            finally:
                os.close(fd)
        except OSError as error:
            self.refused("finish", error)
        finally:
            self._let_go()

    def reset_for_retry(self) -> None:
        """Begin afresh: forget what was written, remove the part."""
        self.written = 0
        self.hasher = hashlib.sha256()
        self.needs_rehash = False
        self._completion.waiting = False
        status = Status.PENDING
        try:
            drop_part(self.folder, self.place)
        except OSError as error:
            self.refused("begin", error)
            status = Status.FAILED  # of those no part is gone on from
        self.tell(status)
        self._let_go()

    def needs_data(self, stream_position: int) -> bool:
        """Whether the byte at this position of the unified stream is missing here."""
        return (
            not self.is_complete
            and not self.has_failed
            and self.offset + self.written <= stream_position < self.offset + self.size
        )

    def get_hash(self) -> str:
        """The SHA-256 of what was written so far, in hex."""
        return self.hasher.hexdigest()

    def close(self) -> None:
        """Nothing is open between calls."""

    # --- for the completion ---------------------------------------------------

    def tell(self, status: Status) -> bool:
        """Note in the lock how far the file is; False if what was written is lost meanwhile."""
        lock = self.lock_manager
        if lock is None or lock.get_state(self.filename) is None:
            return True
        digest = self.get_hash() if self.written else None
        lock.update_file_status(self.filename, status, self.written, digest)
        state = lock.get_state(self.filename)
        if state is None or state.transferred_bytes == self.written:
            return True
        # The disk has lost it while the lock was made durable, which the log tells.
        self.reset_for_retry()
        self.error = self.part_is_gone("sync")
        return False

    def refused(self, action: str, error: OSError) -> None:
        """Note an error of the system."""
        fault = self.folder.fault(self.filename, action, error)
        self.error = fault
        self.folder.warn(str(fault))

    def part_is_gone(self, action: str) -> EnvironmentFault:
        """What there is to say when there is no part to go on from."""
        name = shown(self.filename)
        return EnvironmentFault(f"cannot {action} {name}: its part was lost or changed")

    # --- within ---------------------------------------------------------------

    def _open_part(self, action: str) -> int | None:
        """The part; None if there is none to go on from any more."""
        if not self.written:
            return create_part(self.folder, self.place)
        fd = open_part(self.folder, self.place)
        if fd is None:
            self.reset_for_retry()
            self.error = self.part_is_gone(action)
        return fd

    def _take_up(self, resume_bytes: int) -> None:
        fd = open_part(self.folder, self.place)
        here = 0
        if fd is not None:
            here = os.fstat(fd).st_size
            os.close(fd)
        if here == resume_bytes <= self.size:
            self.written, self.needs_rehash = resume_bytes, True
        else:
            self._warn(f"its part has {here} bytes instead of {resume_bytes}: it begins afresh")
            self.reset_for_retry()

    def _ensure_resume_hash(self, fd: int) -> bool:
        """Hash what an earlier run wrote; False if it is not what the lock vouches for."""
        hasher = hashlib.sha256()
        vouched, digest = 0, ""
        state = self.lock_manager.get_state(self.filename) if self.lock_manager else None
        if state and state.partial_hash and state.transferred_bytes <= self.written:
            vouched, digest = state.transferred_bytes, state.partial_hash
        try:
            read = hash_into(hasher, fd, 0, vouched)
            sound = not digest or hasher.hexdigest() == digest
            read += hash_into(hasher, fd, read, self.written)
        except OSError as error:
            if is_passing(error):
                raise
            sound = False
        if not sound or read != self.written:
            self._warn("its part is not what was received: it begins afresh")
            self.reset_for_retry()
            self.error = self.part_is_gone("go on with")
            return False
        self.hasher, self.needs_rehash = hasher, False
        return True

    def _warn(self, what: str) -> None:
        self.folder.warn(f"{self.filename}: {what}")

    def _let_go(self) -> None:
        if self._own_folder:
            self.folder.close()
