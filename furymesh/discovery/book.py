"""Addresses heard of, and when each may be tried again.

Always true: a table holds at most MAX_ADDRESSES per share, addresses named by
the user are never pushed out by hearsay, and an address that failed waits at
least its back-off, doubled at each failure up to a ceiling that depends on
who named it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from random import Random

from furymesh.core.ids import FileId
from furymesh.core.link import Address

MAX_ADDRESSES = 500  # per share; a swarm node links to about ten of them
FIRST_BACKOFF = 0.5  # seconds
# The user waits for an address he typed; hearsay can wait.
MAX_BACKOFF_NAMED = 5.0
MAX_BACKOFF_HEARD = 120.0
GIVE_UP = 6  # failures after which hearsay is forgotten


class Source(IntEnum):
    """Who named an address; smaller is more trusted."""

    USER = 0
    LINK = 1
    CONFIG = 2
    RESUME = 3
    EXCHANGE = 4

    @property
    def named(self) -> bool:
        return self is not Source.EXCHANGE


@dataclass(slots=True)
class Candidate:
    """One address of one share."""

    address: Address
    source: Source
    not_before: float = 0.0
    failures: int = 0
    busy: bool = False  # dialled or linked at the moment
    outcome: str = "connecting"  # what came of it so far, in words


class PeerBook:
    """Candidates per share."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self._shares: dict[FileId, dict[tuple[str, int], Candidate]] = {}

    def add(self, file_id: FileId, address: Address, source: Source) -> None:
        """Remember an address; the most trusted source of it counts."""
        table = self._shares.setdefault(file_id, {})
        key = (address.host, address.port)
        known = table.get(key)
        if known is not None:
            if source < known.source:
                known.source = source
                known.address = address
            return
        if len(table) >= MAX_ADDRESSES and not self._make_room(table):
            return
        table[key] = Candidate(address, source)

    def forget(self, file_id: FileId) -> None:
        self._shares.pop(file_id, None)

    def drop(self, file_id: FileId, candidate: Candidate) -> None:
        """An address that leads nowhere useful, such as to ourselves."""
        self._shares.get(file_id, {}).pop((candidate.address.host, candidate.address.port), None)

    def candidates(self, file_id: FileId) -> list[Candidate]:
        return list(self._shares.get(file_id, {}).values())

    def due(self, file_id: FileId, now: float) -> Candidate | None:
        """The best candidate to dial now: most trusted, fewest failures, random."""
        ready = [
            candidate
            for candidate in self._shares.get(file_id, {}).values()
            if not candidate.busy and candidate.not_before <= now
        ]
        if not ready:
            return None
        return min(ready, key=lambda c: (c.source, c.failures, self._rng.random()))

    def next_due(self, file_id: FileId) -> float | None:
        """When the next candidate may be dialled; None if there is none."""
        times = [c.not_before for c in self._shares.get(file_id, {}).values() if not c.busy]
        return min(times, default=None)

    def failed(self, file_id: FileId, candidate: Candidate, now: float, error: str) -> None:
        """A dial failed or its link ended: wait before the next try, with jitter."""
        candidate.busy = False
        candidate.failures += 1
        candidate.outcome = error
        if candidate.failures >= GIVE_UP and not candidate.source.named:
            self.drop(file_id, candidate)
            return
        ceiling = MAX_BACKOFF_NAMED if candidate.source.named else MAX_BACKOFF_HEARD
        delay = min(FIRST_BACKOFF * 2 ** (candidate.failures - 1), ceiling)
        candidate.not_before = now + delay * self._rng.uniform(0.75, 1.25)

    def worked(self, candidate: Candidate) -> None:
        """A dial made a link that is of use."""
        candidate.failures = 0
        candidate.outcome = "connected, but without what is missing"

    def _make_room(self, table: dict[tuple[str, int], Candidate]) -> bool:
        for key, candidate in table.items():
            if not candidate.source.named and not candidate.busy:
                del table[key]
                return True
        return False
