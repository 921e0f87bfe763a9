"""How much of what strangers send is looked at: so much of each, so much of all.

Always true: the table holds at most MAX_SENDERS, those heard of last.
"""

from __future__ import annotations

from dataclasses import dataclass

MAX_SENDERS = 1024  # of a segment of ordinary size, everybody


@dataclass(slots=True)
class _Bucket:
    tokens: float
    at: float

    def take(self, now: float, rate: float, most: float) -> bool:
        self.tokens = min(self.tokens + (now - self.at) * rate, most)
        self.at = now
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True


class Gate:
    """Token buckets: `each` a second for one sender and `total` for all; twice that at once."""

    def __init__(self, each: float, total: float) -> None:
        self._each = each
        self._total = total
        self._all = _Bucket(2 * total, 0.0)
        self._senders: dict[str, _Bucket] = {}

    def __len__(self) -> int:
        return len(self._senders)

    def admits(self, sender: str, now: float) -> bool:
        """Whether one more of a sender is within its limit and that of all; `now` in seconds."""
        bucket = self._senders.pop(sender, None) or _Bucket(2 * self._each, now)
        self._senders[sender] = bucket
        if len(self._senders) > MAX_SENDERS:
            del self._senders[next(iter(self._senders))]
        return bucket.take(now, self._each, 2 * self._each) and self._all.take(
            now, self._total, 2 * self._total
        )
