"""How far a download is, who brought what, and when something useful last happened.

Always true: `IdleClock` alone decides whether a download is getting anywhere.
What counts is a chunk on disk, a new part of the manifest, or bytes that come
at USEFUL_RATE or more; bytes that trickle do not, and time in which this end
works by itself (hashing, moving, waiting for its own disk) is not idle time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from furymesh.core.ids import NodeId
from furymesh.core.link import Address
from furymesh.swarm.events import PeerContribution
from furymesh.swarm.member import Member, Sender

USEFUL_RATE = 1024  # bytes per second over all peers: slower than this is not moving
USEFUL_BYTES = 1024  # fewer in one go prove nothing
RATE_SECONDS = 5.0  # the rate shown is the mean over this


class IdleClock:
    """When something useful last happened; `now` gives seconds."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._useful_at = now()
        self._received = 0  # since then
        self._working = 0

    def useful(self) -> None:
        self._useful_at = self._now()
        self._received = 0

    def received(self, now: float, size: int) -> None:
        """Bytes of chunks that were asked for have come."""
        self._received += size
        if self._received >= max(USEFUL_BYTES, USEFUL_RATE * (now - self._useful_at)):
            self._useful_at = now
            self._received = 0

    @contextmanager
    def local_work(self) -> Iterator[None]:
        """The clock stands still meanwhile, and starts anew afterwards."""
        self._working += 1
        try:
            yield
        finally:
            self._working -= 1
            self.useful()

    @property
    def idle(self) -> float:
        """Seconds in which nobody else brought this download on."""
        return 0.0 if self._working else self._now() - self._useful_at


class Tally:
    """Bytes of one download, by what became of them and by who brought them."""

    def __init__(self) -> None:
        self.fetched = 0
        self.reused = 0
        self.wasted = 0
        self.helpers: dict[tuple[str, int], Address] = {}  # dialled, and brought something
        self._samples: deque[tuple[float, int]] = deque()
        self._brought: dict[tuple[NodeId | None, str, str], list[int]] = {}

    def credit(self, sender: Sender, size: int) -> None:
        """A good chunk of `size` bytes came."""
        self.fetched += size
        entry = self._brought.setdefault(sender.who, [0, 0])
        entry[0] += size
        entry[1] += 1
        if isinstance(sender, Member) and sender.link.initiator and not sender.link.relayed:
            link = sender.link
            self.helpers[link.remote] = Address(*link.remote, link.node_id)

    @property
    def contributions(self) -> tuple[PeerContribution, ...]:
        return tuple(
            PeerContribution(node_id, address, size, chunks, found)
            for (node_id, address, found), (size, chunks) in self._brought.items()
        )

    def rate(self, now: float) -> float:
        """Bytes per second of late; call it about once a second."""
        samples = self._samples
        samples.append((now, self.fetched))
        while samples[0][0] < now - RATE_SECONDS and len(samples) > 2:
            samples.popleft()
        then, before = samples[0]
        return (self.fetched - before) / (now - then) if now > then else 0.0
