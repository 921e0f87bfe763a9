"""The files of one session on their way to the server's disk.

Always true: a file that was asked for is open for writing, or whole and waiting to
be made durable with others, or neither and nothing of it came yet; it counts as
finished only when it is durable under its name.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass

from furymesh.core.errors import DiskFullError, InvalidManifestError
from furymesh.core.paths import shown
from furymesh.sync.copying import copy_held
from furymesh.sync.entries import FileInfo
from furymesh.sync.file_writer import FileWriter
from furymesh.sync.group_commit import GroupCommit
from furymesh.sync.holdings import Holdings
from furymesh.sync.transfer_lock import TransferLockManager
from furymesh.wire import messages as m
from furymesh.wire.sync_codec import DIGEST_SIZE

EMPTY = hashlib.sha256().digest()
# Files from here on are on record in the transfer lock, so that they go on at their
# offset; smaller ones are sent whole, and a record would cost more than that.
LOCKED_SIZE = 1024 * 1024
MAX_DETAIL = 300  # characters of why a file failed: a whole page of them must fit a link's queue
MAX_TRIES = 3  # of one file in one session, besides those that its writer counts

Replies = list[m.SyncMessage]


@dataclass(slots=True)
class Tally:
    """What a session has done so far; `received` in bytes, the others in files."""

    stored: int = 0
    received: int = 0
    kept: int = 0
    copied: int = 0
    partial: int = 0
    fresh: int = 0
    failed: int = 0
    removed: int = 0


class Storing:
    """Writes what comes. Methods block; one thread at a time."""

    def __init__(
        self, lock: TransferLockManager, holdings: Holdings, cancelled: Callable[[], bool]
    ) -> None:
        self.tally = Tally()
        self.finished: list[int] = []  # since it was last emptied
        self.left_parts = False  # a file failed of which something is here
        self._lock = lock
        self._folder = lock.folder
        self._holdings = holdings
        self._cancelled = cancelled
        self._commit = GroupCommit(self._folder)
        self._asked: dict[int, FileInfo] = {}  # and not yet whole
        self._starts: dict[int, int] = {}  # where those begin that do not begin at 0
        self._open: dict[int, FileWriter] = {}
        self._whole: dict[int, tuple[FileWriter, FileInfo, bool]] = {}  # and whether asked for
        self._tries: dict[int, int] = {}

    @property
    def uncommitted(self) -> int:
        """Files that are whole and wait for `commit`."""
        return len(self._whole)

    @property
    def due(self) -> int:
        """How many of those were asked for."""
        return sum(asked for _, _, asked in self._whole.values())

    def ask(self, file: int, info: FileInfo, offset: int) -> None:
        """Bytes of a file are asked for, from one on."""
        self._asked[file] = info
        if offset:
            self._starts[file] = offset

    def drop(self, file: int) -> None:
        """A file will not come."""
        self._asked.pop(file, None)
        self._open.pop(file, None)
        self._starts.pop(file, None)

    def complete(self, file: int, info: FileInfo) -> bool:
        """Finish a file whose part is whole, or that is empty; False if that cannot be."""
        writer = self._writer(info, info.sha256 or EMPTY)
        writer.open_for_writing(info.size)
        return self._took(file, info, writer)

    def copy(self, file: int, info: FileInfo, source: str) -> bool:
        """Make a file of another that has its content; False if that cannot be.

        Raises HashingStopped.
        """
        writer = copy_held(self._folder, source, info, self._commit, self._cancelled)
        return self._took(file, info, writer)

    def _took(self, file: int, info: FileInfo, writer: FileWriter) -> bool:
        if writer.error or writer.written < info.size:
            return False
        self._whole[file] = writer, info, False
        return True

    def data(self, data: m.ArchiveData, content: memoryview, replies: Replies) -> None:
        """Write runs of files; raises DiskFullError, after which going on is of no use."""
        at = 0
        runs = zip(data.files, data.offsets, data.lengths, strict=True)
        for index, (file, offset, length) in enumerate(runs):
            chunk = content[at : at + length]
            at += length
            info = self._asked.get(file)
            if info is None:
                continue  # it failed meanwhile
            writer = self._open.get(file)
            if writer is None:
                digest = data.digests[index * DIGEST_SIZE : (index + 1) * DIGEST_SIZE]
                try:
                    writer = self._writer(info, digest)
                except InvalidManifestError as error:
                    self.drop(file)
                    self.fail(file, str(error), replies)
                    continue
                self._open[file] = writer
                writer.open_for_writing(self._starts.pop(file, 0))
            if offset != writer.written:
                continue  # sent before it was asked for again
            self.tally.received += writer.write_chunk(chunk)
            if writer.error:
                self._trouble(file, writer, replies)
            elif writer.written == info.size:
                del self._open[file], self._asked[file]
                self._whole[file] = writer, info, True
        self._sweep(replies)

    def commit(self, replies: Replies) -> None:
        """Make durable what is whole."""
        self._commit.commit()
        self._sweep(replies)

    def fail(self, file: int, reason: str, replies: Replies) -> None:
        """Give a file up, for this session."""
        self.tally.failed += 1
        within = shown(reason).replace(f"{self._folder.path}{os.sep}", "")
        replies.append(m.ArchiveFailed(file, within[:MAX_DETAIL]))

    def _writer(self, info: FileInfo, digest: bytes) -> FileWriter:
        locked = info.size >= LOCKED_SIZE and self._lock.get_state(info.path) is not None
        return FileWriter(
            info.path,
            info.size,
            0,
            self._lock if locked else None,
            overwrite_mode=True,
            expected_hash=digest.hex(),
            folder=self._folder,
            commit=self._commit,
            mode=info.mode,
            mtime_ns=info.mtime_ns,
        )

    def _sweep(self, replies: Replies) -> None:
        """Look what became of the files that waited, if they were committed."""
        first = next(iter(self._whole.values()), None)
        if first is None or not (first[0].is_complete or first[0].error):
            return
        waiting, self._whole = self._whole, {}
        for file, (writer, info, asked) in waiting.items():
            if writer.is_complete:
                self._stored(file, writer, info, replies)
            elif not writer.error:
                self._whole[file] = writer, info, asked
            elif asked:
                self._asked[file], self._open[file] = info, writer
                self._trouble(file, writer, replies)
            else:
                self.fail(file, str(writer.error), replies)

    def _stored(self, file: int, writer: FileWriter, info: FileInfo, replies: Replies) -> None:
        parents, name, _ = writer.place
        saved = writer.saved_name
        if saved != name:
            self.fail(file, f"what has its name cannot be replaced: see {saved}", replies)
            return
        try:
            status = os.stat(name, dir_fd=self._folder.directory(parents), follow_symlinks=False)
        except OSError as error:
            self.fail(file, str(self._folder.fault(info.path, "look at", error)), replies)
            return
        self._holdings.note(info._replace(sha256=bytes.fromhex(writer.get_hash())), status)
        self.tally.stored += 1
        self.finished.append(file)

    def _trouble(self, file: int, writer: FileWriter, replies: Replies) -> None:
        """A file was not written as it should: ask for it again, or give it up."""
        error = writer.error
        if isinstance(error, DiskFullError):
            raise error
        tries = self._tries[file] = self._tries.get(file, 0) + 1
        if writer.has_failed or tries > MAX_TRIES or writer.written == writer.size:
            self.left_parts = self.left_parts or writer.written > 0
            self.drop(file)
            self.fail(file, str(error), replies)
        else:
            replies.append(m.ArchiveTasks((file,), (writer.written,), again=True))
