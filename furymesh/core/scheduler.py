"""Which chunk to ask of which peer, and when to ask another: events in, actions out.

One Scheduler per download. Each event method takes the time, changes the
state at once and returns the actions to carry out; it never waits.

Always true:

* a chunk is IN_FLIGHT in the ledger exactly while some peer owes it
  (``_owners``) or its complete bytes await verification (``_verifying``);
* a chunk is owed by at most MAX_OWNERS peers, by more than one only in the
  endgame: when no MISSING chunk is left and the first owner is late. Earlier a
  late chunk holds nobody up, and a duplicate takes room from chunks that do;
* a peer owes at most one chunk beyond its window, so chunks are bound to
  peers as late as the link's delay allows;
* at most ``max_senders`` peers owe anything at once, because each needs a place
  for its bytes; when more would send, the slowest gives way to a better one;
* a chunk taken back from a peer is not asked of it again before a round trip
  begun later has ended: until then its old bytes may still come, and they
  would be taken for the new ones.

Rarest first with random ties (Cohen, "Incentives build robustness in
BitTorrent", 2003); late binding and the duplicate of a late chunk keep the
end of a download as fast as its middle.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from random import Random

from furymesh.core.availability import Availability
from furymesh.core.bitfield import chunks_of, mask_of, random_chunk
from furymesh.core.errors import IllegalStateError
from furymesh.core.geometry import Geometry
from furymesh.core.ledger import Ledger
from furymesh.core.pacing import Pace
from furymesh.core.peer_state import BUSY_GRACE, UNKNOWN_SECONDS, Owed, PeerState

MAX_OWNERS = 2  # a late chunk is duplicated once
# Chunks of a peer that may be owed or unverified until one of it was good: what a liar
# can waste under each new name. Whoever is honest loses a round trip at the most.
UNPROVEN_CHUNKS = 2
MAX_REQUESTS = 64  # chunks one peer may owe: bounds the queue it has to keep for us
# A chunk is late when it takes this many times what the peer's rate promised,
# but never before the grace period: rates jump when a swarm changes.
LATE_FACTOR = 2.0
LATE_GRACE = 0.25
# Duplicating pays when the idle peer would be done in clearly less time.
DUPLICATE_GAIN = 2.0
YIELD_GAIN = 2.0  # a peer makes way for one that is faster by this factor
NOISE = 0.02  # seconds: differences below this are not worth a duplicate
TICK = 0.1  # seconds between two calls of tick
ELSEWHERE_SECONDS = 1.0  # how long a chunk that was handed to others is not asked for again
# Of the silence that stalls a peer: one that owes bytes and was quiet for so long is
# no refuge for the chunks of another that is stalled.
QUIET_PART = 0.5
UNLIMITED = 1 << 30  # senders, where nothing bounds them
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
    ) -> None:
        self.max_senders = max_senders  # may be changed at any time
        self.ledger = Ledger(geometry, have, skipped)
        self.verifiable = 0  # chunks whose digest is known; no others are requested
        self._geometry = geometry
        self._rng = rng
        self._peers: dict[int, PeerState] = {}
        self._owners: dict[int, list[int]] = {}
        self._verifying: dict[int, int] = {}  # complete chunks, and who brought them
        self._availability = Availability()
        self._senders = 0  # peers that owe something
        self._yielding: int | None = None  # the one that is asked for no more
        self._paused = False
        self._now = 0.0  # of the last event that came with a time

    # --- looking ----------------------------------------------------------------

    def rate(self, peer: int) -> float:
        return self._peers[peer].pace.rate

    def owed(self, peer: int) -> int:
        """Bytes that may come from a peer: of chunks it owes, or that were taken back."""
        state = self._peers[peer]
        return state.owed_bytes + sum(map(self._geometry.length, state.taken_back))

    def owes(self, peer: int, chunk: int) -> bool:
        state = self._peers.get(peer)
        return state is not None and chunk in state.owed

    def availability(self, chunk: int) -> int:
        return self._availability.count(chunk)

    @property
    def reachable(self) -> int:
        """The mask of chunks that some peer holds."""
        mask = 0
        for peer in self._peers.values():
            mask |= peer.have
        return mask

    # --- events -----------------------------------------------------------------

    def peer_joined(self, now: float, peer: int) -> None:
        if peer in self._peers:
            raise IllegalStateError(f"peer {peer} joined twice")
        self._peers[peer] = PeerState(Pace(now), heard=now)

    def peer_left(self, now: float, peer: int) -> list[Action]:
        state = self._peers.pop(peer)
        self._availability.remove(state.have)
        self._senders -= bool(state.owed)
        for chunk in state.owed:
            self._disown(peer, chunk)
        return self._fill_all(now)

    def peer_has(self, now: float, peer: int, mask: int) -> list[Action]:
        """The peer holds these chunks too."""
        state = self._peers[peer]
        self._alive(now, state)
        fresh = mask & ~state.have
        state.have |= fresh
        self._availability.add(fresh)
        if not fresh & ~self.ledger.have:
            return []  # the most frequent news of all: nothing to ask for
        return self._fill(now, peer)

    def peer_lost(self, now: float, peer: int, mask: int) -> list[Action]:
        """The peer holds these chunks no more."""
        state = self._peers[peer]
        gone = mask & state.have
        state.have &= ~gone
        self._availability.remove(gone)
        for chunk in [chunk for chunk in state.owed if gone >> chunk & 1]:
            self._take_back(now, state, peer, chunk)
        return self._fill_all(now)

    def verifiable_grew(self, now: float, mask: int) -> list[Action]:
        """The digests of these chunks are known now."""
        self.verifiable |= mask
        return self._fill_all(now)

    def heard(self, now: float, peer: int, round_trip: float | None = None) -> list[Action]:
        """The peer showed that it lives, perhaps with a measured round trip (s)."""
        state = self._peers[peer]
        self._alive(now, state)
        if round_trip is not None:
            state.pace.round_trip(now, round_trip)
            for chunk in [c for c, since in state.taken_back.items() if since <= now - round_trip]:
                del state.taken_back[chunk]
        return self._fill(now, peer)

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
            return self._fill(now, peer)
        self._drop_owed(state, chunk)
        state.probing = False
        state.strikes = 0
        rivals = [owner for owner in self._owners.pop(chunk) if owner != peer]
        self._verifying[chunk] = peer
        state.unverified += 1
        actions: list[Action] = []
        for rival in rivals:
            self._drop_owed(self._peers[rival], chunk)
            self._peers[rival].taken_back[chunk] = now
            actions.append(Cancel(rival, (chunk,)))
        if peer == self._yielding and not state.owed:
            self._yielding = None
            return actions + self._fill_all(now)
        for rival in rivals:
            actions += self._fill(now, rival)
        return actions + self._fill(now, peer)

    def stored(self, now: float, chunk: int) -> list[Action]:
        """A complete chunk was verified and written."""
        state = self._verified(chunk)
        self.ledger.store(chunk)
        if state is None or state.proven:
            return []
        state.proven = True
        return self._fill_all(now)

    def bad(self, now: float, chunk: int) -> list[Action]:
        """A complete chunk did not verify, or could not be written."""
        self._verified(chunk)
        self.ledger.release(chunk)
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
        self._alive(now, state)
        refused = mask_of(chunk for chunk in chunks if chunk < self._geometry.chunk_count)
        owed = [chunk for chunk in state.owed if refused >> chunk & 1]
        for chunk in owed:
            self._forget(state, peer, chunk)
        if held:
            state.refuse(owed, now + ELSEWHERE_SECONDS)
        else:
            gone = refused & state.have
            state.have &= ~gone
            self._availability.remove(gone)
        state.suggested = [chunk for chunk in suggest if state.have >> chunk & 1]
        return self._fill_all(now)

    def tick(self, now: float) -> list[Action]:
        """Look for stalled peers and late chunks; call every TICK or so."""
        self._now = now
        actions: list[Action] = []
        for peer, state in self._peers.items():
            if state.refusals:
                state.relent(now)
            if state.owed and state.held_since is None:
                actions += self._check_owed(now, peer, state)
        actions += self._make_way(now)
        return actions + self._fill_all(now)

    def pause(self) -> list[Action]:
        """Take back every request, as when the disk is full; `proceed` ends it."""
        self._paused = True
        actions: list[Action] = []
        for peer, state in self._peers.items():
            if state.owed:
                actions.append(Cancel(peer, tuple(state.owed)))
                for chunk in list(state.owed):
                    self._take_back(self._now, state, peer, chunk)
        return actions

    def proceed(self, now: float) -> list[Action]:
        """Ask for chunks again after a pause."""
        self._paused = False
        return self._fill_all(now)

    # --- deciding ---------------------------------------------------------------

    def _check_owed(self, now: float, peer: int, state: PeerState) -> list[Action]:
        if state.silent(now):
            state.stalled = True
            # What nobody else can bring is waited for: most cuts heal, and what was
            # on its way then comes.
            elsewhere = self._elsewhere(now, peer)
            given_up = [chunk for chunk in state.owed if elsewhere >> chunk & 1]
        elif any(owed.trickles(now) for owed in state.owed.values()):
            given_up = list(state.owed)
            state.strike(now)
            state.probing = True
        else:
            given_up = [chunk for chunk, owed in state.owed.items() if owed.overdue(now)]
            if given_up:
                state.probing = True
                state.refuse(given_up, now + BUSY_GRACE)
        return self._give_up(now, peer, state, given_up)

    def _elsewhere(self, now: float, peer: int) -> int:
        """The mask of chunks that others offer which are not falling silent themselves.

        A cut at our own end silences everybody, some a little later than others.
        """
        mask = 0
        for other, state in self._peers.items():
            quiet = state.owed and state.silent(now, QUIET_PART)
            if other != peer and state.may_be_asked(now) and not quiet:
                mask |= state.on_offer
        return mask

    def _make_way(self, now: float) -> list[Action]:
        """When all places to send are taken, the slowest makes way for a better peer.

        It is asked for no more, and the place is free when it has sent what it
        owes; if that would take too long, it is taken back at once.
        """
        self._yielding = None
        if self._senders < self.max_senders:
            return []
        wanted = self.verifiable & ~self.ledger.have
        waiting = [
            state.merit
            for state in self._peers.values()
            if not state.owed and state.may_be_asked(now) and wanted & state.on_offer
        ]
        if not waiting:
            return []
        peer, state = min(
            ((peer, state) for peer, state in self._peers.items() if state.owed),
            key=lambda entry: entry[1].merit,
        )
        if max(waiting) <= YIELD_GAIN * state.merit:
            return []
        self._yielding = peer
        since = min(owed.asked_at for owed in state.owed.values())
        if state.merit >= SLOW_RATE or now - since <= BUSY_GRACE or state.held_since is not None:
            return []
        return self._give_up(now, peer, state, list(state.owed))

    def _give_up(self, now: float, peer: int, state: PeerState, chunks: list[int]) -> list[Action]:
        for chunk in chunks:
            self._take_back(now, state, peer, chunk)
        return [Cancel(peer, tuple(chunks))] if chunks else []

    def _fill_all(self, now: float) -> list[Action]:
        actions: list[Action] = []
        if not self._owners and not self.ledger.missing & self.verifiable:
            return actions  # there is nothing to ask for
        # Fast peers choose first; ties in random order so that no peer is favoured.
        # Where not all can be asked, one that was never tried goes before them.
        peers = list(self._peers)
        self._rng.shuffle(peers)
        if len(peers) > self.max_senders:
            peers.sort(key=lambda peer: -self._peers[peer].merit)
        else:
            peers.sort(key=lambda peer: -self._peers[peer].pace.rate)
        for peer in peers:
            actions += self._fill(now, peer)
        return actions

    def _fill(self, now: float, peer: int) -> list[Action]:
        """Ask a peer for chunks until its window is full."""
        state = self._peers[peer]
        if state.owed:
            if state.owed_bytes >= state.pace.window:
                return []
        elif self._senders >= self.max_senders:
            return []
        if self._paused or peer == self._yielding or not state.may_be_asked(now):
            return []
        chosen: list[int] = []
        most = MAX_REQUESTS if state.proven else UNPROVEN_CHUNKS - state.unverified
        while len(state.owed) < most and not (state.probing and state.owed):
            if state.owed and state.owed_bytes >= state.pace.window:
                break
            chunk = self._pick(state)
            if chunk is None:
                chunk = self._pick_late(now, state)
                if chunk is None:
                    break
            else:
                self.ledger.request(chunk)
            self._owe(now, peer, state, chunk)
            chosen.append(chunk)
        return [Request(peer, tuple(chosen))] if chosen else []

    def _pick(self, state: PeerState) -> int | None:
        """The chunk to ask of this peer: its suggestion, or a random one of the rarest."""
        wanted = self.ledger.missing & self.verifiable & state.on_offer
        if not wanted:
            return None
        while state.suggested:
            chunk = state.suggested.pop(0)
            if wanted >> chunk & 1:
                return chunk
        return random_chunk(self._availability.rarest(wanted), self._rng)

    def _pick_late(self, now: float, state: PeerState) -> int | None:
        """Endgame: the chunk that would come last from its owner, if this peer is quicker."""
        if self.ledger.missing or not self._owners:
            return None
        useful = state.on_offer & ~mask_of(state.owed)
        latest: tuple[float, int] | None = None
        for chunk, owners in self._owners.items():
            if len(owners) >= MAX_OWNERS or not useful >> chunk & 1:
                continue
            eta = self._eta(now, owners[0], chunk)
            if latest is None or eta > latest[0]:
                latest = (eta, chunk)
        if latest is None:
            return None
        eta, chunk = latest
        mine = state.pace.seconds_for(state.owed_bytes + self._geometry.length(chunk))
        needed = UNKNOWN_SECONDS if mine is None else mine
        return chunk if eta > DUPLICATE_GAIN * needed + NOISE else None

    def _eta(self, now: float, owner: int, chunk: int) -> float:
        """Seconds until the owner will have sent a chunk; infinite when it is late."""
        state = self._peers[owner]
        owed = state.owed[chunk]
        waited = owed.untouched(now) if state.held_since is None else 0.0
        if waited > LATE_FACTOR * owed.promised + LATE_GRACE:
            return float("inf")
        ahead = 0
        for other, debt in state.owed.items():
            ahead += self._geometry.length(other) - debt.received
            if other == chunk:
                break
        return state.pace.seconds_for(ahead) or max(UNKNOWN_SECONDS - waited, 0.0)

    # --- bookkeeping ------------------------------------------------------------

    def _alive(self, now: float, state: PeerState) -> None:
        self._now = now
        state.alive(now)

    def _owe(self, now: float, peer: int, state: PeerState, chunk: int) -> None:
        if not state.owed:
            self._senders += 1
            state.pace.start(now)
            state.heard = now
        length = self._geometry.length(chunk)
        promised = state.pace.seconds_for(state.owed_bytes + length) or UNKNOWN_SECONDS
        state.owed[chunk] = Owed(now, promised)
        state.owed_bytes += length
        self._owners.setdefault(chunk, []).append(peer)

    def _verified(self, chunk: int) -> PeerState | None:
        """A chunk does not wait for verification any more; the peer it came from."""
        state = self._peers.get(self._verifying.pop(chunk))
        if state is not None:
            state.unverified -= 1
        return state

    def _drop_owed(self, state: PeerState, chunk: int) -> None:
        owed = state.owed.pop(chunk)
        self._senders -= not state.owed
        state.owed_bytes -= self._geometry.length(chunk) - owed.received

    def _forget(self, state: PeerState, peer: int, chunk: int) -> None:
        """A peer no longer owes a chunk that it did not bring."""
        self._drop_owed(state, chunk)
        self._disown(peer, chunk)

    def _take_back(self, now: float, state: PeerState, peer: int, chunk: int) -> None:
        """A peer is not to send a chunk; some of it may be on its way already."""
        self._forget(state, peer, chunk)
        state.taken_back[chunk] = now

    def _disown(self, peer: int, chunk: int) -> None:
        owners = self._owners[chunk]
        owners.remove(peer)
        if not owners:
            del self._owners[chunk]
            self.ledger.release(chunk)

    def check(self) -> None:
        """Raise IllegalStateError if an invariant is broken; for tests."""
        owned = mask_of(self._owners) | mask_of(self._verifying)
        if owned != self.ledger.in_flight:
            raise IllegalStateError("in-flight chunks and their owners disagree")
        for chunk, owners in self._owners.items():
            if not 1 <= len(owners) <= MAX_OWNERS or len(set(owners)) != len(owners):
                raise IllegalStateError(f"chunk {chunk} has owners {owners}")
        if self._senders != sum(bool(state.owed) for state in self._peers.values()):
            raise IllegalStateError("senders are miscounted")
        for peer, state in self._peers.items():
            left = sum(self._geometry.length(c) - o.received for c, o in state.owed.items())
            if left != state.owed_bytes:
                raise IllegalStateError(f"peer {peer} owes {left}, booked {state.owed_bytes}")
            if any(peer not in self._owners[chunk] for chunk in state.owed):
                raise IllegalStateError(f"peer {peer} owes a chunk it does not own")
