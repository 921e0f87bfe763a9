"""Measured rates and delays of one peer, and the window they allow.

A window answers one question: how many bytes may be on their way from this
peer before the next chunk is asked for? Too few and the link idles for a
round trip; too many and chunks are bound to a peer long before it can send
them, which is what makes swarms finish late. So it is about twice the
bandwidth-delay product (the principle of BBR: Cardwell et al., "BBR:
Congestion-Based Congestion Control", CACM 2017) plus a few milliseconds of
scheduling noise, measured anew all the time. Bytes are counted a piece at a
time, so one more piece is added, unless the round trip that the link would
idle is short beside the piece: a thin flow from a peer that serves many loses
nothing by asking late.
"""

from __future__ import annotations

SAMPLE_SECONDS = 0.05  # shorter samples measure the scheduler of the OS, not the link
RATE_GAIN = 0.4  # weight of a new sample: settles in about five
# A sample so many times as high as all before it shows that TCP is still speeding up.
# The average lags by more than a doubling then, so such a sample counts in full.
GROWTH = 1.25
# Seconds after which a minimum round trip is measured anew. Under load every round
# trip includes queues, so forgetting sooner only makes windows grow with them.
RTT_MEMORY = 30.0
NOISE_SECONDS = 0.010  # one turn of a busy event loop at both ends
MIN_WINDOW = 64 * 1024  # bytes: what is lost to a late request on a slow link is at most this
MAX_WINDOW = 32 * 1024 * 1024  # bytes: 1.25 Gb/s at 200 ms; bounds what a peer may owe us
IDLE_PART = 0.04  # of a piece's time: a shorter idle round trip is not worth asking ahead
DEFAULT_RTT = 0.05  # seconds, until measured


class Pace:
    """Rate (bytes/s) and round trip (s) of one peer while it owes us bytes."""

    def __init__(self, now: float) -> None:
        self.rate = 0.0
        self._best = 0.0  # the highest sample of it
        self._surge = 0.0  # the last sample, if it was far above all before
        self.last_data = now
        self._counted_to = now  # time before it is in the sample, or was idle
        self._sample_seconds = 0.0
        self._sample_bytes = 0
        self._piece = 0
        self._rtt: float | None = None
        self._rtt_at = now

    @property
    def rtt(self) -> float:
        return DEFAULT_RTT if self._rtt is None else self._rtt

    def round_trip(self, now: float, seconds: float) -> None:
        """A new measurement of the round trip; the smallest recent one counts."""
        if self._rtt is None or seconds <= self._rtt or now - self._rtt_at > RTT_MEMORY:
            self._rtt = seconds
            self._rtt_at = now

    def start(self, now: float) -> None:
        """The peer owed nothing and was now asked for something: time starts to count."""
        self._counted_to = now
        self.last_data = now

    def delivered(self, now: float, size: int) -> None:
        """`size` bytes arrived."""
        self._sample_seconds += now - self._counted_to
        self._sample_bytes += size
        self._piece = size
        self._counted_to = self.last_data = now
        if self._sample_seconds >= max(SAMPLE_SECONDS, self.rtt):
            sample = self._sample_bytes / self._sample_seconds
            self.rate = sample if not self.rate else self.rate + RATE_GAIN * (sample - self.rate)
            self._surge = sample if sample > GROWTH * self._best else 0.0
            self._best = max(self._best, sample)
            self._sample_seconds = 0.0
            self._sample_bytes = 0

    @property
    def window(self) -> int:
        """Bytes that may be outstanding when the next chunk is asked for."""
        rate = max(self.rate, self._surge)
        wanted = rate * (2 * self.rtt + NOISE_SECONDS)
        if self.rate * self.rtt > IDLE_PART * self._piece:
            wanted += self._piece
        return int(min(max(wanted, MIN_WINDOW), MAX_WINDOW))

    def seconds_for(self, size: int) -> float | None:
        """How long `size` outstanding bytes will take; None while the rate is unknown."""
        return self.rtt + size / self.rate if self.rate else None
