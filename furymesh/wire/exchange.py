"""What may be said when in folder sync: the state machine of one session on a link.

The client identifies itself and waits for its turn. Then it announces its files
page by page, the server answers each page with what it wants of it, and their
bytes come in batches; none waits for the one before. When everything was
announced and nothing is wanted any more, the server may ask what is gone, and
ends the session.

Always true: no more pages are unanswered, and no more batches under way, than
the limits here allow; bytes come only of files that were asked for, and only
such as the file has. Both ends run the same machine over what they say and what
they hear. Breaches raise ProtocolError (theirs) or IllegalStateError (ours).
"""

from __future__ import annotations

from collections import deque
from enum import Enum, auto

from furymesh.core.errors import IllegalStateError, ProtocolError
from furymesh.wire import messages as m
from furymesh.wire.coding import need
from furymesh.wire.sync_codec import DIGEST_SIZE, MAX_FILES

SYNC = "sync"  # the feature in Hello
WINDOW_PAGES = 8  # unanswered: enough to keep both ends at work
WINDOW_BATCHES = 256  # not yet taken in: each costs the server a little besides its bytes
WINDOW_BYTES = 16 * 1024 * 1024  # of them: what a fast and distant link holds


class Phase(Enum):
    IDENTIFY = auto()
    QUEUED = auto()
    OPEN = auto()
    OVER = auto()


_CLIENT: dict[Phase, tuple[type, ...]] = {
    Phase.IDENTIFY: (m.Identify,),
    Phase.QUEUED: (),
    Phase.OPEN: (m.ArchiveInfo, m.ArchiveData, m.ArchiveSkip, m.ArchiveGone),
    Phase.OVER: (),
}
_SERVER: dict[Phase, tuple[type, ...]] = {
    Phase.IDENTIFY: (),
    Phase.QUEUED: (m.Busy, m.Ready),
    Phase.OPEN: (
        *(m.ArchiveTasks, m.ArchiveWritten, m.ArchiveFailed),
        *(m.ArchiveExtras, m.NextSync),
    ),
    Phase.OVER: (),
}


