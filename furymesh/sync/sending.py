"""The disk of one session at the client: files become batches of bytes to send.

Always true: the bytes of a run belong to the state of the file that was announced,
as far as its facts tell; one that has another state by now is handed back to be
announced again, before its last byte is sent.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from furymesh.core.errors import (
    EnvironmentFault,
    FuryMeshError,
    NotFoundError,
    SourceChangedError,
)
from furymesh.sync.archive import Archive
from furymesh.sync.entries import HASH_FIRST, FileInfo
from furymesh.sync.source import Source
from furymesh.wire import messages as m
from furymesh.wire.sync_codec import DIGEST_SIZE, MAX_BATCH, MAX_ENTRIES, MAX_RUNS

PAGE_BYTES = 60_000  # of an ArchiveInfo, below what a message may have
ENTRY_BYTES = DIGEST_SIZE + 40  # at most, besides the path
# A file of up to this many bytes is not cut in two to fill what is left of a send.
KEPT_WHOLE = 64 * 1024


@dataclass(frozen=True, slots=True)
class Wanted:
    """A file to send, from a byte on."""

    file: int
    info: FileInfo
    offset: int


@dataclass(slots=True)
class Run:
    """Bytes of one file, and the SHA-256 of all of it."""

    file: int
    digest: bytes
    offset: int
    content: memoryview

    def cut(self, size: int) -> tuple[Run, Run]:
        """The first `size` bytes, and the rest."""
        return (
            Run(self.file, self.digest, self.offset, self.content[:size]),
            Run(self.file, self.digest, self.offset + size, self.content[size:]),
        )


@dataclass(slots=True)
class Batch:
    """What was read in one go. `changed` are to be announced again, `lost` cannot be read."""

    runs: list[Run] = field(default_factory=list)
    size: int = 0
    changed: list[int] = field(default_factory=list)
    lost: list[tuple[int, str, FuryMeshError]] = field(default_factory=list)


class Reader:
    """Reads what is wanted, in order. Methods block; one thread at a time."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self._source: Source | None = None  # the large file that is being sent
        self._at = 0

    def fill(self, wanted: deque[Wanted], is_open: Callable[[int], bool]) -> Batch:
        """About MAX_BATCH bytes of what is wanted, taken off its front as it is done.

        What is not `is_open` any more, by its number, is left out.
        """
        batch = Batch()
        while wanted and batch.size < MAX_BATCH and len(batch.runs) < MAX_RUNS:
            item = wanted[0]
            try:
                if not is_open(item.file):
                    pass
                elif item.info.size < HASH_FIRST:
                    self._small(item, batch)
                elif not self._large(item, batch):
                    continue
            except SourceChangedError:
                batch.changed.append(item.file)
            except (NotFoundError, EnvironmentFault) as error:
                batch.lost.append((item.file, item.info.path, error))
            self.close()
            wanted.popleft()
        return batch

    def close(self) -> None:
        """Let go of the file that is open."""
        if self._source is not None:
            self._source.close()
            self._source = None

    def _small(self, item: Wanted, batch: Batch) -> None:
        info, content = self._archive.read_small(item.info.path)
        if info[:4] != item.info[:4] or (item.info.sha256 not in (b"", info.sha256)):
            raise SourceChangedError(f"{info.path} has changed")
        rest = memoryview(content)[item.offset :]
        batch.runs.append(Run(item.file, info.sha256, item.offset, rest))
        batch.size += len(rest)

    def _large(self, item: Wanted, batch: Batch) -> bool:
        """Read on in a large file; whether that was the rest of it."""
        if self._source is None:
            self._source = self._archive.open_source(item.info)
            self._at = item.offset
        left = item.info.size - self._at
        content = memoryview(bytearray(min(left, MAX_BATCH)))
        count = self._source.read_into(content, self._at)
        last = count == left
        if count < len(content) or last:
            self._source.check_unchanged()
        batch.runs.append(Run(item.file, item.info.sha256, self._at, content[:count]))
        batch.size += count
        self._at += count
        return last


@dataclass(frozen=True, slots=True)
class Piece:
    """Runs on their way out, as the link's writer takes them."""

    message: m.ArchiveData
    contents: list[memoryview]

    def read_now(self, view: memoryview) -> bool:
        at = 0
        for content in self.contents:
            view[at : at + len(content)] = content
            at += len(content)
        return True

    async def read(self, view: memoryview) -> None:
        raise AssertionError("everything is in memory")


class Outbox:
    """What was read, in the order of sending, and what must not overtake it."""

    def __init__(self) -> None:
        self.size = 0  # bytes
        self._items: deque[Run | int] = deque()  # runs, and files that will not come

    def add(self, runs: Iterable[Run]) -> None:
        """These are to be sent, in this order."""
        for run in runs:
            self._items.append(run)
            self.size += len(run.content)

    def skip(self, file: int) -> None:
        """Say, after what waits now, that a file will not come."""
        self._items.append(file)

    def take_skip(self) -> m.ArchiveSkip | None:
        """What is to be said before more is sent."""
        files: list[int] = []
        while self._items and len(files) < MAX_ENTRIES:
            file = self._items[0]
            if isinstance(file, Run):
                break
            files.append(file)
            self._items.popleft()
        return m.ArchiveSkip(tuple(files)) if files else None

    def take(self, room: int) -> Piece | None:
        """Runs of at most `room` bytes; None if nothing waits, or not enough room is left."""
        taken: list[Run] = []
        left = room
        while self._items and left and len(taken) < MAX_RUNS:
            run = self._items[0]
            if not isinstance(run, Run) or (taken and taken[-1].file == run.file):
                break
            if len(run.content) > left:
                if len(run.content) <= KEPT_WHOLE:
                    break
                run, self._items[0] = run.cut(left)
            else:
                self._items.popleft()
            taken.append(run)
            left -= len(run.content)
        if not taken:
            return None
        self.size -= room - left
        return Piece(
            m.ArchiveData(
                tuple([run.file for run in taken]),
                tuple([run.offset for run in taken]),
                tuple([len(run.content) for run in taken]),
                b"".join([run.digest for run in taken]),
                room - left,
            ),
            [run.content for run in taken],
        )


def fitting(page: Sequence[FileInfo], at: int) -> int:
    """How many entries from there on one message holds."""
    size = count = 0
    for info in page[at : at + MAX_ENTRIES]:
        size += ENTRY_BYTES + len(os.fsencode(info.path))
        if size > PAGE_BYTES and count:
            break
        count += 1
    return count
