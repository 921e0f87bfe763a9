"""The swarms that furymesh is measured by."""

from __future__ import annotations

from functools import partial

from furymesh.core.geometry import Geometry
from furymesh.core.uploads import DEFAULT_SLOTS
from tests.sim.node import PIECE, UNSENT
from tests.sim.swarm import KIB, MEGABIT, Peer, Swarm

WIDE = 1000 * MEGABIT  # a downlink that is never the limit


def one_origin(
    leechers: int, rate: float, *, slow: float = 0.0, delay: float = 0.0005
) -> list[Peer]:
    """One origin; `slow` of the leechers have a quarter of the uplink."""
    quarter = int(leechers * slow)
    ups = [rate / 4] * quarter + [rate] * (leechers - quarter)
    return [Peer(rate, rate, seed=True, delay=delay)] + [Peer(up, rate, delay=delay) for up in ups]


def sources(ups: list[float], down: float, *, delay: float = 0.0005) -> list[Peer]:
    """Seeds with these uplinks and one leecher."""
    return [Peer(up, WIDE, seed=True, delay=delay) for up in ups] + [Peer(down, down, delay=delay)]


def chunks(count: int, size: int = 256 * KIB) -> Geometry:
    return Geometry(count * size, size)


SPREAD = [50 * MEGABIT * 10 ** (-step / 7) for step in range(8)]  # 50 down to 5 Mb/s

SCENARIOS = {
    "8 equal, 512 chunks": (one_origin(8, 100 * MEGABIT), chunks(512)),
    "8 equal, 1024 chunks": (one_origin(8, 100 * MEGABIT), chunks(1024)),
    "16 equal, 512 chunks": (one_origin(16, 50 * MEGABIT), chunks(512)),
    "16 equal, 1024 chunks": (one_origin(16, 50 * MEGABIT), chunks(1024)),
    "8 equal, 40 ms": (one_origin(8, 100 * MEGABIT, delay=0.01), chunks(1024)),
    "8, half slow": (one_origin(8, 100 * MEGABIT, slow=0.5), chunks(512)),
    "32 equal": (one_origin(32, 50 * MEGABIT), chunks(512)),
    "8 sources 10:1": (sources(SPREAD, WIDE), chunks(1024)),
    "200 ms": (sources([100 * MEGABIT], WIDE, delay=0.05), chunks(1024)),
}

# Swarms for planning past one machine. Not all to all: each node has about as many
# links as a download dials.
SCALE_DEGREE = 10
SCALE = {
    "100 nodes, 256 chunks": (one_origin(100, 100 * MEGABIT), chunks(256)),
    "1000 nodes, 256 chunks": (one_origin(1000, 100 * MEGABIT), chunks(256)),
    "10000 nodes, 64 chunks": (one_origin(10_000, 100 * MEGABIT), chunks(64)),
}


def seconds_lost_to_a_frozen_source(
    *,
    seed: int = 0,
    at: float = 0.99,
    slots: int = DEFAULT_SLOTS,
    unsent: int = UNSENT,
    piece: int = PIECE,
) -> float:
    """What it costs that one of four sources stops dead when this part is there."""
    peers = sources([50 * MEGABIT] * 4, WIDE)
    geometry = chunks(512)
    start = partial(Swarm, peers, geometry, seed=seed, slots=slots, unsent=unsent, piece=piece)
    whole = start().run()
    swarm = start()
    download = swarm.downloads[0]
    swarm.run(lambda: download.fetched >= at * geometry.size)
    swarm.nodes[0].host.frozen = True
    return swarm.run().finished[0] - whole.finished[0]
