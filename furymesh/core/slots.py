"""How many upload slots to use, found by trying.

Few chunks on their way at once are best where the receivers keep up, many where
they are slow, and no node knows which it has: so it measures.

Always true: there are never fewer slots than at the beginning, nor more than
MAX_SLOTS.
"""

from __future__ import annotations

MAX_SLOTS = 32  # receivers thirty times slower than this node: it has found its match
TRIAL_JOBS = 8  # per slot: enough for the rate of a trial to mean something
WORTH = 0.5  # of what the slot brings if it adds its full part
PATIENCE = 64  # windows between trials at the most


class SlotCount:
    """How many slots to use: now and then more or fewer are tried and measured.

    More stay if the rate of finished jobs rises by at least WORTH of their
    part, and then twice as many more are tried at once; one fewer stays if the
    rate falls by less than that. So slow receivers get company, and an uplink
    that is full serves few at a time.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._least = count
        self._rate = 0.0  # jobs a second before the trial
        self._trial = 0  # slots added for it; negative: taken away
        self._last = -1  # the trial that failed last
        self._wait = self._patience = 1  # windows until the next, and after its failure
        self._done = 0
        self._since = 0.0

    def finished(self) -> None:
        self._done += 1

    def look(self, now: float, busy: bool) -> None:
        """Judge what was measured; while a slot is free there is nothing to learn."""
        if not busy:
            self._done, self._since = 0, now
        if self._done < TRIAL_JOBS * self.count or now <= self._since:
            return
        rate = self._done / (now - self._since)
        self._done, self._since = 0, now
        if not self._trial:
            self._wait -= 1
            if self._wait <= 0:
                fewer = self._last > 0 and self.count > self._least
                self._try(-1 if fewer else 1, rate)
            return
        trial, before = self._trial, self.count - self._trial
        if rate >= self._rate * (1 + WORTH * trial / before):
            self._wait = self._patience = 1
            self._try(max(2 * trial, 0), rate)
        else:
            self._wait = self._patience = min(2 * self._patience, PATIENCE)
            self._last, self._trial, self.count = trial, 0, before

    def _try(self, trial: int, rate: float) -> None:
        self._trial = min(trial, MAX_SLOTS - self.count)
        self._rate = rate
        self.count += self._trial
