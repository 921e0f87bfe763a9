"""Whole simulated swarms: who is there, who knows whom, and how it went."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from random import Random

from furymesh.core.geometry import Geometry
from furymesh.core.uploads import DEFAULT_SLOTS
from tests.sim.network import Clock, Host, Link
from tests.sim.node import PIECE, UNSENT, Node, Share

KIB = 1024
MEGABIT = 125_000  # bytes
QUEUE_SECONDS = 0.05  # of the faster end's rate: how much TCP keeps queued beyond the delay
MIN_WINDOW = 128 * KIB
REPORTS = 50  # of progress, in a run that meets its bound
PATIENCE = 20.0  # × the bound; a swarm that takes longer has failed


@dataclass(frozen=True, slots=True)
class Peer:
    """A host's uplink and downlink (bytes a second), its delay (s), and whether it is a seed."""

    up: float
    down: float
    seed: bool = False
    delay: float = 0.0005


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is: virtual time ÷ bound, the part fetched, downloads not finished."""

    over_bound: float
    fetched: float
    unfinished: int


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
    """Seeds and leechers of a share on one network; `run` it once.

    The share has the number 0, and the nodes in `members` take part in it, or all;
    `add_share` adds others among the same nodes.
    """

    def __init__(
        self,
        peers: Sequence[Peer],
        geometry: Geometry,
        *,
        members: Collection[int] | None = None,
        seed: int = 0,
        degree: int | None = None,
        slots: int = DEFAULT_SLOTS,
        unsent: int = UNSENT,
        piece: int = PIECE,
    ) -> None:
        self.clock = Clock()
        self.geometry = geometry
        self.peers = peers
        self.unfinished = 0  # downloads
        self._rng = Random(seed)
        self._shares = 0
        self.nodes = [
            Node(
                self.clock,
                Host(self.clock, peer.up, peer.down),
                Random(self._rng.random()),
                slots=slots,
                unsent=unsent,
                piece=piece,
                on_finish=self._finished,
            )
            for peer in peers
        ]
        for a, b in self._pairs(degree):
            self.connect(a, b)
        members = range(len(peers)) if members is None else members
        self.add_share(geometry, [m for m in members if peers[m].seed], members)

    def add_share(self, geometry: Geometry, seeds: Collection[int], others: Collection[int]) -> int:
        """Some nodes have a share and others fetch it; returns its number."""
        number = self._shares
        self._shares += 1
        have = dict.fromkeys(others, 0) | dict.fromkeys(seeds, geometry.all_chunks)
        for node, mask in have.items():
            self.nodes[node].open(number, geometry, mask)
            self.unfinished += mask != geometry.all_chunks
        for node in have:
            for neighbour in self.nodes[node].neighbours:
                if neighbour in have:
                    self.nodes[node].join(number, neighbour)
        return number

    def _finished(self) -> None:
        self.unfinished -= 1

    @property
    def leechers(self) -> list[Node]:
        return [n for n, p in zip(self.nodes, self.peers, strict=True) if not p.seed]

    @property
    def downloads(self) -> list[Share]:
        """What the leechers have of share 0."""
        return [leecher.shares[0] for leecher in self.leechers if 0 in leecher.shares]

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
        """Lay a link between two nodes; before a share that they have in common is added."""
        there, back = self._link(a, b), self._link(b, a)
        there.on_message = partial(self.nodes[b].message, a)
        back.on_message = partial(self.nodes[a].message, b)
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

    def run(
        self,
        until: Callable[[], bool] | None = None,
        *,
        report: Callable[[Progress], None] | None = None,
    ) -> Outcome:
        """Until all downloads are finished, or until `until()`; `report` is told now and then."""

        def look() -> None:
            assert report is not None
            report(self._progress())
            self.clock.after(self.bound / REPORTS, look)

        if report is not None:
            look()
        self.clock.run(until or (lambda: not self.unfinished), self.bound * PATIENCE + 60)
        if report is not None:
            report(self._progress())
        return self.outcome()

    def _progress(self) -> Progress:
        fetched = sum(share.fetched for share in self.downloads)
        whole = self.geometry.size * len(self.downloads)
        return Progress(self.clock.now / self.bound, fetched / whole, self.unfinished)

    def outcome(self) -> Outcome:
        """How share 0 stands now."""
        downloads = self.downloads
        return Outcome(
            self.geometry.size,
            tuple(
                self.clock.now if share.finished_at is None else share.finished_at
                for share in downloads
            ),
            self.bound,
            sum(n.host.sent for n, p in zip(self.nodes, self.peers, strict=True) if p.seed),
            sum(share.wasted for share in downloads),
            sum(share.rejections for share in downloads),
        )
