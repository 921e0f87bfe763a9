"""Whole simulated swarms: who is there, who knows whom, and how it went."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

from furymesh.core.geometry import Geometry
from furymesh.core.uploads import DEFAULT_SLOTS
from tests.sim.network import Clock, Host, Link
from tests.sim.node import PIECE, UNSENT, Node

KIB = 1024
MEGABIT = 125_000  # bytes
QUEUE_SECONDS = 0.05  # of the faster end's rate: how much TCP keeps queued beyond the delay
MIN_WINDOW = 128 * KIB
PATIENCE = 20.0  # × the bound; a swarm that takes longer has failed


@dataclass(frozen=True, slots=True)
class Peer:
    """A host's uplink and downlink (bytes a second), its delay (s), and whether it is a seed."""

    up: float
    down: float
    seed: bool = False
    delay: float = 0.0005


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a swarm went; times in seconds, sizes in bytes."""

    size: int
    finished: tuple[float, ...]
    bound: float
    origin_sent: int
    wasted: int
    rejections: int

    @property
    def over_bound(self) -> float:
        return max(self.finished) / self.bound

    @property
    def copies(self) -> float:
        """What the seeds sent, in copies of the share."""
        return self.origin_sent / self.size

    @property
    def waste(self) -> float:
        """Bytes that came for nothing, as a part of what was needed."""
        return self.wasted / (self.size * len(self.finished))


class Swarm:
    """Seeds and leechers on one network; `run` it once."""

    def __init__(
        self,
        peers: Sequence[Peer],
        geometry: Geometry,
        *,
        seed: int = 0,
        degree: int | None = None,
        slots: int = DEFAULT_SLOTS,
        unsent: int = UNSENT,
        piece: int = PIECE,
    ) -> None:
        self.clock = Clock()
        self.geometry = geometry
        self.peers = peers
        self._rng = Random(seed)
        self.nodes = [
            Node(
                self.clock,
                Host(self.clock, peer.up, peer.down),
                geometry,
                Random(self._rng.random()),
                have=geometry.all_chunks if peer.seed else 0,
                slots=slots,
                unsent=unsent,
                piece=piece,
            )
            for peer in peers
        ]
        for a, b in self._pairs(degree):
            self.connect(a, b)

    @property
    def leechers(self) -> list[Node]:
        return [n for n, p in zip(self.nodes, self.peers, strict=True) if not p.seed]

    @property
    def bound(self) -> float:
        """Least seconds in which all leechers can have everything."""
        size = self.geometry.size
        seeds = sum(peer.up for peer in self.peers if peer.seed)
        ups = sum(peer.up for peer in self.peers)
        downs = [peer.down for peer in self.peers if not peer.seed]
        return max(size / seeds, size / min(downs), len(downs) * size / ups)

    def _pairs(self, degree: int | None) -> list[tuple[int, int]]:
        count = len(self.nodes)
        if degree is None or degree >= count - 1:
            return [(a, b) for a in range(count) for b in range(a)]
        pairs: dict[tuple[int, int], None] = {}
        for node in range(count):  # a ring keeps it in one piece, the rest is random
            pairs[node, (node + 1) % count] = None
            for _ in range(degree // 2 - 1):
                other = self._rng.randrange(count)
                if other != node and (other, node) not in pairs:
                    pairs[node, other] = None
        return list(pairs)

    def connect(self, a: int, b: int) -> None:
        there, back = self._link(a, b), self._link(b, a)
        there.on_message = lambda message: self.nodes[b].message(a, message)
        back.on_message = lambda message: self.nodes[a].message(b, message)
        self.nodes[a].meet(b, there)
        self.nodes[b].meet(a, back)

    def _link(self, a: int, b: int) -> Link:
        latency = self.peers[a].delay + self.peers[b].delay
        rate = min(self.peers[a].up, self.peers[b].down)
        window = max(int(rate * (2 * latency + QUEUE_SECONDS)), MIN_WINDOW)
        return Link(self.clock, self.nodes[a].host, self.nodes[b].host, latency, window)

    def part(self, a: int, b: int) -> None:
        """The link between two nodes ends."""
        self.nodes[a].part(b)
        self.nodes[b].part(a)

    def run(self, until: Callable[[], bool] | None = None) -> Outcome:
        leechers = self.leechers
        waiting = set(range(len(leechers)))

        def done() -> bool:
            # Only one needs a look: who is done is taken out, and the next is looked at.
            while waiting:
                index = next(iter(waiting))
                if leechers[index].finished_at is None:
                    return False
                waiting.remove(index)
            return True

        self.clock.run(until or done, self.bound * PATIENCE + 60)
        return self.outcome()

    def outcome(self) -> Outcome:
        return Outcome(
            self.geometry.size,
            tuple(
                self.clock.now if node.finished_at is None else node.finished_at
                for node in self.leechers
            ),
            self.bound,
            sum(n.host.sent for n, p in zip(self.nodes, self.peers, strict=True) if p.seed),
            sum(node.wasted for node in self.leechers),
            sum(node.rejections for node in self.leechers),
        )