class Exchange:
    """One end of a session: tell it each message of folder sync, in order."""

    def __init__(self, *, client: bool) -> None:
        self.phase = Phase.IDENTIFY
        self.announced = 0  # entries
        self.last = False  # every file was announced
        self._client = client
        self._pages: deque[tuple[int, m.ArchiveInfo]] = deque()  # unanswered; first number of each
        # Sizes of the files that were asked for; digests are asked for of the others.
        self._wanted: dict[int, int] = {}
        self._unhashed: set[int] = set()
        self._later: dict[int, int] = {}  # sizes of those put off until others are removed
        self._void: dict[int, int] = {}  # failed: what was under way may still come
        self._batches: deque[int] = deque()  # bytes of those not yet taken in
        self.in_flight = 0  # their sum
        self._extras = 0  # paths asked about and not answered

    @property
    def pages_left(self) -> int:
        """How many more pages may be announced now."""
        return WINDOW_PAGES - len(self._pages)

    @property
    def room(self) -> int:
        """Bytes of the next batch that may be sent now."""
        full = len(self._batches) >= WINDOW_BATCHES
        return 0 if full else WINDOW_BYTES - self.in_flight

    def is_over(self, due: int = 0) -> bool:
        """Whether all is announced, answered and done, but for the last `due` files.

        The client sees that it has sent a file, and not whether it is done.
        """
        waits = len(self._pages) + len(self._unhashed)
        return self.last and waits + (0 if self._client else len(self._wanted) - due) == 0

    def done(self, file: int) -> None:
        """The server has all that it wanted of a file, unless the client took it back."""
        self._wanted.pop(file, None)

    def sent(self, message: m.SyncMessage) -> None:
        """This end says something; raises IllegalStateError if it may not."""
        try:
            self._note(message, self._client)
        except ProtocolError as error:
            raise IllegalStateError(str(error)) from None

    def received(self, message: m.SyncMessage) -> None:
        """The other end says something; raises ProtocolError if it may not."""
        self._note(message, not self._client)

    def _note(self, message: m.SyncMessage, by_client: bool) -> None:
        legal = (_CLIENT if by_client else _SERVER)[self.phase]
        name = type(message).__name__
        need(isinstance(message, legal), f"{name} while {self.phase.name} in folder sync")
        match message:
            case m.Identify():
                self.phase = Phase.QUEUED
            case m.Ready():
                self.phase = Phase.OPEN
            case m.ArchiveInfo():
                self._info(message)
            case m.ArchiveTasks():
                self._tasks(message)
            case m.ArchiveData():
                self._data(message)
            case m.ArchiveSkip():
                self._skip(message)
            case m.ArchiveWritten():
                need(message.batches <= len(self._batches), "ArchiveWritten of what was not sent")
                for _ in range(message.batches):
                    self.in_flight -= self._batches.popleft()
            case m.ArchiveFailed():
                need(message.file < self.announced, "ArchiveFailed of no file")
                self._unhashed.discard(message.file)
                self._later.pop(message.file, None)
                if message.file in self._wanted:
                    self._void[message.file] = self._wanted.pop(message.file)
            case m.ArchiveExtras():
                need(self.is_over() and not self._extras, "ArchiveExtras too early")
                self._extras = len(message.paths)
            case m.ArchiveGone():
                need(self._extras > 0, "ArchiveGone that nobody asked for")
                need(max(message.places, default=0) < self._extras, "ArchiveGone of no path")
                self._extras = 0
            case m.NextSync():
                need(self.is_over() and not self._extras, "NextSync too early")
                self.phase = Phase.OVER

    def _info(self, info: m.ArchiveInfo) -> None:
        need(self.pages_left > 0, "too many unanswered ArchiveInfo")
        need(not self.last or bool(self._wanted or self._unhashed), "ArchiveInfo after the last")
        need(not (self.last and info.last), "two last ArchiveInfo")
        need(self.announced + len(info.sizes) <= MAX_FILES, "too many files in one session")
        self._pages.append((self.announced, info))
        self.announced += len(info.sizes)
        self.last = self.last or info.last

    def _tasks(self, tasks: m.ArchiveTasks) -> None:
        if tasks.again:
            need(not (tasks.unhashed or tasks.later or tasks.copied), "ArchiveTasks of no page")
            sizes = self._wanted | self._later if self._later else self._wanted
            need(max(tasks.files, default=0) < self.announced, "ArchiveTasks of no file")
        else:
            need(bool(self._pages), "ArchiveTasks that answers no ArchiveInfo")
            first, page = self._pages.popleft()
            sizes = dict(enumerate(page.sizes, first))
            named = (*tasks.files, *tasks.unhashed, *tasks.later)
            need(all(file in sizes for file in named), "ArchiveTasks of another page")
            for file in tasks.unhashed:
                at = (file - first) * DIGEST_SIZE
                known = any(page.digests[at : at + DIGEST_SIZE])
                need(not known, "ArchiveTasks asks for a digest that was announced")
            self._unhashed.update(tasks.unhashed)
            self._later.update((file, sizes[file]) for file in tasks.later)
        for file, offset in zip(tasks.files, tasks.offsets, strict=True):
            if file not in sizes:
                continue  # asked for again while the client took it back
            need(offset < sizes[file], "ArchiveTasks from beyond a file's end")
            self._wanted[file] = sizes[file]
            self._later.pop(file, None)

    def _data(self, data: m.ArchiveData) -> None:
        need(self.room >= data.length, "more ArchiveData than may be under way")
        for file, offset, length in zip(data.files, data.offsets, data.lengths, strict=True):
            size = self._wanted.get(file, self._void.get(file, 0))
            need(offset + length <= size, "ArchiveData that nobody asked for")
        self._batches.append(data.length)
        self.in_flight += data.length

    def _skip(self, skip: m.ArchiveSkip) -> None:
        for file in skip.files:
            asked = file in self._wanted or file in self._unhashed or file in self._void
            need(asked, "ArchiveSkip of what nobody asked for")
            self._wanted.pop(file, None)
            self._void.pop(file, None)
            self._unhashed.discard(file)
