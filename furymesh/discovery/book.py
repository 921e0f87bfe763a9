"""Addresses heard of, and when each may be tried again.

Always true: a table holds at most MAX_ADDRESSES per share, addresses named by
the user are never pushed out by hearsay, and an address that failed waits at
least its back-off, doubled at each failure up to a ceiling that depends on
who named it, and on whether anybody else helps meanwhile. Hearsay that is not heard
again is forgotten after a while, and no one source of it can fill the table.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Container
from dataclasses import dataclass, field
from enum import IntEnum
from random import Random

from furymesh.core.ids import FileId, Process
from furymesh.core.link import Address
from furymesh.net.secure_link import SecureLink

MAX_ADDRESSES = 500  # per share; a swarm node links to about ten of them
FIRST_BACKOFF = 0.5  # seconds
# The user waits for an address he typed, though not while others bring what he
# asked for; hearsay can wait.
MAX_BACKOFF_NEEDED = 5.0
MAX_BACKOFF_NAMED = 60.0
MAX_BACKOFF_HEARD = 120.0
JITTER = (0.6, 1.0)  # of a back-off, so that not all come back at once
MAX_DOUBLINGS = 8  # past the longest back-off; unbounded, an hour of failures ends the floats
MAX_OF_SOURCE = 200  # addresses per share by hearsay of one source; the others find room
# Whoever is there is heard of again within minutes, by every source of hearsay but
# exchange, whose addresses serve at once or not at all.
HEARSAY_SECONDS = 3600.0
GIVE_UP = 6  # failures after which hearsay is forgotten
# Addresses that one teller may add to a share, those dropped lately among them: three
# introductions to a large swarm. More liars than five are needed to fill the table with
# nothing.
MAX_TOLD = 100
# Forgotten addresses are remembered as such, so that hearsay does not bring them
# back at once; but a peer that was away for a while may be told of again.
MAX_DROPPED = 2000  # per share
DROPPED_SECONDS = 600.0
# While a named address waits for its turn, hearsay leaves it two of the five
# places to dial at once, and two of the ten links.
MAX_HEARD_DIALS = 3
MAX_HEARD = 8


class Source(IntEnum):
    """Who named an address; smaller is more trusted."""

    USER = 0
    LINK = 1
    CONFIG = 2
    RESUME = 3
    LAN = 4
    EXCHANGE = 5
    TRACKER = 6
    DHT = 7
    RELAY = 8

    @property
    def named(self) -> bool:
        """Whether it is meant for this share and by somebody who is trusted, no hearsay."""
        return self <= Source.RESUME

    @property
    def label(self) -> str:
        """In one word, for people and programs."""
        return self.name.lower()

    @property
    def place(self) -> str:
        """Where peers are looked for by it, "" if it does not look."""
        return _PLACES.get(self, "")


_PLACES = {
    Source.LAN: "on the local network",
    Source.TRACKER: "at trackers",
    Source.DHT: "in the DHT",
    Source.RELAY: "at relays",
}

Reach = Callable[[], Awaitable[SecureLink]]  # raises FuryMeshError


@dataclass(slots=True)
class Candidate:
    """One address of one share."""

    address: Address
    source: Source
    not_before: float = 0.0
    spare: float = 0.0  # seconds more that it may wait while others help
    failures: int = 0
    busy: bool = False  # dialled or linked at the moment
    linked: bool = False
    outcome: str = "not tried yet"  # what came of it so far, in words
    heard_at: float | None = None  # None: since the last look
    # Who is there: by the link, once there was one; before, as hearsay claims.
    process: Process | None = None
    via: Reach | None = None  # makes a link to it; None: it is dialled
    teller: str | None = None  # whose word it was at first, where that is limited

    @property
    def relayed(self) -> bool:
        """Whether it was heard of from a relay, and may be reached through it only."""
        return self.via is not None

    def other_way(self) -> Reach | None:
        """How to link to it now if not by dialling it.

        In turns with dialling where it was named: who only told of another way must not
        keep this process from going the plain one.
        """
        return self.via if not self.source.named or self.failures % 2 else None

    def due_at(self, helped: bool) -> float:
        """When it may be dialled, by whether others bring what the share needs."""
        return self.not_before + (self.spare if helped else 0.0)


@dataclass(slots=True)
class _Table:
    """What is known of one share."""

    candidates: dict[tuple[str, int], Candidate] = field(default_factory=dict)
    # Dropped addresses, oldest first: when hearsay of them counts again, and the teller.
    dropped: dict[tuple[str, int], tuple[float, str | None]] = field(default_factory=dict)
    told: Counter[str] = field(default_factory=Counter)  # both, by teller

    def of(self, source: Source) -> int:
        return sum(candidate.source is source for candidate in self.candidates.values())

    def remove(self, key: tuple[str, int]) -> None:
        """Forget a candidate, whose teller may tell of another one."""
        self._settle(self.candidates.pop(key).teller)

    def pardon(self, key: tuple[str, int]) -> None:
        """Forget that an address was dropped, if it was."""
        _, teller = self.dropped.pop(key, (0.0, None))
        self._settle(teller)

    def _settle(self, teller: str | None) -> None:
        if teller is not None:
            self.told[teller] -= 1
            if not self.told[teller]:
                del self.told[teller]

    def expire(self, now: float) -> None:
        for key, candidate in list(self.candidates.items()):
            if candidate.heard_at is None or candidate.busy:
                candidate.heard_at = now
            elif not candidate.source.named and now - candidate.heard_at > HEARSAY_SECONDS:
                self.remove(key)
        while self.dropped and self.dropped[oldest := next(iter(self.dropped))][0] <= now:
            self.pardon(oldest)


class PeerBook:
    """Candidates per share."""

    def __init__(self, rng: Random, linked: Container[Process] = ()) -> None:
        """`linked` are the processes to which there are links, none of which is dialled."""
        self._rng = rng
        self._linked = linked
        self._shares: dict[FileId, _Table] = {}
        self._watchers: dict[FileId, Callable[[], None]] = {}
        self._now = 0.0  # when the book was last asked

    def watch(self, file_id: FileId, tell: Callable[[], None] | None) -> None:
        """Call `tell` whenever a candidate for a share is added; None ends that."""
        if tell is None:
            self._watchers.pop(file_id, None)
        else:
            self._watchers[file_id] = tell

    def add(
        self,
        file_id: FileId,
        address: Address,
        source: Source,
        *,
        teller: str | None = None,
        process: Process | None = None,
        via: Reach | None = None,
    ) -> None:
        """Remember an address; the most trusted source of it counts.

        `via` makes a link to it otherwise than by dialling it.

        Hearsay names its `teller`, the party of a link, and is ignored when that one
        told too much or when the address was dropped before.
        """
        table = self._shares.setdefault(file_id, _Table())
        key = (address.host, address.port)
        known = table.candidates.get(key)
        if known is not None:
            known.heard_at = None
            if not known.linked and not known.source.named:
                known.process = process or known.process
            if source < known.source:
                known.source = source
                known.address = address
                known.via = None  # for whom, this source may not have meant
            # Hearsay leads nobody else to where the user says who is.
            if via and process and known.address.node_id in (None, process[0]):
                known.via = via
            return
        told_too_much = teller is not None and table.told[teller] >= MAX_TOLD
        if not source.named and (told_too_much or key in table.dropped):
            return
        if not source.named and table.of(source) >= MAX_OF_SOURCE:
            if not _make_room(table, source, of_source=True):
                return
        elif len(table.candidates) >= MAX_ADDRESSES and not _make_room(table, source):
            return
        if teller is not None:
            table.told[teller] += 1
        table.pardon(key)
        table.candidates[key] = Candidate(address, source, process=process, via=via, teller=teller)
        if (tell := self._watchers.get(file_id)) is not None:
            tell()

    def forget(self, file_id: FileId) -> None:
        self._shares.pop(file_id, None)

    def drop(self, file_id: FileId, candidate: Candidate) -> None:
        """An address that leads nowhere useful, such as to ourselves: hearsay of it is over."""
        table = self._shares.get(file_id)
        if table is None:
            return
        key = (candidate.address.host, candidate.address.port)
        if (gone := table.candidates.pop(key, None)) is not None:
            table.dropped[key] = self._now + DROPPED_SECONDS, gone.teller
            if len(table.dropped) > MAX_DROPPED:
                table.pardon(next(iter(table.dropped)))

    def candidates(self, file_id: FileId) -> list[Candidate]:
        table = self._shares.get(file_id)
        return list(table.candidates.values()) if table else []

    def processes(self, file_id: FileId) -> set[Process]:
        """Those that take part in a share, as far as is known here."""
        return {c.process for c in self.candidates(file_id) if c.process is not None}

    def due(self, file_id: FileId, now: float, *, helped: bool = False) -> Candidate | None:
        """The best candidate to dial now: most trusted, fewest failures, random.

        `helped` says that others bring what the share needs.
        """
        self._now = now
        if (table := self._shares.get(file_id)) is not None:
            table.expire(now)
        known = self.candidates(file_id)
        idle = [c for c in known if not c.busy and c.process not in self._linked]
        ready = [candidate for candidate in idle if candidate.due_at(helped) <= now]
        if any(candidate.source.named for candidate in idle):
            heard = [candidate for candidate in known if not candidate.source.named]
            busy = [candidate for candidate in heard if candidate.busy]
            dialled = sum(not candidate.linked for candidate in busy)
            if dialled >= MAX_HEARD_DIALS or len(busy) >= MAX_HEARD:
                ready = [candidate for candidate in ready if candidate.source.named]
        if not ready:
            return None
        return min(ready, key=lambda c: (c.source, c.failures, self._rng.random()))

    def failed(self, file_id: FileId, candidate: Candidate, now: float, error: str) -> None:
        """A dial failed or its link ended: wait before the next try, with jitter."""
        self._now = now
        candidate.busy = candidate.linked = False
        candidate.failures += 1
        candidate.outcome = error
        if candidate.failures >= GIVE_UP and not candidate.source.named:
            self.drop(file_id, candidate)
            return
        longest = MAX_BACKOFF_NAMED if candidate.source.named else MAX_BACKOFF_HEARD
        needed = MAX_BACKOFF_NEEDED if candidate.source.named else MAX_BACKOFF_HEARD
        backoff = FIRST_BACKOFF * 2 ** min(candidate.failures - 1, MAX_DOUBLINGS)
        jitter = self._rng.uniform(*JITTER)
        candidate.not_before = now + min(backoff, needed) * jitter
        candidate.spare = (min(backoff, longest) - min(backoff, needed)) * jitter

    def connected(self, candidate: Candidate, process: Process) -> None:
        """A dial made a link, to this process; whether it is of use will be seen."""
        candidate.linked = True
        candidate.process = process
        candidate.outcome = "connected, but without what is missing"

    def helped(self, candidate: Candidate) -> None:
        """The link brought something good: what failed before is forgotten."""
        candidate.failures = 0


def _make_room(table: _Table, source: Source, *, of_source: bool = False) -> bool:
    """Forget some hearsay, the worst first; for more hearsay only what has failed.

    With `of_source` only what is of the same source.
    """
    spare = [
        (candidate.failures, key)
        for key, candidate in table.candidates.items()
        if not candidate.source.named
        and not candidate.busy
        and (candidate.source is source or not of_source)
    ]
    failures, key = max(spare, default=(0, None))
    if key is None or not (source.named or failures):
        return False
    table.remove(key)
    return True
