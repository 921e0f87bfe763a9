"""What to send next, and to whom: the serving half of the swarm.

One Uploads per node. Peers queue requests; whoever has a free slot asks
``next_job``. Peers come before shares: nobody gets a second slot while another
has none. Shares that are asked for get equally many slots, in turn, however
many requesters each has: a crowd around one leaves the others theirs.

Two rules make a swarm finish close to its lower bound:

* a slot sends one chunk at full rate before it starts another, and the slot
  goes to a requester that holds least of the share, going by what it says
  and by what it was sent: silence is not poverty;
* a node that holds a whole share hands out every chunk once before it hands
  any out twice: a request for a chunk that others have, or are getting, is
  turned down with suggestions as long as there are chunks that only this node
  has and the requester lacks.

How many slots there are is measured: few, unless more bring more.

Always true: a queued chunk is here and in the queue of each peer that waits
for it, once, and those with a queue are in ``waiting``; a job that was handed
to a slot is no longer queued; a chunk is promised (``handed``) by who holds the
whole share to at most one peer, which is still here and has not announced it;
limits below bound every table.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable
from dataclasses import dataclass, field
from random import Random

from furymesh.core.bitfield import chunks_of, mask_of, random_chunk
from furymesh.core.errors import IllegalStateError
from furymesh.core.ids import FileId
from furymesh.core.slots import SlotCount

MAX_QUEUED = 256  # chunks one peer may have queued per share; honest peers stay far below
SUGGESTIONS = 4  # offered with a refusal: more would bind the requester too early
# Chunks on their way at once. Three fill an uplink whose receivers are served by others
# too; each more delays every chunk, so more are used only where they bring more.
DEFAULT_SLOTS = 3
# Requesters whose numbers of chunks differ by less count as equally poor. If they did
# not, every uploader would serve the same poorest peer at once, whose downlink cannot
# take it all, while others wait.
WEALTH_STEP = 4


@dataclass(frozen=True, slots=True)
class Job:
    """Send one chunk of a share to a peer."""

    peer: Hashable
    file_id: FileId
    chunk: int


@dataclass(frozen=True, slots=True)
class Turned:
    """A request that was not queued: why, and what to ask for instead."""

    chunk: int
    held: bool
    full: bool = False
    suggest: tuple[int, ...] = ()


@dataclass(slots=True)
class _Requester:
    have: int = 0
    announced: int = 0  # how many chunks these are
    queue: dict[int, None] = field(default_factory=dict)  # insertion-ordered set
    waiting_since: float = 0.0
    served: int = 0  # jobs of this share it was given

    @property
    def wealth(self) -> int:
        """How many chunks it holds, whether it announced them or not."""
        return max(self.announced, self.served)


@dataclass(slots=True)
class _Share:
    everything: int
    have: int
    turn: int = 0  # how many jobs there had been when it was given its last
    requesters: dict[Hashable, _Requester] = field(default_factory=dict)
    waiting: dict[Hashable, _Requester] = field(default_factory=dict)
    announced: int = 0  # the union of what the requesters have
    # Chunk → to whom it was promised last; until that peer announces the chunk, gives
    # it up or leaves.
    handed: dict[int, Hashable] = field(default_factory=dict)
    handed_mask: int = 0

    @property
    def elsewhere(self) -> int:
        """Chunks that some peer has, or is getting from us."""
        return self.handed_mask | self.announced

    def count_announced(self) -> None:
        self.announced = 0
        for requester in self.requesters.values():
            self.announced |= requester.have

    def unqueue(self, peer: Hashable, chunk: int) -> bool:
        """A chunk is not queued for a peer (any more); False if it was not."""
        queue = self.requesters[peer].queue
        if queue.pop(chunk, 0) is not None:
            return False
        if not queue:
            del self.waiting[peer]
        return True


class Uploads:
    """Queues of requests over all shares of a node, and the order of serving them."""

    def __init__(self, rng: Random, *, slots: int = DEFAULT_SLOTS) -> None:
        self._slots = SlotCount(slots)
        self._rng = rng
        self._shares: dict[FileId, _Share] = {}
        self._jobs = 0  # ever given to slots
        self._active = 0  # in slots now, and the same per peer and per share
        self._of_peer: dict[Hashable, int] = {}
        self._of_share: dict[Hashable, int] = {}

    @property
    def slots(self) -> int:
        """Chunks that may be on their way at once, for now."""
        return self._slots.count

    @property
    def active(self) -> int:
        return self._active

    @property
    def queued(self) -> int:
        return sum(
            len(requester.queue)
            for share in self._shares.values()
            for requester in share.requesters.values()
        )

    # --- shares and peers -------------------------------------------------------

    def add_share(self, file_id: FileId, everything: int, have: int) -> None:
        """This node serves a share: the mask of all its chunks and of those it has.

        Of one that it serves already only the latter may be others.
        """
        known = self._shares.setdefault(file_id, _Share(everything, have))
        self.lost(file_id, known.have & ~have)
        known.have = have

    def remove_share(self, file_id: FileId) -> None:
        self._shares.pop(file_id, None)

    def gained(self, file_id: FileId, chunk: int) -> None:
        self._shares[file_id].have |= 1 << chunk

    def lost(self, file_id: FileId, mask: int) -> None:
        share = self._shares[file_id]
        share.have &= ~mask
        for peer, requester in list(share.waiting.items()):
            for chunk in [chunk for chunk in requester.queue if mask >> chunk & 1]:
                share.unqueue(peer, chunk)
        for chunk in chunks_of(share.handed_mask & mask):
            del share.handed[chunk]
        share.handed_mask &= ~mask

    def peer_joined(self, file_id: FileId, peer: Hashable) -> None:
        self._shares[file_id].requesters.setdefault(peer, _Requester())

    def peer_has(self, file_id: FileId, peer: Hashable, mask: int) -> None:
        share = self._shares[file_id]
        requester = share.requesters[peer]
        requester.announced += (mask & ~requester.have).bit_count()
        requester.have |= mask
        share.announced |= mask
        if share.handed_mask & mask:
            self._unhand(share, peer, chunks_of(share.handed_mask & mask))

    def peer_lost(self, file_id: FileId, peer: Hashable, mask: int) -> None:
        share = self._shares[file_id]
        requester = share.requesters[peer]
        requester.have &= ~mask
        requester.announced = requester.have.bit_count()
        share.count_announced()

    def peer_left(self, file_id: FileId, peer: Hashable) -> None:
        """Forget a peer; what it was handed and did not announce is fresh again."""
        share = self._shares.get(file_id)
        if share is None or share.requesters.pop(peer, None) is None:
            return
        share.waiting.pop(peer, None)
        share.count_announced()
        self._unhand(share, peer, share.handed)

    # --- requests ---------------------------------------------------------------

    def request(self, now: float, file_id: FileId, peer: Hashable, chunk: int) -> Turned | None:
        """Queue a request; a Turned value says that it was not queued and why."""
        share = self._shares[file_id]
        requester = share.requesters[peer]
        bit = 1 << chunk
        self._slots.look(now, self._active >= self.slots)
        if not share.have & bit:
            return Turned(chunk, held=False)
        if chunk in requester.queue:
            return None
        if len(requester.queue) >= MAX_QUEUED:
            return Turned(chunk, held=True, full=True)
        whole = share.have == share.everything
        if whole and share.handed.get(chunk) != peer:
            elsewhere = share.elsewhere
            if elsewhere & bit:
                fresh = share.have & ~elsewhere & ~requester.have
                if fresh:
                    return Turned(chunk, held=True, suggest=self._suggest(fresh))
        if not requester.queue:
            requester.waiting_since = now
            share.waiting[peer] = requester
        requester.queue[chunk] = None
        if whole and not requester.have & bit:
            share.handed[chunk] = peer
            share.handed_mask |= bit
        return None

    def cancel(self, file_id: FileId, peer: Hashable, chunk: int) -> bool:
        """The peer does not want a chunk (now); False if it was not queued (any more)."""
        share = self._shares[file_id]
        self._unhand(share, peer, (chunk,))
        return share.unqueue(peer, chunk)

    # --- slots ------------------------------------------------------------------

    def next_job(self, refusing: Collection[Hashable] = ()) -> Job | None:
        """Take a slot for the most deserving request; None if no slot or no request.

        The requests of peers that are `refusing` what they are sent wait on.
        """
        if self._active >= self._slots.count:
            return None
        best: tuple[tuple[int, int, int, int, float], FileId, Hashable] | None = None
        for file_id, share in self._shares.items():
            busy = self._of_share.get(file_id, 0)
            for candidate, requester in share.waiting.items():
                if candidate in refusing:
                    continue
                rank = (
                    self._of_peer.get(candidate, 0),
                    busy,
                    share.turn,
                    requester.wealth // WEALTH_STEP,
                    requester.waiting_since,
                )
                if best is None or rank < best[0]:
                    best = (rank, file_id, candidate)
        if best is None:
            return None
        _, file_id, chosen = best
        share = self._shares[file_id]
        requester = share.requesters[chosen]
        chunk = next(iter(requester.queue))
        share.unqueue(chosen, chunk)
        requester.served += 1
        self._jobs += 1
        share.turn = self._jobs
        self._active += 1
        self._of_peer[chosen] = self._of_peer.get(chosen, 0) + 1
        self._of_share[file_id] = self._of_share.get(file_id, 0) + 1
        return Job(chosen, file_id, chunk)

    def finished(self, job: Job) -> None:
        """A slot is free again: the chunk was sent, given up, or its peer is gone."""
        self._slots.finished()
        self._active -= 1
        for jobs, key in ((self._of_peer, job.peer), (self._of_share, job.file_id)):
            jobs[key] -= 1
            if not jobs[key]:
                del jobs[key]

    def check(self) -> None:
        """Raise IllegalStateError if an invariant is broken; for tests."""
        for jobs in (self._of_peer, self._of_share):
            if sum(jobs.values()) != self._active or 0 in jobs.values():
                raise IllegalStateError("slots are not in balance")
        for share in self._shares.values():
            if mask_of(share.handed) != share.handed_mask or share.handed_mask & ~share.have:
                raise IllegalStateError("handed chunks and their mask disagree")
            for chunk, peer in share.handed.items():
                if peer not in share.requesters or share.requesters[peer].have >> chunk & 1:
                    raise IllegalStateError(f"chunk {chunk} is handed to who has it or left")
            for peer, requester in share.requesters.items():
                if (peer in share.waiting) != bool(requester.queue):
                    raise IllegalStateError(f"{peer} waits with no queue, or the reverse")
                if requester.announced != requester.have.bit_count():
                    raise IllegalStateError(f"the chunks of {peer} are miscounted")
            announced = share.announced
            share.count_announced()
            if announced != share.announced:
                raise IllegalStateError("what peers announced is not what they have")

    # --- helpers ----------------------------------------------------------------

    def _suggest(self, fresh: int) -> tuple[int, ...]:
        chosen: list[int] = []
        while fresh and len(chosen) < SUGGESTIONS:
            chunk = random_chunk(fresh, self._rng)
            fresh &= ~(1 << chunk)
            chosen.append(chunk)
        return tuple(chosen)

    @staticmethod
    def _unhand(share: _Share, peer: Hashable, chunks: Iterable[int]) -> None:
        """What of these chunks was promised to a peer is promised no more."""
        freed = [chunk for chunk in chunks if share.handed.get(chunk) == peer]
        for chunk in freed:
            del share.handed[chunk]
        share.handed_mask &= ~mask_of(freed)
