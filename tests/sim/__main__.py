"""`python -m tests.sim`: simulate a swarm and print how close it came to the bound."""

from __future__ import annotations

import argparse
import time

from furymesh.core.geometry import Geometry
from furymesh.core.uploads import DEFAULT_SLOTS
from tests.sim.node import PIECE, UNSENT
from tests.sim.scenarios import SCENARIOS, one_origin, seconds_lost_to_a_frozen_source
from tests.sim.swarm import KIB, MEGABIT, Swarm


def main() -> None:
    parser = argparse.ArgumentParser(prog="tests.sim", description=__doc__)
    parser.add_argument("--nodes", type=int, help="leechers around one origin; without it, all")
    parser.add_argument("--chunks", type=int, default=1024)
    parser.add_argument("--chunk-kib", type=int, default=256)
    parser.add_argument("--mbit", type=float, default=100.0, help="every uplink and downlink")
    parser.add_argument("--slow", type=float, default=0.0, help="part with a quarter of the uplink")
    parser.add_argument("--delay", type=float, default=0.5, help="ms to a host's own router")
    parser.add_argument("--degree", type=int, help="links per node; without it, all to all")
    parser.add_argument("--slots", type=int, default=DEFAULT_SLOTS)
    parser.add_argument("--unsent", type=int, default=UNSENT)
    parser.add_argument("--piece", type=int, default=PIECE)
    parser.add_argument("--seeds", type=int, default=1, help="runs, with random seeds 0, 1, …")
    parser.add_argument("--only", default="", help="scenarios whose name contains this")
    args = parser.parse_args()
    print(f"{'swarm':28} {'÷ bound':>8} {'median':>7} {'copies':>7} {'waste':>7} {'rejects':>8}")
    for seed in range(args.seeds):
        if args.nodes:
            peers = one_origin(
                args.nodes, args.mbit * MEGABIT, slow=args.slow, delay=args.delay / 1000
            )
            geometry = Geometry(args.chunks * args.chunk_kib * KIB, args.chunk_kib * KIB)
            cases = {f"{args.nodes} nodes": (peers, geometry)}
        else:
            cases = {name: case for name, case in SCENARIOS.items() if args.only in name}
        for name, (peers, geometry) in cases.items():
            started = time.perf_counter()
            swarm = Swarm(
                peers,
                geometry,
                seed=seed,
                degree=args.degree,
                slots=args.slots,
                unsent=args.unsent,
                piece=args.piece,
            )
            outcome = swarm.run()
            median = sorted(outcome.finished)[len(outcome.finished) // 2] / outcome.bound
            print(
                f"{name:28} {outcome.over_bound:8.3f} {median:7.3f} {outcome.copies:7.3f}"
                f" {outcome.waste:7.2%} {outcome.rejections:8d}"
                f"   ({time.perf_counter() - started:.1f} s)",
                flush=True,
            )
        if not args.nodes and args.only in "frozen source":
            lost = seconds_lost_to_a_frozen_source(
                seed=seed, slots=args.slots, unsent=args.unsent, piece=args.piece
            )
            print(f"{'frozen source at 99 %':28} {lost:+8.3f} s")


if __name__ == "__main__":
    main()
