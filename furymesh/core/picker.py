"""Which chunk to ask of a peer: rarest first, and at the end a duplicate of a late one.

Always true:

* ``_availability`` counts for each chunk the peers that have it, mirrors left out:
  this module alone changes what a peer has (``PeerState.have``);
* a chunk is asked of a second peer only in the endgame: when no MISSING chunk is
  left and the first owner is late. Earlier a late chunk holds nobody up, and a
  duplicate takes room from chunks that do.

Rarest first with random ties (Cohen, "Incentives build robustness in
BitTorrent", 2003); the duplicate of a late chunk keeps the end of a download as
fast as its middle.
"""

from __future__ import annotations

from collections.abc import Mapping
from random import Random

from furymesh.core.availability import Availability
from furymesh.core.bitfield import mask_of, random_chunk
from furymesh.core.debts import Debts
from furymesh.core.ledger import Ledger
from furymesh.core.mirror_picker import MirrorPicker
from furymesh.core.peer_state import UNKNOWN_SECONDS, PeerState

# Duplicating pays when the idle peer would be done in clearly less time.
DUPLICATE_GAIN = 2.0
NOISE = 0.02  # seconds: differences below this are not worth a duplicate


class Picker:
    """Chooses among the chunks that a peer has and this download lacks."""

    def __init__(
        self,
        ledger: Ledger,
        debts: Debts,
        rng: Random,
        peers: Mapping[int, PeerState],
        me: bytes = b"",
    ) -> None:
        """`peers` are those of the download, `me` is this end's own key."""
        self._ledger = ledger
        self._debts = debts
        self._rng = rng
        self._availability = Availability()
        self._mirrors = MirrorPicker(me, peers, ledger, self._availability, rng)

    # --- what peers have --------------------------------------------------------

    def availability(self, chunk: int) -> int:
        """How many peers have a chunk."""
        return self._availability.count(chunk)

    def peer_has(self, peer: PeerState, mask: int) -> int:
        """The peer has these chunks too; the mask of those that are news."""
        fresh = mask & ~peer.have
        peer.have |= fresh
        if not peer.mirror:
            self._availability.add(fresh)
        return fresh

    def peer_lost(self, peer: PeerState, mask: int) -> int:
        """The peer has these chunks no more; the mask of those that it had."""
        gone = mask & peer.have
        peer.have &= ~gone
        if not peer.mirror:
            self._availability.remove(gone)
        return gone

    # --- choosing ---------------------------------------------------------------

    def pick(self, now: float, peer: PeerState, verifiable: int) -> int | None:
        """The chunk to ask of this peer: its suggestion, or a random one of the rarest."""
        wanted = self._ledger.missing & verifiable & peer.on_offer
        if not wanted:
            late = not peer.mirror or self._mirrors.may_duplicate(now, peer)
            return self._pick_late(now, peer) if late else None
        if peer.mirror:
            return self._mirrors.pick(now, peer, wanted)
        while peer.suggested:
            chunk = peer.suggested.pop(0)
            if wanted >> chunk & 1:
                return chunk
        return random_chunk(self._availability.rarest(wanted), self._rng)

    def _pick_late(self, now: float, peer: PeerState) -> int | None:
        """Endgame: the chunk that would come last from its owner, if this peer is quicker."""
        if self._ledger.missing or not self._debts.owners:
            return None
        latest = self._debts.latest(now, peer.on_offer & ~mask_of(peer.owed))
        if latest is None:
            return None
        eta, chunk = latest
        mine = peer.pace.seconds_for(peer.owed_bytes + self._ledger.geometry.length(chunk))
        needed = UNKNOWN_SECONDS if mine is None else mine
        return chunk if eta > DUPLICATE_GAIN * needed + NOISE else None
