"""What to send next, and to whom: the serving half of the swarm.

One Uploads per node. Peers queue requests; whoever has a free slot asks
``next_job``. Two rules make a swarm finish close to its lower bound:

* a slot sends one chunk at full rate before it starts another, and the slot
  goes to the requester that holds least of the share;
* a node that holds a whole share hands out every chunk once before it hands
  any out twice: a request for a chunk that others have, or are getting, is
  turned down with suggestions as long as there are chunks that only this node
  has and the requester lacks.

Always true: a queued chunk is in ``queue`` of exactly one entry; a job that
was handed to a slot is no longer queued; limits below bound every table.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from random import Random

from furymesh.core.bitfield import random_chunk
from furymesh.core.ids import FileId

MAX_QUEUED = 256  # chunks one peer may have queued per share; honest peers stay far below
SUGGESTIONS = 4  # offered with a refusal: more would bind the requester too early
DEFAULT_SLOTS = 4  # chunks on their way at once: enough to fill an uplink, few enough to finish


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
    queue: dict[int, None] = field(default_factory=dict)  # insertion-ordered set
    waiting_since: float = 0.0


@dataclass(slots=True)
class _Share:
    everything: int
    have: int
    requesters: dict[Hashable, _Requester] = field(default_factory=dict)
    handed: dict[int, Hashable] = field(default_factory=dict)  # chunk → the last we gave it to
    handed_mask: int = 0

    @property
    def elsewhere(self) -> int:
        """Chunks that some peer has, or is getting from us."""
        mask = self.handed_mask
        for requester in self.requesters.values():
            mask |= requester.have
        return mask


class Uploads:
    """Queues of requests over all shares of a node, and the order of serving them."""

    def __init__(self, rng: Random, *, slots: int = DEFAULT_SLOTS) -> None:
        self.slots = slots
        self._rng = rng
        self._shares: dict[FileId, _Share] = {}
        self._active: dict[Hashable, int] = {}  # jobs in slots, per peer

    @property
    def active(self) -> int:
        return sum(self._active.values())

    @property
    def queued(self) -> int:
        return sum(
            len(requester.queue)
            for share in self._shares.values()
            for requester in share.requesters.values()
        )

    # --- shares and peers -------------------------------------------------------

    def add_share(self, file_id: FileId, everything: int, have: int) -> None:
        """This node serves a share: the mask of all its chunks and of those it has."""
        self._shares[file_id] = _Share(everything, have)

    def remove_share(self, file_id: FileId) -> None:
        self._shares.pop(file_id, None)

    def gained(self, file_id: FileId, chunk: int) -> None:
        self._shares[file_id].have |= 1 << chunk

    def lost(self, file_id: FileId, mask: int) -> None:
        share = self._shares[file_id]
        share.have &= ~mask
        for requester in share.requesters.values():
            for chunk in [chunk for chunk in requester.queue if mask >> chunk & 1]:
                del requester.queue[chunk]

    def peer_joined(self, file_id: FileId, peer: Hashable) -> None:
        self._shares[file_id].requesters.setdefault(peer, _Requester())

    def peer_has(self, file_id: FileId, peer: Hashable, mask: int) -> None:
        share = self._shares[file_id]
        share.requesters[peer].have |= mask

    def peer_lost(self, file_id: FileId, peer: Hashable, mask: int) -> None:
        self._shares[file_id].requesters[peer].have &= ~mask

    def peer_left(self, file_id: FileId, peer: Hashable) -> None:
        """Forget a peer; what it was handed and did not announce is fresh again."""
        share = self._shares.get(file_id)
        if share is None or share.requesters.pop(peer, None) is None:
            return
        for chunk in [chunk for chunk, to in share.handed.items() if to == peer]:
            self._unhand(share, chunk)

    # --- requests ---------------------------------------------------------------

    def request(self, now: float, file_id: FileId, peer: Hashable, chunk: int) -> Turned | None:
        """Queue a request; a Turned value says that it was not queued and why."""
        share = self._shares[file_id]
        requester = share.requesters[peer]
        bit = 1 << chunk
        if not share.have & bit:
            return Turned(chunk, held=False)
        if chunk in requester.queue:
            return None
        if len(requester.queue) >= MAX_QUEUED:
            return Turned(chunk, held=True, full=True)
        if share.have == share.everything and share.handed.get(chunk) != peer:
            elsewhere = share.elsewhere
            if elsewhere & bit:
                fresh = share.have & ~elsewhere & ~requester.have
                if fresh:
                    return Turned(chunk, held=True, suggest=self._suggest(fresh))
        if not requester.queue:
            requester.waiting_since = now
        requester.queue[chunk] = None
        share.handed[chunk] = peer
        share.handed_mask |= bit
        return None

    def cancel(self, file_id: FileId, peer: Hashable, chunk: int) -> bool:
        """Drop a queued request; False if it was not queued (any more)."""
        share = self._shares[file_id]
        if share.requesters[peer].queue.pop(chunk, 0) == 0:
            return False
        if share.handed.get(chunk) == peer:
            self._unhand(share, chunk)
        return True

    # --- slots ------------------------------------------------------------------

    def next_job(self, peer: Hashable | None = None) -> Job | None:
        """Take a slot for the most deserving request; None if no slot or no request.

        With `peer`, only that peer's requests are considered and a slot is
        assumed to be its own: the way for a writer to go on without a pause.
        """
        if peer is None and self.active >= self.slots:
            return None
        best: tuple[tuple[int, int, float], FileId, Hashable] | None = None
        for file_id, share in self._shares.items():
            for candidate, requester in share.requesters.items():
                if not requester.queue or (peer is not None and candidate != peer):
                    continue
                rank = (
                    self._active.get(candidate, 0),
                    requester.have.bit_count(),
                    requester.waiting_since,
                )
                if best is None or rank < best[0]:
                    best = (rank, file_id, candidate)
        if best is None:
            return None
        _, file_id, chosen = best
        requester = self._shares[file_id].requesters[chosen]
        chunk = next(iter(requester.queue))
        del requester.queue[chunk]
        self._active[chosen] = self._active.get(chosen, 0) + 1
        return Job(chosen, file_id, chunk)

    def finished(self, job: Job) -> None:
        """A slot is free again: the chunk was sent, given up, or its peer is gone."""
        left = self._active[job.peer] - 1
        if left:
            self._active[job.peer] = left
        else:
            del self._active[job.peer]

    # --- helpers ----------------------------------------------------------------

    def _suggest(self, fresh: int) -> tuple[int, ...]:
        chosen: list[int] = []
        while fresh and len(chosen) < SUGGESTIONS:
            chunk = random_chunk(fresh, self._rng)
            fresh &= ~(1 << chunk)
            chosen.append(chunk)
        return tuple(chosen)

    @staticmethod
    def _unhand(share: _Share, chunk: int) -> None:
        del share.handed[chunk]
        share.handed_mask &= ~(1 << chunk)
