"""Resume data on disk: which chunks of a download are already here.

One file a download, ``<resume_dir>/<file-id>.resume``: a snapshot followed by
a journal (`furymesh.core.snapshot`, `furymesh.core.journal`). It may hold the
content key, so it is 0600 from the first syscall, in a directory of mode 0700.

Always true:

* A chunk is in at most one of three sets. *Durable*: its bytes were synced.
  *Volatile*: its bytes were written, and its record too. *Doubtful*: its bytes
  may be there; nobody relies on them until they were hashed and `add`ed.
* The file claims a chunk only after its bytes were written. Adding appends a
  record; withdrawing goes through a new snapshot.
* The file is replaced whole (temporary file, fsync, rename, fsync of the
  directory) or appended to by one record. Whatever fails, and wherever the
  process dies, what stays under the name is the old state or the new one.

Two locks, always taken in this order: `_maintenance` for whatever replaces or
syncs the file, one at a time and slowly; `_append` for the few instructions
that touch the sets and the descriptor, so that `add` never waits for a disk.

The caller holds the `DownloadLock`; reading with `peek` needs no lock.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from furymesh.core.bitfield import chunks_of, mask_of
from furymesh.core.errors import (
    DiskFullError,
    EnvironmentFault,
    FuryMeshError,
    IllegalStateError,
)
from furymesh.core.ids import FileId
from furymesh.core.journal import SALT_SIZE, RecordKind
from furymesh.core.paths import shown
from furymesh.core.snapshot import Recovered, ResumeMeta, encode_snapshot
from furymesh.storage.files import fsync_dir, make_private_directory, translating
from furymesh.storage.journal_file import JournalFile, remove_journal
from furymesh.storage.resume_reader import (
    Damaged,
    Summary,
    current_boot_id,
    list_all,
    peek,
    read_resume_data,
    resume_path,
)

__all__ = ["Damaged", "ResumeData", "ResumeMeta", "Summary", "list_all", "peek", "resume_path"]


class ResumeData:
    """The resume data of one download, open for recording. Thread-safe."""

    def __init__(self, path: Path, recovered: Recovered, boot_id: bytes) -> None:
        """Use `create` or `load`."""
        self.path = path
        self.damaged = recovered.damaged
        self._meta = recovered.meta
        self._boot_id = boot_id
        self._durable = recovered.durable
        # In the order of their records; a chunk may be in it twice.
        self._volatile = list(chunks_of(recovered.volatile))
        self._doubtful = recovered.doubtful
        self._maintenance = threading.Lock()
        self._append = threading.Lock()
        self._file: JournalFile | None = None
        self._stale = False  # the file lacks what is known here, and wants replacing
        self._rewrite()

    @classmethod
    def create(
        cls, directory: Path, meta: ResumeMeta, *, boot_id: bytes | None = None
    ) -> ResumeData:
        """Begin resume data for a download, replacing what is there under its id.

        Raises DiskFullError or EnvironmentFault.
        """
        make_private_directory(directory)
        fresh = Recovered(meta, durable=0, volatile=0, doubtful=0, damaged=False)
        return cls(resume_path(directory, meta.file_id), fresh, boot_id or current_boot_id())

    @classmethod
    def load(cls, directory: Path, file_id: FileId, *, boot_id: bytes | None = None) -> ResumeData:
        """Take up a download; what was doubtful is in `doubtful` until hashed.

        Raises NotFoundError, DamagedResumeDataError, DiskFullError or
        EnvironmentFault; the file is as before in each case.
        """
        path = resume_path(directory, file_id)
        boot = boot_id or current_boot_id()
        recovered, _ = read_resume_data(path, file_id, boot)
        return cls(path, recovered, boot)

    # --- reading ----------------------------------------------------------------

    @property
    def meta(self) -> ResumeMeta:
        return self._meta

    @property
    def have(self) -> int:
        """The chunks that may be relied on."""
        with self._append:
            return self._durable | mask_of(self._volatile)

    @property
    def volatile(self) -> int:
        """The part of `have` whose bytes have not been synced yet."""
        with self._append:
            return mask_of(self._volatile) & ~self._durable

    @property
    def doubtful(self) -> int:
        """Chunks to hash before use: `add` the good ones, `lose_all` the others."""
        with self._append:
            return self._doubtful & ~(self._durable | mask_of(self._volatile))

    # --- recording --------------------------------------------------------------

    def add(self, chunk: int) -> None:
        """Record a verified chunk, right after its bytes were written.

        One write of 16 bytes. Raises DiskFullError or EnvironmentFault, and
        then the chunk is not recorded; after DiskFullError it may be tried again.
        """
        if not 0 <= chunk < self._meta.chunk_count:
            raise IllegalStateError(f"chunk {chunk} of {self._meta.chunk_count} added")
        with self._append:
            self._open_file().append(RecordKind.HAVE, chunk)
            self._volatile.append(chunk)

    def lose_all(self, chunks: int) -> None:
        """Withdraw chunks (a mask) whose bytes turned out wrong; durable on return.

        Doubtful chunks that fail their check cost no disk access: nobody relies
        on them. Raises DiskFullError or EnvironmentFault, and then the chunks
        are withdrawn in memory only.
        """
        with self._maintenance:
            with self._append:
                self._open_file()
                relied_on = chunks & (self._durable | mask_of(self._volatile))
                self._durable &= ~chunks
                self._doubtful &= ~chunks
                self._volatile = [chunk for chunk in self._volatile if not chunks >> chunk & 1]
            if relied_on:
                self._rewrite()

    def doubt(self, chunks: int) -> None:
        """Rely on these chunks (a mask) no more until they have been hashed; durable on return."""
        with self._maintenance:
            with self._append:
                self._open_file()
                self._doubtful |= chunks & ((1 << self._meta.chunk_count) - 1)
                self._durable &= ~chunks
                self._volatile = [chunk for chunk in self._volatile if not chunks >> chunk & 1]
            self._rewrite()

    def mark_epoch(self, sync: Callable[[], None]) -> None:
        """Make what was added so far survive a power cut.

        `sync` must put on disk all content whose chunks were added before the
        call. If it raises, every volatile chunk is withdrawn, because a failed
        sync may have dropped the pages and the next one would not tell, and the
        error goes on to the caller. Unless it is DiskFullError, this object then
        refuses further use.
        """
        with self._maintenance:
            self._mark_epoch(sync)

    def compact(self, sync: Callable[[], None]) -> None:
        """`mark_epoch`, then fold the journal into a fresh snapshot."""
        with self._maintenance:
            self._mark_epoch(sync)
            self._rewrite()

    def update_meta(self, **changes: Any) -> None:
        """Change fields of `meta`; durable on return.

        Raises DiskFullError or EnvironmentFault, and then nothing is changed.
        """
        with self._maintenance:
            old, new = self._meta, replace(self._meta, **changes)
            with self._append:
                self._open_file()
                known = self._durable | mask_of(self._volatile) | self._doubtful
            if new.file_id != old.file_id or known >> new.chunk_count:
                raise IllegalStateError("resume data cannot change the download it is about")
            self._meta = new
            try:
                self._rewrite()
            except FuryMeshError:
                self._meta = old
                raise

    def delete(self) -> None:
        """Close, and remove the file: the download is finished or given up."""
        self.close()
        remove_journal(self.path)

    def close(self) -> None:
        """Let go of the file; its state stays as it is on disk."""
        with self._maintenance, self._append:
            if self._file is not None:
                self._file.close()
                self._file = None

    def __enter__(self) -> ResumeData:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- the file ---------------------------------------------------------------

    def _open_file(self) -> JournalFile:
        if self._file is None:
            raise EnvironmentFault(
                f"progress can no longer be recorded in {shown(str(self.path))}:"
                " start the download again"
            )
        return self._file

    def _mark_epoch(self, sync: Callable[[], None]) -> None:
        if self._stale:
            self._rewrite()
        with self._append:
            covered = self._open_file().sequence
            count = len(self._volatile)
        if not count:
            return
        try:
            sync()
        except BaseException as error:
            self._retract()
            if not isinstance(error, DiskFullError):
                with self._append:
                    self._open_file().close()
                    self._file = None
            raise
        with self._append:
            journal = self._open_file()
            journal.append(RecordKind.EPOCH, covered)
            self._durable |= mask_of(self._volatile[:count])
            del self._volatile[:count]
        # If this fails the content is safe all the same; after a power cut the
        # records might be missing, which costs some fetching and no wrong claim.
        # They are written anew then, because a second sync would not miss them.
        try:
            journal.sync()
        except BaseException:
            self._stale = True
            raise

    def _retract(self) -> None:
        with self._append:
            self._volatile.clear()
        try:
            self._rewrite()
        except FuryMeshError:
            # A disk that is full may be without room for this too: what it says for
            # sure is left in the file, and the rest is added at the next occasion.
            self._stale = True
            with self._append, contextlib.suppress(FuryMeshError):
                self._open_file().cut()

    def _rewrite(self) -> None:
        """Replace the file by a snapshot of the durable set and records of the rest."""
        with self._append:
            durable, doubtful = self._durable, self._doubtful
            volatile = list(self._volatile)
        salt = os.urandom(SALT_SIZE)
        snapshot = encode_snapshot(
            self._meta, salt=salt, boot_id=self._boot_id, have=durable, doubtful=doubtful
        )
        with JournalFile.replacing(self.path, snapshot, salt) as fresh:
            fresh.append_haves(volatile)
            fresh.sync()
            with self._append:
                # What was added during the sync only needs to be in the file.
                fresh.append_haves(self._volatile[len(volatile) :])
                fresh.rename_over(self.path)
                old, self._file = self._file, fresh
            self._stale = False
        if old is not None:
            old.close()
        with translating(self.path.parent, "sync"):
            fsync_dir(self.path.parent)
