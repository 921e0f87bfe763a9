"""Chunks on their way out: upload slots turned into pieces on links.

Always true:

* a job is in the queue of exactly one link, the one of its peer, and holds a
  slot of `Uploads` unless it was released;
* a job is released, once, when its link refuses bytes; it goes on, outside the
  slots, when the link does, and until then no other request of that link gets a
  slot. So a crowd that asks and does not read costs others next to nothing, and
  a peer that paused loses nothing of its chunk and keeps its place in the queue;
* pieces of one chunk come in order, and a link that was told that a chunk will
  not come is asked for no piece before that message is out.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import trio

from furymesh.core.errors import FuryMeshError
from furymesh.core.ids import FileId
from furymesh.core.uploads import Job, Uploads
from furymesh.net.handler import Piece
from furymesh.net.secure_link import SecureLink
from furymesh.swarm.member import ChunkSource
from furymesh.swarm.share import Share
from furymesh.wire import codec
from furymesh.wire import messages as m

DISK_THREADS = 4  # cold reads at once
# A link refuses bytes when it has taken none for a few round trips, in which an honest
# peer acknowledges something; within these seconds, for others make better use of the
# slot. Who is held wrongly loses nothing by it.
ROUND_TRIPS = 2
MIN_RELIEF_SECONDS = 0.05
MAX_RELIEF_SECONDS = 0.25
LOOK_SECONDS = 0.05  # between two looks at the links while anything is sent
IDLE_LOOK_SECONDS = 0.25  # and while nothing is


@dataclass(slots=True, eq=False)
class _Chunk:
    job: Job
    offset: int = 0
    slot: bool = True  # whether it holds one


@dataclass(frozen=True, slots=True)
class ChunkPiece:
    """A piece of a chunk, read when the writer has room for it."""

    message: m.Data
    source: ChunkSource
    share: Share
    job: Job
    limiter: trio.CapacityLimiter
    due: float  # when the share's limit lets it go, in trio's time

    def read_now(self, view: memoryview) -> bool:
        if self.due > trio.current_time():
            return False
        return self.source.resident_read_into(self.message.chunk, self.message.offset, view)

    async def read(self, view: memoryview) -> None:
        await trio.sleep_until(self.due)
        await trio.to_thread.run_sync(
            self.source.read_into,
            self.message.chunk,
            self.message.offset,
            view,
            limiter=self.limiter,
        )


class Sending:
    """The chunks that are on their way out, per link."""

    def __init__(self, uploads: Uploads, shares: dict[FileId, Share]) -> None:
        self._uploads = uploads
        self._shares = shares
        self._queues: dict[SecureLink, deque[_Chunk]] = {}
        self._refusing: set[SecureLink] = set()
        self._disk = trio.CapacityLimiter(DISK_THREADS)
        self.report: Callable[[str], None] = lambda problem: None

    # --- links --------------------------------------------------------------------

    def open(self, link: SecureLink) -> None:
        """A link can be given jobs from now on."""
        self._queues[link] = deque()

    def close(self, link: SecureLink) -> None:
        """The link has ended, and its shares have let go of it."""
        for chunk in self._queues.pop(link):
            self._release(chunk)
        self._refusing.discard(link)
        self.dispatch()

    # --- jobs ---------------------------------------------------------------------

    def dispatch(self) -> None:
        """Give free slots to the requests that deserve them."""
        while (job := self._uploads.next_job(self._refusing)) is not None:
            link = job.peer
            assert isinstance(link, SecureLink)
            self._queues[link].append(_Chunk(job))
            link.poke()

    async def watch(self) -> None:
        """See, until cancelled, that no link that refuses bytes holds a slot."""
        while True:
            await trio.sleep(LOOK_SECONDS if self._uploads.active else IDLE_LOOK_SECONDS)
            refusing = {link for link in self._queues if _refuses(link)}
            if refusing == self._refusing:
                continue
            for link in refusing - self._refusing:
                for chunk in self._queues[link]:
                    self._release(chunk)
            self._refusing = refusing
            self.dispatch()

    def abandon(self, link: SecureLink, file_id: FileId, index: int) -> None:
        """Stop sending a chunk that the peer no longer wants, or that cannot be read."""
        self._drop(link, lambda job: (job.file_id, job.chunk) == (file_id, index))

    def leave(self, link: SecureLink, file_id: FileId) -> None:
        """Stop sending chunks of a share."""
        self._drop(link, lambda job: job.file_id == file_id)

    def leave_all(self, link: SecureLink) -> None:
        """Stop sending anything."""
        self._drop(link, lambda job: True)

    def _drop(self, link: SecureLink, which: Callable[[Job], bool]) -> None:
        queue = self._queues.get(link)
        dropped = [chunk for chunk in queue or () if which(chunk.job)]
        for chunk in dropped:
            self._finish(link, chunk)
        if dropped:
            self.dispatch()

    def _finish(self, link: SecureLink, chunk: _Chunk) -> None:
        self._queues[link].remove(chunk)
        self._release(chunk)

    def _release(self, chunk: _Chunk) -> None:
        if chunk.slot:
            chunk.slot = False
            self._uploads.finished(chunk.job)

    # --- pieces -------------------------------------------------------------------

    def piece(self, link: SecureLink, room: int) -> ChunkPiece | None:
        """The next piece for a link, of at most `room` bytes."""
        queue = self._queues.get(link)
        if not queue:
            return None
        chunk = queue[0]
        job = chunk.job
        share = self._shares[job.file_id]
        number = link.session.number(job.file_id)
        if share.source is None or not share.have >> job.chunk & 1:
            link.send(m.Reject(number, (job.chunk,), m.Reason.NOT_HELD))
            self._finish(link, chunk)
            self.dispatch()
            return None  # the Reject goes before any other chunk
        length = share.geometry.length(job.chunk)
        room = min(room, codec.MAX_PIECE, share.upload.record or room)
        size = min(length - chunk.offset, room)
        message = m.Data(number, job.chunk, chunk.offset, size)
        chunk.offset += size
        if chunk.offset == length:
            self._finish(link, chunk)
            self.dispatch()
        due = share.upload.spend(size)
        return ChunkPiece(message, share.source, share, job, self._disk, due)

    def unreadable(self, link: SecureLink, piece: Piece, error: FuryMeshError) -> None:
        """A piece could not be read.

        If the content has moved meanwhile, it is read again from where it is
        now. Otherwise the chunk is withdrawn, and nobody is to blame.
        """
        assert isinstance(piece, ChunkPiece)
        share, index = piece.share, piece.message.chunk
        current = self._shares.get(share.file_id) is share
        wanted = current and link in share.members and link in self._queues
        if current and share.source is not piece.source:
            if wanted:
                self._rewind(link, piece)
            return
        self.abandon(link, share.file_id, index)
        if wanted:
            number = link.session.number(share.file_id)
            link.send(m.Reject(number, (index,), m.Reason.NOT_HELD))
        if current:
            self.report(f"{share.name}: {error}")
            share.unreadable(index, error)

    def _rewind(self, link: SecureLink, piece: ChunkPiece) -> None:
        queue = self._queues[link]
        message, length = piece.message, piece.share.geometry.length(piece.message.chunk)
        if message.offset + message.length == length:  # its job was done with this piece
            queue.appendleft(_Chunk(piece.job, message.offset, slot=False))
        elif queue and queue[0].job is piece.job:
            queue[0].offset = message.offset
        link.poke()


def _refuses(link: SecureLink) -> bool:
    seconds = link.refused_for()
    if seconds <= MIN_RELIEF_SECONDS:
        return False
    patience = ROUND_TRIPS * link.round_trip() or MAX_RELIEF_SECONDS
    return seconds > min(patience, MAX_RELIEF_SECONDS)
