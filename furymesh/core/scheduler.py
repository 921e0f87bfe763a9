"""Which peers to ask for chunks, how many, and when to ask another: events in, actions out.

One Scheduler per download. Each event method takes the time, changes the
state at once and returns the actions to carry out; it never waits. Which chunk
a peer is asked for is up to ``Picker``; who owes which is booked in ``Debts``.

Always true:

* a peer owes at most one chunk beyond its window, so chunks are bound to
  peers as late as the link's delay allows;
* at most ``max_senders`` peers owe anything at once, because each needs a place
  for its bytes; when more would send, the slowest gives way to a better one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from random import Random

from furymesh.core.bitfield import chunks_of, mask_of
from furymesh.core.debts import Debts
from furymesh.core.errors import IllegalStateError
from furymesh.core.geometry import Geometry
from furymesh.core.ledger import Ledger
from furymesh.core.pacing import Pace
from furymesh.core.peer_state import BUSY_GRACE, MIRROR_REQUESTS, PeerState
from furymesh.core.picker import Picker

# Chunks of a peer that may be owed or unverified until one of it was good: what a liar
# can waste under each new name. Whoever is honest loses a round trip at the most.
UNPROVEN_CHUNKS = 2
MAX_REQUESTS = 64  # chunks one peer may owe: bounds the queue it has to keep for us
TICK = 0.1  # seconds between two calls of tick
ELSEWHERE_SECONDS = 1.0  # how long a chunk that was handed to others is not asked for again
# Of the silence that stalls a peer: one that owes bytes and was quiet for so long is
# no refuge for the chunks of another that is stalled.
QUIET_PART = 0.5
UNLIMITED = 1 << 30  # senders, where nothing bounds them
YIELD_GAIN = 2.0  # a peer makes way for one that is faster by this factor
# Bytes per second. A peer below this loses its turn in the middle of a chunk when
# a better one waits; a faster one finishes the chunk first.
SLOW_RATE = 64 * 1024


@dataclass(frozen=True, slots=True)
class Request:
    """Ask a peer for chunks."""

    peer: int
    chunks: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Cancel:
    """Tell a peer that chunks are no longer wanted from it."""

    peer: int
    chunks: tuple[int, ...]


Action = Request | Cancel


class Scheduler:
    """Chooses requests for one download; peers are known by integers."""

    def __init__(
        self,
        geometry: Geometry,
        rng: Random,
        *,
        have: int = 0,
        skipped: int = 0,
        max_senders: int = UNLIMITED,
        me: bytes = b"",
    ) -> None:
        """`me` is the key under which the other ends know this one."""
        self.max_senders = max_senders  # at least one; may be changed at any time
        self.limited = False  # our own limit sets the rate: no peer would be faster
        self.ledger = Ledger(geometry, have, skipped)
        self.verifiable = 0  # chunks whose digest is known; no others are requested
        self._geometry = geometry
        self._rng = rng
        self._peers: dict[int, PeerState] = {}
        self._debts = Debts(self.ledger)
        self._picker = Picker(self.ledger, self._debts, rng, self._peers, me)
        self._yielding: PeerState | None = None  # the one that is asked for no more
        self._paused = False
        self._now = 0.0  # of the last event that came with a time

    # --- looking ----------------------------------------------------------------

    def owed(self, peer: int) -> int:
        """Bytes that may come from a peer: of chunks it owes, or that were taken back."""
        state = self._peers[peer]
        return state.owed_bytes + sum(map(self._geometry.length, state.taken_back))

    def owes(self, peer: int, chunk: int) -> bool:
        state = self._peers.get(peer)
        return state is not None and chunk in state.owed

    def availability(self, chunk: int) -> int:
        return self._picker.availability(chunk)

    def check(self) -> None:
        """Raise IllegalStateError if an invariant is broken; for tests."""
        self._debts.check(self._peers.values())

    # --- events -----------------------------------------------------------------

    def peer_joined(self, now: float, peer: int, key: bytes = b"", *, mirror: bool = False) -> None:
        if peer in self._peers:
            raise IllegalStateError(f"peer {peer} joined twice")
        self._peers[peer] = PeerState(peer, Pace(now), key, mirror, needed_until=now, heard=now)

    def peer_left(self, now: float, peer: int) -> list[Action]:
        state = self._peers.pop(peer)
        self._picker.peer_lost(state, state.have)
        self._debts.left(state)
        return self._fill_all(now)

    def peer_has(self, now: float, peer: int, mask: int) -> list[Action]:
        """The peer holds these chunks too."""
        state = self._peers[peer]
        self._now = now
        state.alive(now)
        fresh = self._picker.peer_has(state, mask)
        if not fresh & ~self.ledger.have:
            return []  # the most frequent news of all: nothing to ask for
        return self._fill(now, state)

    def peer_lost(self, now: float, peer: int, mask: int) -> list[Action]:
        """The peer holds these chunks no more."""
        state = self._peers[peer]
        gone = self._picker.peer_lost(state, mask)
        self._debts.take_back(now, state, [chunk for chunk in state.owed if gone >> chunk & 1])
        return self._fill_all(now)

    def verifiable_grew(self, now: float, mask: int) -> list[Action]:
        """The digests of these chunks are known now."""
        self.verifiable |= mask
        return self._fill_all(now)

    def heard(self, now: float, peer: int, round_trip: float | None = None) -> list[Action]:
        """The peer showed that it lives, perhaps with a measured round trip (s)."""
        state = self._peers[peer]
        self._now = now
        state.alive(now)
        if round_trip is not None:
            state.round_trip(now, round_trip)
        return self._fill(now, state)

    def stirred(self, then: float, peer: int) -> None:
        """The last bytes came over the peer's link then, perhaps of an unfinished message."""
        state = self._peers[peer]
        state.heard = max(state.heard, then)

    def held_up(self, now: float, peer: int) -> None:
        """There is no room for the peer's bytes: it waits for us from now on."""
        self._peers[peer].hold(now)

    def let_go(self, now: float, peer: int) -> None:
        """There is room for the peer's bytes again."""
        self._peers[peer].go_on(now)

    def data(self, now: float, peer: int, chunk: int, size: int) -> list[Action]:
        """`size` more bytes of a chunk that the peer owes have arrived."""
        state = self._peers[peer]
        self._now = now
        owed = state.delivered(now, chunk, size)
        if owed.received < self._geometry.length(chunk):
            return self._fill(now, state)
        state.probing = False
        state.strikes = 0
        rivals = self._debts.brought(now, state, chunk)
        actions: list[Action] = [Cancel(rival.number, (chunk,)) for rival in rivals]
        if state is self._yielding and not state.owed:
            self._yielding = None
            return actions + self._fill_all(now)
        for rival in rivals:
            actions += self._fill(now, rival)
        return actions + self._fill(now, state)

    def stored(self, now: float, chunk: int) -> list[Action]:
        """A complete chunk was verified and written."""
        state = self._debts.stored(chunk)
        if state is None or state.proven:
            return []
        state.proven = True
        return self._fill_all(now)

    def bad(self, now: float, chunk: int) -> list[Action]:
        """A complete chunk did not verify, or could not be written."""
        self._debts.bad(chunk)
        return self._fill_all(now)

    def lost(self, now: float, mask: int) -> list[Action]:
        """Stored chunks turned out bad on disk."""
        for chunk in chunks_of(mask):
            self.ledger.lose(chunk)
        return self._fill_all(now)

    def rejected(
        self, now: float, peer: int, chunks: Iterable[int], *, held: bool, suggest: Iterable[int]
    ) -> list[Action]:
        """The peer will not send these chunks.

        `held` tells whether it still has them (it is busy, or handed them to
        others); `suggest` lists chunks it would rather send.
        """
        state = self._peers[peer]
        self._now = now
        state.alive(now)
        refused = mask_of(chunk for chunk in chunks if chunk < self._geometry.chunk_count)
        owed = [chunk for chunk in state.owed if refused >> chunk & 1]
        self._debts.forget(state, owed)
        if held:
            state.refuse(owed, now + ELSEWHERE_SECONDS)
        else:
            self._picker.peer_lost(state, refused)
        state.suggested = [chunk for chunk in suggest if state.have >> chunk & 1]
        return self._fill_all(now)

    def tick(self, now: float) -> list[Action]:
        """Look for stalled peers and late chunks; call every TICK or so."""
        self._now = now
        actions: list[Action] = []
        for state in self._peers.values():
            if state.refusals:
                state.relent(now)
            if state.owed and state.held_since is None:
                actions += self._check_owed(now, state)
        actions += self._make_way(now)
        return actions + self._fill_all(now)

    def pause(self) -> list[Action]:
        """Take back every request, as when the disk is full; `proceed` ends it."""
        self._paused = True
        actions: list[Action] = []
        for state in self._peers.values():
            actions += self._give_up(self._now, state, list(state.owed))
        return actions

    def proceed(self, now: float) -> list[Action]:
        """Ask for chunks again after a pause."""
        self._paused = False
        return self._fill_all(now)

    # --- deciding ---------------------------------------------------------------

    def _check_owed(self, now: float, state: PeerState) -> list[Action]:
        if state.silent(now):
            state.stalled = True
            # What nobody else can bring is waited for: most cuts heal, and what was
            # on its way then comes.
            elsewhere = self._elsewhere(now, state)
            given_up = [chunk for chunk in state.owed if elsewhere >> chunk & 1]
        else:
            given_up = state.judge(now)
        return self._give_up(now, state, given_up)

    def _elsewhere(self, now: float, state: PeerState) -> int:
        """The mask of chunks that others offer which are not falling silent themselves.

        A cut at our own end silences everybody, some a little later than others.
        """
        mask = 0
        for other in self._peers.values():
            quiet = other.owed and other.silent(now, QUIET_PART)
            if other is not state and other.may_be_asked(now) and not quiet:
                mask |= other.on_offer
        return mask

    def _make_way(self, now: float) -> list[Action]:
        """When all places to send are taken, the slowest makes way for a better peer.

        It is asked for no more, and the place is free when it has sent what it
        owes; if that would take too long, it is taken back at once.
        """
        self._yielding = None
        if self.limited or self._debts.senders < self.max_senders:
            return []
        wanted = self.verifiable & ~self.ledger.have
        waiting = (
            state.merit
            for state in self._peers.values()
            if not state.owed and state.may_be_asked(now) and wanted & state.on_offer
        )
        sending = (state for state in self._peers.values() if state.owed)
        state = min(sending, key=lambda state: state.merit)
        if max(waiting, default=0.0) <= YIELD_GAIN * state.merit:
            return []
        self._yielding = state
        since = min(owed.asked_at for owed in state.owed.values())
        if state.merit >= SLOW_RATE or now - since <= BUSY_GRACE or state.held_since is not None:
            return []
        return self._give_up(now, state, list(state.owed))

    def _give_up(self, now: float, state: PeerState, chunks: list[int]) -> list[Action]:
        self._debts.take_back(now, state, chunks)
        return [Cancel(state.number, tuple(chunks))] if chunks else []

    def _fill_all(self, now: float) -> list[Action]:
        actions: list[Action] = []
        if not self._debts.owners and not self.ledger.missing & self.verifiable:
            return actions  # there is nothing to ask for
        # Fast peers choose first; ties in random order so that no peer is favoured.
        # Where not all can be asked, one that was never tried goes before them.
        peers = list(self._peers.values())
        self._rng.shuffle(peers)
        if len(peers) > self.max_senders:
            peers.sort(key=lambda state: -state.merit)
        else:
            peers.sort(key=lambda state: -state.pace.rate)
        for state in peers:
            actions += self._fill(now, state)
        return actions

    def _fill(self, now: float, state: PeerState) -> list[Action]:
        """Ask a peer for chunks until its window is full."""
        chosen: list[int] = []
        while self._may_ask(now, state):
            chunk = self._picker.pick(now, state, self.verifiable)
            if chunk is None:
                break
            self._debts.owe(now, state, chunk)
            chosen.append(chunk)
        return [Request(state.number, tuple(chosen))] if chosen else []

    def _may_ask(self, now: float, state: PeerState) -> bool:
        """Whether a peer may owe one chunk more; a full window, the usual case, is seen first."""
        if state.owed:
            if state.probing or state.owed_bytes >= state.pace.window:
                return False
        elif self._debts.senders >= self.max_senders:
            return False
        if self._paused or state is self._yielding or not state.may_be_asked(now):
            return False
        if not state.proven:
            return len(state.owed) + state.unverified < UNPROVEN_CHUNKS
        return len(state.owed) < (MIRROR_REQUESTS if state.mirror else MAX_REQUESTS)
