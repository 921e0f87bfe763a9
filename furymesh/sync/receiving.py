"""One session at the server, as far as its disk goes: what a client announces is
compared, what it sends is stored, and what it has no more is moved to the trash.

Nothing is kept of a session but what lies in the folder and its index: the next
one begins by looking.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from furymesh.core.errors import FuryMeshError
from furymesh.sync.compare import Comparison, Do, Part, Task, check_removals
from furymesh.sync.entries import FileInfo
from furymesh.sync.found import part_digest
from furymesh.sync.holdings import Holdings
from furymesh.sync.lock_format import MAX_FILES as MAX_LOCKED
from furymesh.sync.lock_format import IncomingFile
from furymesh.sync.parts import part_size
from furymesh.sync.storing import LOCKED_SIZE, Replies, Storing, Tally
from furymesh.sync.transfer_lock import TransferLockManager
from furymesh.sync.trash import Trash
from furymesh.wire import messages as m
from furymesh.wire.sync_codec import DIGEST_SIZE

UNKNOWN = bytes(DIGEST_SIZE)


class Receiver:
    """The folder of one client, for one session. Methods block; one thread at a time."""

    def __init__(
        self,
        folder: Path,
        data_dir: Path,
        *,
        sender: str,
        mirror: bool,
        cancelled: Callable[[], bool],
    ) -> None:
        """Raises AlreadyRunningError if another process receives there, EnvironmentFault."""
        self._sender = sender
        self._cancelled = cancelled
        self._mirror = mirror
        self._lock = TransferLockManager(folder, distinct_parts=True)
        try:
            self._resumed = self._lock.load_existing_lock()
            if not self._resumed:
                # Also without a large file: then the next session looks what lies here as parts.
                self._lock.create_lock_file(sender, [], 0)
            self._folder = self._lock.folder
            self._holdings = Holdings(self._folder, data_dir)
        except BaseException:
            self._lock.close()
            raise
        self._comparison = Comparison(self._holdings, self._part, mirror=mirror)
        self.store = Storing(self._lock, self._holdings, cancelled)
        self._announced = 0
        self._asked: dict[str, int] = {}  # by path, as what it was asked for last
        self._later: dict[int, FileInfo] = {}  # put off until others are removed

    @property
    def tally(self) -> Tally:
        """What the session has done so far."""
        return self.store.tally

    def plan(self) -> str:
        """The line that tells how this transfer begins, once all is announced."""
        tally = self.tally
        if not self._resumed:
            return "Starting fresh transfer"
        done = tally.kept + tally.copied
        return f"Resuming {done} completed, {tally.partial} partial, {tally.fresh} fresh files"

    def work(self, items: Sequence[tuple[m.Message, memoryview | None]]) -> Replies:
        """Do what these messages, and the bytes that came with them, ask for.

        Raises DiskFullError, where going on is of no use, and HashingStopped if cancelled.
        """
        replies: Replies = []
        batches = 0
        for message, content in items:
            match message:
                case m.ArchiveInfo():
                    self._info(message, replies)
                case m.ArchiveData():
                    assert content is not None
                    self.store.data(message, content, replies)
                    batches += 1
                case m.ArchiveSkip():
                    for file in message.files:
                        self.store.drop(file)
        if batches:
            replies.append(m.ArchiveWritten(batches))
        return replies

    def commit(self) -> Replies:
        """Make durable what is whole."""
        replies: Replies = []
        self.store.commit(replies)
        return replies

    # --- comparing ------------------------------------------------------------

    def _info(self, info: m.ArchiveInfo, replies: Replies) -> None:
        at = range(0, len(info.digests), DIGEST_SIZE)
        digests = [info.digests[start : start + DIGEST_SIZE] for start in at]
        page = [
            FileInfo(path, size, mtime, mode, b"" if digest == UNKNOWN else digest)
            for path, size, mtime, mode, digest in zip(
                info.paths, info.sizes, info.mtimes, info.modes, digests, strict=True
            )
        ]
        if unhashed := self._comparison.unhashed(page):
            self._holdings.hash(unhashed, self._cancelled)
        for entry in page:
            if entry.path in self._asked:  # it has changed while it was sent
                self._comparison.reopen(entry.path)
        files = range(self._announced, self._announced + len(page))
        self._announced += len(page)
        replies.append(self._decide(dict(zip(files, page, strict=True)), replies))

    def _decide(self, page: dict[int, FileInfo], replies: Replies) -> m.ArchiveTasks:
        """Do what can be done here; the rest is for the client."""
        tasks = self._comparison.decide(page.values())
        self._note_in_lock(page.values(), tasks)
        offsets: dict[int, int] = {}
        hashes: list[int] = []
        later: list[int] = []
        copied = 0
        for (file, entry), task in zip(page.items(), tasks, strict=True):
            match task.do:
                case Do.SKIP:
                    self.tally.kept += not entry.is_folder
                case Do.FOLDER:
                    self._make_folder(file, entry.path, replies)
                case Do.HASH:
                    hashes.append(file)
                case Do.LATER:
                    later.append(file)
                    self._later[file] = entry
                case Do.REFUSE:
                    self.store.fail(file, task.reason, replies)
                case Do.TOUCH if self._touch(entry):
                    self.tally.kept += 1
                case Do.COPY if self.store.copy(file, entry, task.source):
                    copied += 1
                case _ if task.offset < entry.size:
                    offsets[file] = self._ask(file, entry, task.offset)
                case _ if not self.store.complete(file, entry):
                    if entry.size:
                        offsets[file] = self._ask(file, entry, 0)
                    else:
                        self.store.fail(file, "it cannot be made", replies)
        self.tally.copied += copied
        starts = tuple(offsets.values())
        return m.ArchiveTasks(tuple(offsets), starts, tuple(hashes), tuple(later), copied)

    def _ask(self, file: int, entry: FileInfo, offset: int) -> int:
        self.store.drop(self._asked.get(entry.path, file))  # it comes under another number now
        self._asked[entry.path] = file
        self.store.ask(file, entry, offset)
        if offset:
            self.tally.partial += 1
        else:
            self.tally.fresh += 1
        return offset

    def _part(self, path: str) -> Part | None:
        """What the part of a file holds, and of which content it is the beginning."""
        if not self._resumed:
            return None
        state = self._lock.get_state(path)
        if state is not None and state.original_hash:
            here = self._lock.get_resume_bytes(path)
            return Part(here, bytes.fromhex(state.original_hash)) if here else None
        # Small files are not in the lock: this one was whole, perhaps, and the server killed.
        size = part_size(self._folder, self._folder.place(path))
        digest = part_digest(self._folder, path) if 0 < size < LOCKED_SIZE else None
        return Part(size, bytes.fromhex(digest)) if digest else None

    def _note_in_lock(self, page: Iterable[FileInfo], tasks: Sequence[Task]) -> None:
        files = [
            IncomingFile(filename=info.path, size=info.size, original_hash=info.sha256.hex())
            for info, task in zip(page, tasks, strict=True)
            if info.size >= LOCKED_SIZE and task.do in (Do.WHOLE, Do.CONTINUE)
        ]
        # What a lock has no room for is sent whole, should it be interrupted.
        session = self._lock.lock_data
        room = MAX_LOCKED - len(session.files if session else ())
        if files and room > 0:
            self._lock.add_files(files[:room], self._sender)

    def _make_folder(self, file: int, path: str, replies: Replies) -> None:
        try:
            self._holdings.make_directory(path.removesuffix("/"))
        except OSError as error:
            self.store.fail(file, str(self._folder.fault(path, "create", error)), replies)

    def _touch(self, info: FileInfo) -> bool:
        """Give a file that is here its time and mode; False if that is refused."""
        try:
            self._holdings.touch(info)
        except OSError:
            return False  # sent anew, it may be another matter
        return True

    # --- the end --------------------------------------------------------------

    def extras(self, *, force: bool) -> list[str]:
        """What is here and not at the client, if it mirrors.

        Raises UsageError if that is so much that it is rather a mistake.
        """
        if not self._mirror or not self._holdings.complete:
            return []
        paths = self._comparison.removals()
        lost, held = self._comparison.lost(paths), len(self._holdings)
        check_removals(lost, held, self._comparison.listed, force=force)
        return paths

    def remove(self, paths: Iterable[str]) -> None:
        """Move files to the trash, and remove empty folders; raises EnvironmentFault."""
        trash = Trash(self._folder)
        trash.sweep()
        for path in paths:
            if path.endswith("/"):
                self._holdings.remove_directory(path.removesuffix("/"))
                continue
            for directory in trash.move(path):
                self._holdings.forget_directory(directory)
            self._holdings.forget(path)
            self.tally.removed += 1

    def put_off(self) -> Replies:
        """What is to be done, after the removals, about the files that were put off."""
        replies: Replies = []
        later, self._later = self._later, {}
        if later:
            tasks = self._decide(later, replies)
            replies.append(m.ArchiveTasks(tasks.files, tasks.offsets, again=True))
        return replies

    def close(self, *, complete: bool) -> None:
        """End: keep what came, and, unless the session is `complete`, where to go on."""
        try:
            self.store.commit([])
            self._holdings.save()
        except FuryMeshError as error:
            self._folder.warn(str(error))  # the next session looks at the files themselves
        finally:
            if complete and not self.store.left_parts:
                self._holdings.drop_parts(())  # of what never came again
                self._lock.cleanup_on_completion()
            else:
                self._lock.close()
