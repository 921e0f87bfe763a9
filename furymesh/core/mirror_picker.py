"""Which chunk to ask of a mirror: a server that has all of them and knows no swarm.

The ends of a swarm that use one mirror do not hear what others ask of it, and yet
each byte should leave it about once. So each divides the stream evenly among the
ends that it knows to be fetching, in the order of their keys, and takes its own
part: whoever knows of the same ends comes to the same division without a word.

A mirror is asked, in this order, for what nobody who is linked has:

* chunks of this end's part, at random;
* chunks of the part of which most is left, as long as its owner leaves some;
* after a while in which there was neither, whatever is missing. Chunks that
  others have too are among that only while the mirror would bring them faster
  than all others together do.
"""

from __future__ import annotations

from collections.abc import Mapping
from random import Random

from furymesh.core.availability import Availability
from furymesh.core.bitfield import random_chunk
from furymesh.core.ledger import Ledger
from furymesh.core.peer_state import MIRROR_REQUESTS, UNKNOWN_SECONDS, PeerState

# Of a part that is somebody else's: so many are probably on their way to it.
LEFT_TO_OWNER = MIRROR_REQUESTS
# Seconds after the last chunk of the first two kinds is due, and at least the time that
# a chunk takes: until then its owner brings it, or is seen to be gone.
PATIENCE = 2.0


class MirrorPicker:
    """Chooses among the chunks that this download lacks."""

    def __init__(
        self,
        me: bytes,
        peers: Mapping[int, PeerState],
        ledger: Ledger,
        availability: Availability,
        rng: Random,
    ) -> None:
        """`me` is the key under which other ends know this one; mirrors do not count in
        `availability`."""
        self._me = me
        self._peers = peers
        self._ledger = ledger
        self._availability = availability
        self._rng = rng

    def pick(self, now: float, mirror: PeerState, wanted: int) -> int | None:
        """A chunk of a mask that is not empty; None to ask the mirror for nothing now."""
        fresh = wanted & ~self._availability.held
        chunk = self._fresh(fresh) if fresh else None
        if chunk is not None:
            length = self._ledger.geometry.length(chunk)
            mirror.needed_until = now + _seconds(mirror, mirror.owed_bytes + length)
            return chunk
        if not self._waited(now, mirror):
            return None
        if fresh:
            return random_chunk(fresh, self._rng)
        if not self._faster(mirror):
            return None
        return random_chunk(self._availability.rarest(wanted), self._rng)

    def may_duplicate(self, now: float, mirror: PeerState) -> bool:
        """Whether the mirror may bring what somebody else owes."""
        return self._waited(now, mirror) and self._faster(mirror)

    def _fresh(self, fresh: int) -> int | None:
        """A chunk of our part, else of that of which most is left."""
        everything = self._ledger.geometry.all_chunks
        # Who has nothing yet may never fetch anything, and who has all of it will not.
        fetching = {p.key for p in self._peers.values() if p.have and p.have != everything}
        owners = sorted({self._me, *fetching})
        own = fresh & self._part(owners.index(self._me), len(owners))
        if own:
            return random_chunk(own, self._rng)
        parts = (fresh & self._part(number, len(owners)) for number in range(len(owners)))
        most = max(parts, key=int.bit_count)
        return random_chunk(most, self._rng) if most.bit_count() > LEFT_TO_OWNER else None

    def _part(self, number: int, parts: int) -> int:
        """The mask of one of so many even parts of the stream."""
        count = self._ledger.geometry.chunk_count
        return (1 << count * (number + 1) // parts) - (1 << count * number // parts)

    def _waited(self, now: float, mirror: PeerState) -> bool:
        chunk = _seconds(mirror, self._ledger.geometry.chunk_size)
        return now - mirror.needed_until > max(PATIENCE, chunk)

    def _faster(self, mirror: PeerState) -> bool:
        others = sum(
            peer.pace.rate
            for peer in self._peers.values()
            if peer.owed and not peer.mirror and not peer.stalled
        )
        return not mirror.pace.rate or mirror.pace.rate > others


def _seconds(mirror: PeerState, size: int) -> float:
    """How long so many bytes take from a mirror."""
    return mirror.pace.seconds_for(size) or UNKNOWN_SECONDS
