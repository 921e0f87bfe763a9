"""One session at the client, over a link that is made: announce, send, hear when to come again.

A scan goes on while what was asked for is read, and that while it is sent; nothing
waits for an answer but by the windows of the protocol. Decided when a message
comes, in one step; the disk works in threads beside that.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import trio

from furymesh.core.errors import (
    FuryMeshError,
    LinkClosedError,
    PeerError,
    ProtocolError,
    SourceChangedError,
    UnavailableError,
)
from furymesh.core.paths import shown
from furymesh.net.handler import Shareless
from furymesh.net.secure_link import SecureLink
from furymesh.net.tasks import open_tasks
from furymesh.sync.archive import Archive
from furymesh.sync.entries import HASH_FIRST, FileInfo
from furymesh.sync.events import (
    ClientEvent,
    Comparing,
    Hashing,
    Progress,
    Queued,
    Report,
    Started,
)
from furymesh.sync.hashing_ahead import HashingAhead
from furymesh.sync.sending import Outbox, Piece, Reader, Wanted, fitting
from furymesh.wire import messages as m
from furymesh.wire.exchange import Exchange
from furymesh.wire.sync_codec import DIGEST_SIZE, MAX_ENTRIES

PAGE_FILES = 500  # looked at in one go: a few milliseconds
OUTBOX_BYTES = 4 * 1024 * 1024  # read ahead of the network
PROGRESS_SECONDS = 0.5
COMPARING_SECONDS = 2.0  # without an answer, then it is said that the server is at work
MAX_CHANGES = 3  # of one file in one session, then it is reported
MAX_REPORTED = 100  # files that failed and are named; more are counted
UNKNOWN = bytes(DIGEST_SIZE)


class Push(Shareless):
    """The client's end of one session, and the handler of its link."""

    def __init__(
        self,
        link: SecureLink,
        archive: Archive,
        who: m.Identify,
        on_event: Callable[[ClientEvent], None],
    ) -> None:
        self._link = link
        self._archive = archive
        self._who = who
        self._tell = on_event
        self._exchange = link.session.exchange = Exchange(client=True)
        self._reader = Reader(archive)
        self._ready = trio.Event()
        self._news = trio.Event()
        self._pages: deque[int] = deque()  # entries of each that is not answered
        self._answered = 0  # entries of those that are
        self._entries: dict[int, FileInfo] = {}  # not answered, or asked for
        self._wanted: deque[Wanted] = deque()
        self._again: deque[int] = deque()  # to be announced again
        self._changes: dict[str, int] = {}
        self._outbox = Outbox()
        self._extras: tuple[str, ...] = ()
        self._failed: dict[int, tuple[str, str]] = {}
        self._asked: set[int] = set()  # and not taken back
        self._asked_bytes = self._sent_bytes = 0
        self._looked = self._copied = 0
        self._hashing = HashingAhead(archive, self._give_sign, lambda: link.leaving)
        self._end: m.NextSync | None = None
        self._started = trio.current_time()

    async def run(self) -> Report:
        """Go through the session.

        Raises LinkClosedError if the link breaks, UnavailableError if the server ends it,
        PeerError if it refuses.
        """
        try:
            async with open_tasks() as nursery:
                nursery.start_soon(self._conduct)
                await self._link.run(self)
                nursery.cancel_scope.cancel()
        finally:
            self._reader.close()
        if self._end is None:
            raise self._what_happened()
        return self._report(self._end)

    # --- what the link asks -----------------------------------------------------------

    def message(self, link: SecureLink, message: m.Message) -> None:
        match message:
            case m.Ping():
                link.pong(message.nonce)
            case m.Busy():
                self._tell(Queued(message.place))
            case m.Ready():
                self._ready.set()
            case m.ArchiveTasks():
                self._tasks(message)
            case m.ArchiveWritten():
                link.poke()
            case m.ArchiveFailed():
                self._note_failed(message)
            case m.ArchiveExtras():
                self._extras = message.paths
            case m.NextSync():
                self._end = message
                link.goodbye(m.Reason.DONE)
        self._wake()

    def piece(self, link: SecureLink, room: int) -> Piece | None:
        if (skip := self._outbox.take_skip()) is not None:
            self._say(skip)
            return None
        piece = self._outbox.take(min(room, self._exchange.room))
        if piece is not None:
            self._exchange.sent(piece.message)
            self._sent_bytes += piece.message.length
            self._wake()
        return piece

    def _tasks(self, tasks: m.ArchiveTasks) -> None:
        if not tasks.again:
            size = self._pages.popleft()
            kept = {*tasks.files, *tasks.unhashed, *tasks.later}
            for file in range(self._answered, self._answered + size):
                if file not in kept:
                    del self._entries[file]
            self._answered += size
            self._copied += tasks.copied
            self._again.extend(tasks.unhashed)
        for file, offset in zip(tasks.files, tasks.offsets, strict=True):
            info = self._entries.get(file)
            if info is None:
                continue  # taken back meanwhile
            self._wanted.append(Wanted(file, info, offset))
            self._asked.add(file)
            self._asked_bytes += info.size - offset
        # Each waits once, and once more if what was sent of it was wrong or lost.
        if len(self._wanted) > 2 * self._answered:
            raise ProtocolError("the server asks for the same files again and again")

    def _note_failed(self, failed: m.ArchiveFailed) -> None:
        info = self._entries.get(failed.file)
        path = shown(info.path) if info else ""
        self._failed[failed.file] = (path, shown(failed.detail))

    # --- doing ------------------------------------------------------------------------

    async def _conduct(self) -> None:
        self._say(self._who)
        await self._ready.wait()
        self._tell(Started())
        self._started = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._announce)
            nursery.start_soon(self._read)
            nursery.start_soon(self._answer)
            nursery.start_soon(self._show)

    async def _announce(self) -> None:
        """Announce every file, and again what was asked for or has changed."""
        pages = self._archive.pages(PAGE_FILES)
        looking = True
        while True:
            if self._again:
                await self._announce_again()
            elif looking:
                page = await trio.to_thread.run_sync(_next, pages)
                if page is None:
                    looking = False
                    await self._announce_page([], last=True)
                else:
                    self._looked += sum(not info.is_folder for info in page)
                    await self._announce_hashed(page)
            else:
                await self._news.wait()

    async def _announce_hashed(self, page: list[FileInfo]) -> None:
        """Announce a page, its large files with their digests, which the server would ask for."""
        large = [info for info in page if info.size >= HASH_FIRST and not info.sha256]
        if large:
            hashed = {info.path: info for info in await self._hashing.hash(large)}
            unread = {info.path for info in large} - hashed.keys()
            page = [hashed.get(info.path, info) for info in page if info.path not in unread]
        await self._announce_all(page)

    async def _announce_again(self) -> None:
        files = [self._again.popleft() for _ in range(min(len(self._again), MAX_ENTRIES))]
        infos = [self._entries[file] for file in files if self._is_open(file)]
        hashed = await self._hashing.hash(infos)
        await self._announce_all(hashed)
        # Not before: the server ends the session when nothing is asked for any more.
        for file in files:
            self._withdraw(file)

    async def _announce_all(self, infos: Sequence[FileInfo]) -> None:
        at = 0
        while at < len(infos):
            end = at + fitting(infos, at)
            await self._announce_page(infos[at:end])
            at = end

    async def _announce_page(self, page: Sequence[FileInfo], *, last: bool = False) -> None:
        while self._exchange.pages_left <= 0:
            await self._news.wait()
        first = self._exchange.announced
        paths, sizes, mtimes, modes, digests = zip(*page, strict=True) if page else ((),) * 5
        content = b"".join([digest or UNKNOWN for digest in digests])
        self._entries.update(enumerate(page, first))
        self._pages.append(len(page))
        self._say(m.ArchiveInfo(paths, sizes, mtimes, modes, content, last))

    async def _give_sign(self) -> None:
        """An empty page says that this end is at work."""
        await self._announce_page([])

    async def _read(self) -> None:
        """Read what is asked for, as far ahead as the outbox allows."""
        while True:
            if not self._wanted or self._outbox.size >= OUTBOX_BYTES:
                await self._news.wait()
                continue
            fill = partial(self._reader.fill, self._wanted, self._is_open)
            batch = await trio.to_thread.run_sync(fill)
            # Some may have been taken back or given up while they were read.
            self._outbox.add(run for run in batch.runs if self._is_open(run.file))
            for file in filter(self._is_open, batch.changed):
                self._note_change(file)
            for file, path, error in batch.lost:
                self._archive.note_trouble(path, error)
                self._withdraw(file)
            self._link.poke()
            self._wake()

    def _note_change(self, file: int) -> None:
        path = self._entries[file].path
        times = self._changes[path] = self._changes.get(path, 0) + 1
        if times <= MAX_CHANGES:
            self._again.append(file)
        else:
            self._archive.note_trouble(path, SourceChangedError(path))
            self._withdraw(file)

    def _is_open(self, file: int) -> bool:
        """Whether a file is asked for, and neither taken back nor given up."""
        return file in self._entries and file not in self._failed

    def _withdraw(self, file: int) -> None:
        if self._entries.pop(file, None) is not None:
            self._asked.discard(file)
            self._outbox.skip(file)
            self._link.poke()

    async def _answer(self) -> None:
        """Say which of the files that the server would remove are gone."""
        while True:
            while not self._extras:
                await self._news.wait()
            paths, self._extras = self._extras, ()
            gone = set(await trio.to_thread.run_sync(self._archive.gone, paths))
            self._say(m.ArchiveGone(tuple([n for n, path in enumerate(paths) if path in gone])))

    async def _show(self) -> None:
        before, then = 0, trio.current_time()
        moved = then  # when there was last something else to do than to wait for the server
        while True:
            await trio.sleep(PROGRESS_SECONDS)
            done, now = self._sent_bytes - self._exchange.in_flight, trio.current_time()
            rate = (done - before) / (now - then)
            before, then = done, now
            sending = self._wanted or self._outbox.size or self._exchange.in_flight
            if sending or self._hashing.total or not self._pages:
                moved = now
            if self._hashing.total and not sending:
                self._tell(Hashing(self._hashing.done, self._hashing.total))
                continue
            if now - moved > COMPARING_SECONDS:
                self._tell(Comparing(sum(self._pages)))
                continue
            files = len(self._asked)
            waiting = min(len(self._wanted), files)
            total = max(self._asked_bytes, done)
            self._tell(Progress(self._looked, files - waiting, files, done, total, rate))

    def _say(self, message: m.SyncMessage) -> None:
        self._exchange.sent(message)
        self._link.send(message)

    def _wake(self) -> None:
        self._news.set()
        self._news = trio.Event()

    # --- the end ----------------------------------------------------------------------

    def _what_happened(self) -> FuryMeshError:
        because = self._link.closed_because or LinkClosedError("the link was closed")
        if self._link.farewell in (m.Reason.FORBIDDEN, m.Reason.PROTOCOL):
            return PeerError(str(because))
        # What a server says is no trouble of the network.
        return UnavailableError(str(because)) if self._link.farewell else because

    def _report(self, end: m.NextSync) -> Report:
        troubles = self._archive.troubles
        named = [*self._failed.values(), *(("", line) for line in troubles.lines())]
        files = len(self._asked - self._failed.keys())
        failed = len(self._failed) + troubles.count
        return Report(
            files=files,
            bytes_sent=self._sent_bytes,
            skipped=max(self._looked - files - self._copied - len(self._failed), 0),
            copied=self._copied,
            removed=end.removed,
            failed_count=failed,
            failed=tuple(named[:MAX_REPORTED]),
            left_out=tuple(troubles.notes()),
            notice=end.notice,
            seconds=trio.current_time() - self._started,
            next_sync=end.seconds,
        )


def _next(pages: Iterator[list[FileInfo]]) -> list[FileInfo] | None:
    return next(pages, None)
