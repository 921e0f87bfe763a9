"""Writing one file as it arrives: to ``name.part``, and to its name when it is whole.

Always true: `written` bytes at the start of the part are those that were
passed in, and `hasher` has seen them. The final name appears by rename, once
the whole part was read back from the disk's cache with the right digest and
made durable. Nothing is held open between calls but directories.

What the disk refuses is one line in ``transfer_warnings.log`` and in `error`:
nothing of that call counts, and it may be tried again.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from furymesh.core.errors import FuryMeshError, UsageError, VerificationError
from furymesh.core.paths import shown
from furymesh.storage.files import open_beneath, write_at
from furymesh.sync.folder import Folder, part_name, split_path
from furymesh.sync.found import drop_part, hash_into
from furymesh.sync.group_commit import GroupCommit
from furymesh.sync.lock_format import Status
from furymesh.sync.naming import give_name
from furymesh.sync.transfer_lock import TransferLockManager

MAX_RETRIES = 3  # after as many wrong digests the sender, or this disk, is broken
_FILE_MODE = 0o666  # less the umask, as of any file that a user makes
_CREATE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class FileWriter:
    """One file below a folder, written front to back. Methods block.

    `error` is what went wrong last, None if nothing; `saved_as` the final name
    once it `is_complete`; `retries` how often the content was wrong.
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
    ) -> None:
        """A file of `size` bytes that begins at byte `offset` of the unified stream.

        `filename` is relative to the folder: that of the lock manager, or
        `folder`, or the working directory. The SHA-256 that the content must
        have, in hex, is `expected_hash` or the lock's. With `commit` the file is
        made durable and gets its name with others, else by itself.

        Raises InvalidManifestError for a path that is refused, UsageError for
        a size that cannot be.
        """
        if size < 0 or offset < 0:
            raise UsageError(f"{shown(filename)} cannot have {size} bytes from byte {offset} on")
        self._parents, self._name = split_path(filename)
        self._part = part_name(self._name)
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
        self._saved_name = ""
        self.retries = 0
        self._commit = commit
        self._handed_over = False  # whole, and waiting for the commit
        shared = commit or lock_manager
        self._folder = folder or (shared.folder if shared else Folder())
        self._own_folder = folder is None and shared is None
        if expected_hash is None and lock_manager:
            state = lock_manager.get_state(filename)
            expected_hash = state.original_hash if state else None
        self._expected_hash = (expected_hash or "").lower()

    @property
    def part_file(self) -> Path:
        """Where the file lies until it is whole."""
        return self._folder.path.joinpath(*self._parents, self._part)

    @property
    def saved_as(self) -> Path | None:
        """The final name, once it has one."""
        if not self._saved_name:
            return None
        return self._folder.path.joinpath(*self._parents, self._saved_name)

    # --- writing --------------------------------------------------------------

    def open_for_writing(self, resume_bytes: int = 0) -> None:
        """Make ready, going on after the first `resume_bytes` of the part if they are there.

        They are hashed when the first chunk comes, or now if nothing is missing.
        A part of another size begins afresh: see `written`.
        """
        try:
            self._folder.directory(self._parents, make=True)
            if resume_bytes > 0:
                self._take_up(resume_bytes)
            if self.written == self.size:
                self.complete_file()
        except OSError as error:
            self._refused("begin", error)
        finally:
            self._let_go()

    def write_chunk(self, data: bytes | bytearray | memoryview) -> int:
        """Write the bytes that come next; returns how many were, in bytes.

        What goes beyond the file's size is left for the next file. 0 after an
        error, and if what was there before turns out to be wrong: `written`
        says from where the file is to be sent. The last byte completes it.
        """
        chunk = memoryview(data)[: self.size - self.written]
        if not chunk or self.is_complete or self.retries > MAX_RETRIES:
            return 0
        try:
            fd = self._open_part()
            try:
                if self.needs_rehash and not self._ensure_resume_hash(fd):
                    self.reset_for_retry()
                    return 0
                write_at(fd, chunk, self.written)
                # What comes in one piece and has a digest to match is hashed once, read back.
                if self.written or len(chunk) < self.size or not self._expected_hash:
                    self.hasher.update(chunk)
                self.written += len(chunk)
                self.error = None
                if self.written < self.size:
                    self._tell(Status.IN_PROGRESS)
                else:
                    self._complete(fd)
            finally:
                os.close(fd)
        except OSError as error:
            self._refused("write", error)
            if isinstance(error, FileNotFoundError) and self.written:
                self.reset_for_retry()  # the part is gone: there is nothing to go on from
            return 0
        finally:
            self._let_go()
        return len(chunk)

    def complete_file(self) -> None:
        """Check the whole part and give it its name; called when the last byte is written.

        If its digest is wrong the file is to be sent again from its start, up to
        three times; then it has failed, and its part is removed.
        """
        if self.is_complete or self._handed_over:
            return
        if self.written < self.size:
            raise UsageError(f"{shown(self.filename)} lacks {self.size - self.written} bytes")
        try:
            fd = self._open_part()
            try:
                if not self.needs_rehash or self._ensure_resume_hash(fd):
                    self._complete(fd)
                else:
                    self.reset_for_retry()
            finally:
                os.close(fd)
        except OSError as error:
            self._refused("finish", error)
            if isinstance(error, FileNotFoundError):
                self.reset_for_retry()
        finally:
            self._let_go()

    def reset_for_retry(self) -> None:
        """Begin afresh: forget what was written, remove the part."""
        self.written = 0
        self.hasher = hashlib.sha256()
        self.needs_rehash = False
        self._handed_over = False
        try:
            drop_part(self._folder, self.filename)
        except OSError as error:
            self._refused("begin", error)
        self._tell(Status.PENDING)
        self._let_go()

    def needs_data(self, stream_position: int) -> bool:
        """Whether the byte at this position of the unified stream is missing here."""
        return (
            not self.is_complete
            and self.retries <= MAX_RETRIES
            and self.offset + self.written <= stream_position < self.offset + self.size
        )

    def get_hash(self) -> str:
        """The SHA-256 of what was written so far, in hex."""
        return self.hasher.hexdigest()

    def close(self) -> None:
        """Nothing is open between calls."""

    # --- for the commit -------------------------------------------------------

    def place(self) -> bool:
        """Give the part, whose data is durable, its final name; False if that is refused."""
        try:
            name = give_name(self._folder, self.filename, overwrite=self.overwrite_mode)
        except OSError as error:
            self._refused("finish", error)
            self._handed_over = False
            if isinstance(error, FileNotFoundError):
                self.reset_for_retry()
            return False
        self._saved_name = name
        return True

    def finish(self) -> None:
        """Note that the final name is durable too."""
        self.is_complete = True
        self._handed_over = False
        if self.lock_manager and self.lock_manager.get_state(self.filename):
            try:
                directory = self._folder.directory(self._parents)
                status = os.stat(self._saved_name, dir_fd=directory, follow_symlinks=False)
            except OSError:
                return  # somebody took it away already
            self.lock_manager.complete(self.filename, self._saved_name, self.get_hash(), status)

    def lose(self, error: OSError) -> None:
        """Note that the data may not be on the disk, whatever was written: it is sent again."""
        self._refused("sync", error)
        self._saved_name = ""
        self.reset_for_retry()

    # --- within ---------------------------------------------------------------

    def _open_part(self) -> int:
        if self.written:
            directory = self._folder.directory(self._parents)
            return open_beneath(directory, (self._part,), os.O_RDWR)
        try:
            return self._create_part()
        except FileNotFoundError:
            self._folder.forget_directories()  # one of them was removed meanwhile
            return self._create_part()

    def _create_part(self) -> int:
        """A new part: what has its name may be a link, or have other names."""
        directory = self._folder.directory(self._parents, make=True)
        try:
            return os.open(self._part, _CREATE, _FILE_MODE, dir_fd=directory)
        except FileExistsError:
            os.unlink(self._part, dir_fd=directory)
            return os.open(self._part, _CREATE, _FILE_MODE, dir_fd=directory)

    def _take_up(self, resume_bytes: int) -> None:
        directory = self._folder.directory(self._parents)
        try:
            fd = open_beneath(directory, (self._part,), os.O_RDWR)
        except FileNotFoundError:
            here = 0
        else:
            try:
                here = os.fstat(fd).st_size
                if resume_bytes <= min(here, self.size):
                    os.ftruncate(fd, resume_bytes)
                    self.written, self.needs_rehash = resume_bytes, True
                    return
            finally:
                os.close(fd)
        self._warn(f"its part has {here} bytes instead of {resume_bytes}: it begins afresh")
        self.reset_for_retry()

    def _ensure_resume_hash(self, fd: int) -> bool:
        """Hash what an earlier run wrote; False if it is not what the lock vouches for."""
        hasher = hashlib.sha256()
        vouched, digest = 0, ""
        state = self.lock_manager.get_state(self.filename) if self.lock_manager else None
        if state and state.partial_hash and state.transferred_bytes <= self.written:
            vouched, digest = state.transferred_bytes, state.partial_hash
        read = hash_into(hasher, fd, 0, vouched)
        if digest and hasher.hexdigest() != digest:
            self._warn("its part is not what was received: it begins afresh")
            return False
        read += hash_into(hasher, fd, read, self.written)
        if read != self.written:
            self._warn("its part has been cut: it begins afresh")
            return False
        self.hasher, self.needs_rehash = hasher, False
        return True

    def _complete(self, fd: int) -> None:
        """Check what is in the file, whatever was passed in; raises OSError before that."""
        status = os.fstat(fd)
        if status.st_size > self.size:
            os.ftruncate(fd, self.size)
        found = hashlib.sha256()
        hash_into(found, fd, 0, self.size)
        wanted, self.hasher = self._expected_hash or self.get_hash(), found
        if found.hexdigest() != wanted:
            self._mismatch()
        elif self._commit:
            self._handed_over = True
            self._commit.add(self, status.st_dev, self._parents)
        else:
            self._commit_alone(fd)

    def _commit_alone(self, fd: int) -> None:
        try:
            os.fdatasync(fd)
            if not self.place():
                return
            self._folder.sync_names(self._parents)
        except OSError as error:
            self.lose(error)
        else:
            self.finish()

    def _mismatch(self) -> None:
        self.retries += 1
        again = self.retries <= MAX_RETRIES
        what = "it is sent again" if again else "given up"
        self._warn(f"its SHA-256 is wrong ({self.retries} of {MAX_RETRIES + 1} times): {what}")
        self.reset_for_retry()
        if not again:
            self._tell(Status.FAILED)
        self.error = VerificationError(
            f"{shown(self.filename)} did not arrive with the SHA-256 that was promised: {what}"
        )

    def _tell(self, status: Status) -> None:
        if self.lock_manager and self.lock_manager.get_state(self.filename):
            digest = self.get_hash() if self.written else None
            self.lock_manager.update_file_status(self.filename, status, self.written, digest)

    def _refused(self, action: str, error: OSError) -> None:
        fault = self._folder.fault(self.filename, action, error)
        self.error = fault
        self._folder.warn(str(fault))

    def _warn(self, what: str) -> None:
        self._folder.warn(f"{self.filename}: {what}")

    def _let_go(self) -> None:
        if self._own_folder:
            self._folder.close()
