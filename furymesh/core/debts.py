"""Who owes which chunk: this module alone adds debts and takes them off.

Always true:

* a chunk is IN_FLIGHT in the ledger exactly while some peer owes it
  (``owners``) or its complete bytes await verification (``_verifying``);
* a chunk is owed by at most MAX_OWNERS peers, each of which has it in
  ``PeerState.owed``, and nobody else has;
* ``senders`` is the number of peers that owe anything, and ``unverified`` of a
  peer the number of chunks that it brought and that await verification;
* a peer that left is in none of these tables.
"""

from __future__ import annotations

from collections.abc import Iterable

from furymesh.core.bitfield import mask_of
from furymesh.core.errors import IllegalStateError
from furymesh.core.ledger import Ledger
from furymesh.core.peer_state import UNKNOWN_SECONDS, Owed, PeerState

MAX_OWNERS = 2  # a late chunk is duplicated once
# A chunk is late when it takes this many times what the peer's rate promised,
# but never before the grace period: rates jump when a swarm changes.
LATE_FACTOR = 2.0
LATE_GRACE = 0.25


class Debts:
    """The chunks in flight of one download; ``owners`` and ``senders`` are to be read only."""

    def __init__(self, ledger: Ledger) -> None:
        self.owners: dict[int, list[PeerState]] = {}  # of a chunk, the first that was asked first
        self.senders = 0
        self._verifying: dict[int, PeerState | None] = {}  # who brought it; None if that one left
        self._ledger = ledger
        self._geometry = ledger.geometry

    def owe(self, now: float, peer: PeerState, chunk: int) -> None:
        """A peer is asked for a chunk that is missing or, as a duplicate, owed by another."""
        if chunk not in self.owners:
            self._ledger.request(chunk)
            self.owners[chunk] = []
        self.owners[chunk].append(peer)
        if not peer.owed:
            self.senders += 1
            peer.pace.start(now)
            peer.heard = now
        length = self._geometry.length(chunk)
        promised = peer.pace.seconds_for(peer.owed_bytes + length) or UNKNOWN_SECONDS
        peer.owed[chunk] = Owed(now, promised)
        peer.owed_bytes += length

    # --- how a debt ends --------------------------------------------------------

    def brought(self, now: float, peer: PeerState, chunk: int) -> list[PeerState]:
        """All of a chunk came; it is taken back from the other owners, which are returned."""
        rivals = [owner for owner in self.owners.pop(chunk) if owner is not peer]
        self._drop(peer, chunk)
        for rival in rivals:
            self._drop(rival, chunk)
            rival.took_back(now, chunk)
        self._verifying[chunk] = peer
        peer.unverified += 1
        return rivals

    def forget(self, peer: PeerState, chunks: Iterable[int]) -> None:
        """A peer no longer owes chunks that it did not bring, and none of them will come."""
        for chunk in chunks:
            self._drop(peer, chunk)
            owners = self.owners[chunk]
            owners.remove(peer)
            if not owners:
                del self.owners[chunk]
                self._ledger.release(chunk)

    def take_back(self, now: float, peer: PeerState, chunks: list[int]) -> None:
        """A peer is not to send chunks; some of their bytes may be on their way already."""
        self.forget(peer, chunks)
        for chunk in chunks:
            peer.took_back(now, chunk)

    def left(self, peer: PeerState) -> None:
        """A peer is gone; what it brought is verified all the same."""
        self.forget(peer, list(peer.owed))
        for chunk, sender in self._verifying.items():
            if sender is peer:
                self._verifying[chunk] = None

    # --- how verification ends --------------------------------------------------

    def stored(self, chunk: int) -> PeerState | None:
        """A complete chunk was verified and written; the peer that brought it, if it is here."""
        peer = self._verified(chunk)
        self._ledger.store(chunk)
        return peer

    def bad(self, chunk: int) -> None:
        """A complete chunk did not verify, or could not be written."""
        self._verified(chunk)
        self._ledger.release(chunk)

    # --- looking ----------------------------------------------------------------

    def latest(self, now: float, chunks: int) -> tuple[float, int] | None:
        """Seconds until the last of the chunks in a mask comes from its only owner, and which."""
        latest: tuple[float, int] | None = None
        for chunk, owners in self.owners.items():
            if len(owners) >= MAX_OWNERS or not chunks >> chunk & 1:
                continue
            eta = self._eta(now, owners[0], chunk)
            if latest is None or eta > latest[0]:
                latest = (eta, chunk)
        return latest

    def check(self, peers: Iterable[PeerState]) -> None:
        """Raise IllegalStateError if an invariant is broken; for tests."""
        peers = list(peers)
        if mask_of(self.owners) | mask_of(self._verifying) != self._ledger.in_flight:
            raise IllegalStateError("in-flight chunks and their owners disagree")
        for chunk, owners in self.owners.items():
            if not 1 <= len(owners) <= MAX_OWNERS or len(set(owners)) != len(owners):
                numbers = [owner.number for owner in owners]
                raise IllegalStateError(f"chunk {chunk} has owners {numbers}")
            if any(chunk not in owner.owed for owner in owners):
                raise IllegalStateError(f"an owner of chunk {chunk} does not owe it")
        if self.senders != sum(bool(peer.owed) for peer in peers):
            raise IllegalStateError("senders are miscounted")
        brought = list(self._verifying.values())
        for peer in peers:
            left = sum(self._geometry.length(c) - o.received for c, o in peer.owed.items())
            if left != peer.owed_bytes:
                raise IllegalStateError(f"{peer.number} owes {left}, booked {peer.owed_bytes}")
            if any(peer not in self.owners[chunk] for chunk in peer.owed):
                raise IllegalStateError(f"{peer.number} owes a chunk it does not own")
            if peer.unverified != brought.count(peer):
                raise IllegalStateError(f"unverified chunks of {peer.number} are miscounted")

    # --- helpers ----------------------------------------------------------------

    def _drop(self, peer: PeerState, chunk: int) -> None:
        owed = peer.owed.pop(chunk)
        self.senders -= not peer.owed
        peer.owed_bytes -= self._geometry.length(chunk) - owed.received

    def _verified(self, chunk: int) -> PeerState | None:
        peer = self._verifying.pop(chunk)
        if peer is not None:
            peer.unverified -= 1
        return peer

    def _eta(self, now: float, owner: PeerState, chunk: int) -> float:
        """Seconds until the owner will have sent a chunk; infinite when it is late."""
        owed = owner.owed[chunk]
        waited = owed.untouched(now) if owner.held_since is None else 0.0
        if waited > LATE_FACTOR * owed.promised + LATE_GRACE:
            return float("inf")
        queue = list(owner.owed)
        ahead = queue[: queue.index(chunk) + 1]
        left = sum(self._geometry.length(c) - owner.owed[c].received for c in ahead)
        return owner.pace.seconds_for(left) or max(UNKNOWN_SECONDS - waited, 0.0)
