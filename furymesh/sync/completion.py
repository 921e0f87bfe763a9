"""A part that is whole: is it right, is it on the disk, may it have its name?

Always true: a file has its final name only after the whole part was read back
with the right digest and made durable, and counts as complete only when the
name is durable too. What turns out to be wrong or lost begins afresh, three
times; then the file has failed. A name that cannot be made durable is taken
back, and the part stays, whole.
"""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

from furymesh.core.errors import FuryMeshError, VerificationError
from furymesh.core.paths import shown
from furymesh.sync.found import hash_into
from furymesh.sync.lock_format import Status
from furymesh.sync.naming import give_name, take_name_back
from furymesh.sync.parts import is_passing, open_part

if TYPE_CHECKING:
    from furymesh.sync.file_writer import FileWriter
    from furymesh.sync.group_commit import GroupCommit

MAX_RETRIES = 3  # after as many wrong digests the sender, or this disk, is broken


class Completion:
    """What becomes of the part of one `FileWriter`, which it tells. Methods block.

    `saved_name` is the file's name once it has one; `waiting` is true while the
    part is checked and has no durable name.
    """

    def __init__(
        self,
        writer: FileWriter,
        commit: GroupCommit | None,
        expected_hash: str,
        mode: int | None,
        mtime_ns: int | None,
    ) -> None:
        """`expected_hash` is "" if not known; `mode` and `mtime_ns` are left alone if None."""
        self.writer = writer
        self.folder = writer.folder
        self.place = writer.place
        self.expected_hash = expected_hash.lower()
        self.retries = 0
        self.saved_name = ""
        self.waiting = False
        self._commit = commit
        self._mode = mode
        self._mtime_ns = mtime_ns
        self._inode = 0

    def begin(self, fd: int) -> None:
        """Check the whole part, open as `fd`, and let it become durable; raises OSError."""
        status = os.fstat(fd)
        if status.st_size > self.writer.size:
            os.ftruncate(fd, self.writer.size)
        if not self._is_right(fd):
            return
        if self._mode is not None:
            os.fchmod(fd, self._mode & 0o777)
        if self._mtime_ns is not None:
            os.utime(fd, ns=(self._mtime_ns, self._mtime_ns))
        self._inode = status.st_ino
        self.waiting = True
        if self._commit:
            self._commit.add(self, fd, status.st_dev)
        elif self._synced(fd) and self.give_name() and self.sync_name():
            self.finish()

    # --- one step after the other, by itself or with others ---------------------

    def sync_data(self) -> bool:
        """Make the part durable, by itself; False if that fails, and it begins afresh."""
        try:
            fd = open_part(self.folder, self.place)
        except OSError as error:
            return self._held_up("sync", error)
        if fd is None:
            self.start_over(self.writer.part_is_gone("finish"))
            return False
        try:
            return self._synced(fd)
        finally:
            os.close(fd)

    def give_name(self) -> bool:
        """Give the part, whose data is durable, its final name; False if that is refused."""
        writer = self.writer
        try:
            self.saved_name = give_name(
                self.folder, writer.filename, overwrite=writer.overwrite_mode
            )
        except FileNotFoundError:
            self.start_over(writer.part_is_gone("finish"))
            return False
        except OSError as error:
            return self._held_up("finish", error)
        return True

    def sync_name(self) -> bool:
        """Make the final name durable, by itself; False if that fails, and it is taken back."""
        try:
            self.folder.sync_names(self.place.parents)
        except OSError as error:
            self._take_name_back(error)
            return False
        return True

    def finish(self) -> None:
        """Note that the final name is durable too."""
        writer, lock = self.writer, self.writer.lock_manager
        writer.is_complete, self.waiting = True, False
        if lock and lock.get_state(writer.filename):
            try:
                directory = self.folder.directory(self.place.parents)
                status = os.stat(self.saved_name, dir_fd=directory, follow_symlinks=False)
            except OSError:
                return  # somebody took it away already
            if (status.st_ino, status.st_size) == (self._inode, writer.size):
                lock.complete(writer.filename, self.saved_name, writer.get_hash(), status)

    # --- what goes wrong --------------------------------------------------------

    @property
    def has_failed(self) -> bool:
        return self.retries > MAX_RETRIES

    def start_over(self, fault: FuryMeshError) -> None:
        """Begin afresh, or give up the file if that has been tried often enough."""
        self.retries += 1
        what = "given up" if self.has_failed else "it is sent again"
        self.folder.warn(f"{fault} ({self.retries} of {MAX_RETRIES + 1} times): {what}")
        self.writer.reset_for_retry()
        if self.has_failed:
            self.writer.tell(Status.FAILED)
        self.writer.error = fault

    def _is_right(self, fd: int) -> bool:
        """Whether the file has the right content, whatever was passed in; raises OSError."""
        writer, found = self.writer, hashlib.sha256()
        try:
            hash_into(found, fd, 0, writer.size)
        except OSError as error:
            if is_passing(error):
                raise
            self.start_over(self.folder.fault(writer.filename, "read back", error))
            return False
        wanted, writer.hasher = self.expected_hash or writer.get_hash(), found
        if found.hexdigest() != wanted:
            name = shown(writer.filename)
            self.start_over(
                VerificationError(f"{name} did not arrive with the SHA-256 that was promised")
            )
            return False
        return True

    def _synced(self, fd: int) -> bool:
        try:
            os.fsync(fd)
        except OSError as error:
            # Another sync may succeed, and still the data would not be on the disk.
            self.start_over(self.folder.fault(self.writer.filename, "sync", error))
            return False
        return True

    def _held_up(self, action: str, error: OSError) -> bool:
        """The part stays as it is, whole, until the file is asked to complete again."""
        self.waiting = False
        self.writer.refused(action, error)
        return False

    def _take_name_back(self, error: OSError) -> None:
        try:
            take_name_back(self.folder, self.place, self.saved_name)
        except OSError as refusal:
            self.folder.warn(str(self.folder.fault(self.saved_name, "take back", refusal)))
            self.writer.reset_for_retry()
        else:
            self.writer.needs_rehash = True
            self.writer.tell(Status.IN_PROGRESS)
        self.saved_name = ""
        self._held_up("sync", error)
