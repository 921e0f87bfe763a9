"""How much of what strangers send is looked at: so much of each, so much of all.

Always true: the table holds at most MAX_SENDERS, those heard of last; and those
who use up what there is for all leave a part of it to whoever was quiet of late.
"""

from __future__ import annotations

from dataclasses import dataclass

MAX_SENDERS = 1024  # of a segment of ordinary size, everybody
FOR_THE_QUIET = 0.2  # of what there is for all
# Without a word: the pauses of those who ask honestly are soon as long. Those who use up
# what there is for all are too many to get a turn as rarely.
QUIET_SECONDS = 1.5


@dataclass(slots=True)
class _Bucket:
    tokens: float
    at: float

    def take(self, now: float, rate: float) -> bool:
        """One token of `rate` a second; at most twice that many lie there."""
        self.tokens = min(self.tokens + (now - self.at) * rate, 2 * rate)
        self.at = now
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True


class Gate:
    """Token buckets: `each` a second for one sender and `total` for all; twice that at once."""

    def __init__(self, each: float, total: float) -> None:
        self._each = each
        self._most = total * (1 - FOR_THE_QUIET)
        self._rest = total * FOR_THE_QUIET
        self._all = _Bucket(2 * total, 0.0)
        self._quiet = _Bucket(2 * total, 0.0)
        self.refused = 0  # so far
        self._senders: dict[str, _Bucket] = {}

    def __len__(self) -> int:
        return len(self._senders)

    def admits(self, sender: str, now: float) -> bool:
        """Whether one more of a sender is within its limit and that of all; `now` in seconds."""
        admitted = self._admits(sender, now)
        self.refused += not admitted
        return admitted

    def _admits(self, sender: str, now: float) -> bool:
        known = self._senders.pop(sender, None)
        was_quiet = known is None or now - known.at >= QUIET_SECONDS
        bucket = known or _Bucket(2 * self._each, now)
        self._senders[sender] = bucket
        if len(self._senders) > MAX_SENDERS:
            del self._senders[next(iter(self._senders))]
        if not bucket.take(now, self._each):
            return False
        return (was_quiet and self._quiet.take(now, self._rest)) or self._all.take(now, self._most)
