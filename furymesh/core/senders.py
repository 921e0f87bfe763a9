"""How many peers to ask at once while our own download limit sets the rate.

Under a limit every further peer only makes all of them slower: links bring nothing
for so long that their other ends give them up, and a chunk from each is half done.
But slow peers may need company to reach the limit, and which they are is found by
trying.

Always true: with a limit no fewer are asked than bring a chunk each in CHUNK_SECONDS
at that rate; more come one by one, and only while the limit is not reached.
"""

from __future__ import annotations

CHUNK_SECONDS = 2.0
TRIAL_SECONDS = 1.0  # for a new peer to show what it adds
GROWTH = 4  # one more for each so many: a hundred slow peers are found in a quarter minute


class SenderCount:
    """The number of peers to ask, looked at again and again."""

    def __init__(self, chunk_size: int) -> None:
        self._chunk_size = chunk_size
        self._count = 0
        self._since = 0.0  # when the limit was last seen to be reached, or a peer was added

    def look(self, now: float, limit: float | None, reached: bool, most: int) -> int:
        """How many to ask from now on, at most `most`.

        `limit` is in bytes a second, None for no limit; `reached` tells whether it is
        what holds the peers back.
        """
        if limit is None:
            self._count = 0
            return most
        least = max(int(limit * CHUNK_SECONDS / self._chunk_size), 1)
        if reached or self._count < least:
            self._count = max(self._count, least)
            self._since = now
        elif now - self._since >= TRIAL_SECONDS:
            self._count = min(self._count + max(self._count // GROWTH, 1), most)
            self._since = now
        return min(self._count, most)
