"""What the scheduler knows of one peer: what it has, owes and may be asked for.

Always true:

* ``owed_bytes`` is what is still to come of the chunks in ``owed``, and ``avoid``
  is the mask of the chunks in ``refusals``;
* a chunk taken back from a peer is not on offer before a round trip begun later
  has ended: until then its old bytes may still come, and they would be taken for
  the new ones.

Of what it owes ``Debts`` keeps the books, of what it has ``Picker``.

A peer is judged by what it brings. Silence makes it *stalled*; a chunk that is
not begun in good time, or begun and brought at less than MIN_RATE, is *overdue*.
Time in which this end had no room to read on is nobody's fault and not counted.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from furymesh.core.bitfield import mask_of
from furymesh.core.pacing import Pace

UNKNOWN_SECONDS = 1.0  # promised time while a peer's rate is not yet known
# A peer that owes us bytes and says nothing at all for this long is stalled: its chunks
# go to others, where there are any, and it is tried with one chunk when it speaks again.
STALL_SECONDS = 2.0
STALL_ROUND_TRIPS = 8.0
# A peer that lives but does not start on a chunk is busy serving others.
BUSY_FACTOR = 8.0
BUSY_GRACE = 10.0
MAX_PROMISE = 10.0  # seconds: a peer cannot buy patience by being slow
# Bytes per second below which a chunk that was begun is given up: less than any
# line that a file could be fetched over, more than it costs nothing to feign.
MIN_RATE = 2 * 1024
MIRROR_REQUESTS = 4  # chunks a mirror may owe: a connection each, and servers limit these
MAX_STRIKES = 3  # × BUSY_GRACE is the longest rest of a peer that keeps trickling


@dataclass(slots=True)
class Owed:
    """One chunk that a peer was asked for."""

    asked_at: float
    promised: float  # seconds
    received: int = 0
    began: float = 0.0  # when its first bytes came
    touched: float = 0.0  # when bytes of it last came

    def untouched(self, now: float) -> float:
        """Seconds in which nothing of it came."""
        return now - max(self.asked_at, self.touched)

    def trickles(self, now: float) -> bool:
        """It was begun and comes too slowly to be waited for."""
        elapsed = now - self.began
        return self.received > 0 and elapsed > BUSY_GRACE and self.received < MIN_RATE * elapsed

    def overdue(self, now: float) -> bool:
        """Nothing of it came for far longer than was promised."""
        patience = BUSY_FACTOR * min(self.promised, MAX_PROMISE) + BUSY_GRACE
        return self.untouched(now) > patience


@dataclass(slots=True, eq=False)
class PeerState:
    """One peer of one download; equal to nothing but itself."""

    number: int  # by which those who use the scheduler know it
    pace: Pace
    key: bytes = b""  # by which all ends know it
    mirror: bool = False  # a server that has everything and knows no swarm
    needed_until: float = 0.0  # a mirror: when the last of what only it has is due
    have: int = 0
    owed: dict[int, Owed] = field(default_factory=dict)
    owed_bytes: int = 0
    suggested: list[int] = field(default_factory=list)
    avoid: int = 0  # chunks it does not give us for now
    refusals: dict[int, float] = field(default_factory=dict)  # the same, and until when
    taken_back: dict[int, float] = field(default_factory=dict)  # old bytes may come: since when
    heard: float = 0.0
    stalled: bool = False
    probing: bool = False  # recovering: one chunk at a time until one completes
    strikes: int = 0  # chunks that trickled since one was completed
    rests_until: float = 0.0  # it trickled: others are asked
    held_since: float | None = None  # we have no room for its bytes
    proven: bool = False  # a chunk of it was verified
    unverified: int = 0  # chunks of it that wait for that

    # --- judging ------------------------------------------------------------------

    def silent(self, now: float, part: float = 1.0) -> bool:
        """It said nothing for so long, or for this part of it, that it must be gone."""
        silence = part * max(STALL_SECONDS, STALL_ROUND_TRIPS * self.pace.rtt)
        return now - max(self.heard, self.pace.last_data) > silence

    @property
    def merit(self) -> float:
        """Bytes per second to expect of it when only some peers can be asked."""
        if self.probing or self.stalled:
            return 0.0
        return self.pace.rate or float("inf")  # unknown: it is worth a try

    def may_be_asked(self, now: float) -> bool:
        return not self.stalled and self.rests_until <= now

    @property
    def on_offer(self) -> int:
        """The chunks that it can be asked for now."""
        mask = self.have & ~self.avoid
        return mask & ~mask_of(self.taken_back) if self.taken_back else mask

    # --- events -------------------------------------------------------------------

    def took_back(self, now: float, chunk: int) -> None:
        """It is not to bring a chunk; of a mirror, the request is simply given up."""
        if not self.mirror:
            self.taken_back[chunk] = now

    def alive(self, now: float) -> None:
        """It said something; if it was stalled it is tried with a single chunk.

        A cut line kept it silent: what it still owes is not held against it.
        """
        if self.stalled:
            self.stalled = False
            self.probing = True
            self._excuse(now, now - max(self.heard, self.pace.last_data))
        self.heard = now

    def round_trip(self, now: float, seconds: float) -> None:
        """One was measured: the bytes of what was taken back before it began have come."""
        self.pace.round_trip(now, seconds)
        for chunk in [c for c, since in self.taken_back.items() if since <= now - seconds]:
            del self.taken_back[chunk]

    def judge(self, now: float) -> list[int]:
        """The chunks it owes that are not worth waiting for; it must prove itself anew."""
        if any(owed.trickles(now) for owed in self.owed.values()):
            # It rests, longer each time.
            self.strikes = min(self.strikes + 1, MAX_STRIKES)
            self.rests_until = now + self.strikes * BUSY_GRACE
            self.probing = True
            return list(self.owed)
        overdue = [chunk for chunk, owed in self.owed.items() if owed.overdue(now)]
        if overdue:
            self.probing = True
            self.refuse(overdue, now + BUSY_GRACE)
        return overdue

    def delivered(self, now: float, chunk: int, size: int) -> Owed:
        """`size` bytes of a chunk that it owes have come."""
        self.alive(now)
        owed = self.owed[chunk]
        if not owed.received:
            owed.began = now
        owed.received += size
        owed.touched = now
        self.owed_bytes -= size
        self.pace.delivered(now, size)
        return owed

    def hold(self, now: float) -> None:
        """From now on its bytes wait for room at this end."""
        if self.held_since is None:
            self.held_since = now

    def go_on(self, now: float) -> None:
        """There is room again: the wait is taken out of every reckoning."""
        if self.held_since is None:
            return
        waited = now - self.held_since
        self.held_since = None
        self.heard = now
        self._excuse(now, waited)

    def _excuse(self, now: float, waited: float) -> None:
        for owed in self.owed.values():
            owed.began += waited
            owed.touched = now

    def refuse(self, chunks: Iterable[int], until: float) -> None:
        """Do not ask it for these chunks for a while."""
        for chunk in chunks:
            self.refusals[chunk] = until
        self.avoid = mask_of(self.refusals)

    def relent(self, now: float) -> None:
        """Refusals age one by one, so that new ones do not keep old ones alive."""
        if any(until <= now for until in self.refusals.values()):
            self.refusals = {c: until for c, until in self.refusals.items() if until > now}
            self.avoid = mask_of(self.refusals)
