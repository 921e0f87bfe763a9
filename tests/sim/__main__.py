"""`python -m tests.sim`: simulate swarms and print how close each came to its bound.

Without arguments the quick scenarios run; `--scale` runs swarms of 100, 1,000
and 10,000 nodes (about four minutes in all); `--nodes` and the options
after it describe a swarm of one's own. Columns: the last finisher's and the
median finisher's time ÷ bound, what the seeds sent in copies of the share,
wasted bytes as a part of what was needed, turned-down requests, and seconds of
processor time. Progress goes to stderr if that is a terminal.
"""

from __future__ import annotations

import argparse
import gc
import sys
import time
from collections.abc import Callable

from furymesh.core.geometry import Geometry
from furymesh.core.uploads import DEFAULT_SLOTS
from tests.sim.node import PIECE, UNSENT
from tests.sim.scenarios import (
    SCALE,
    SCALE_DEGREE,
    SCENARIOS,
    one_origin,
    seconds_lost_to_a_frozen_source,
)
from tests.sim.swarm import KIB, MEGABIT, Progress, Swarm


def main() -> None:
    # A run makes no reference cycles, and looking for some among millions of
    # objects takes a quarter of its time.
    gc.disable()
    parser = argparse.ArgumentParser(
        prog="tests.sim",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--scale", action="store_true", help="100, 1,000 and 10,000 nodes")
    parser.add_argument("--nodes", type=int, help="leechers around one origin; without it, all")
    parser.add_argument("--chunks", type=int, default=1024)
    parser.add_argument("--chunk-kib", type=int, default=256)
    parser.add_argument("--mbit", type=float, default=100.0, help="every uplink and downlink")
    parser.add_argument("--slow", type=float, default=0.0, help="part with a quarter of the uplink")
    parser.add_argument("--delay", type=float, default=0.5, help="ms to a host's own router")
    parser.add_argument(
        "--degree", type=int, help="links per node; without it, all to all (10 with --scale)"
    )
    parser.add_argument("--slots", type=int, default=DEFAULT_SLOTS)
    parser.add_argument("--unsent", type=int, default=UNSENT)
    parser.add_argument("--piece", type=int, default=PIECE)
    parser.add_argument("--seeds", type=int, default=1, help="runs, with random seeds 0, 1, …")
    parser.add_argument("--only", default="", help="scenarios whose name contains this")
    args = parser.parse_args()
    print(f"{'swarm':28} {'÷ bound':>8} {'median':>7} {'copies':>7} {'waste':>7} {'rejects':>8}")
    for seed in range(args.seeds):
        degree = args.degree
        if args.nodes:
            peers = one_origin(
                args.nodes, args.mbit * MEGABIT, slow=args.slow, delay=args.delay / 1000
            )
            geometry = Geometry(args.chunks * args.chunk_kib * KIB, args.chunk_kib * KIB)
            cases = {f"{args.nodes} nodes": (peers, geometry)}
        elif args.scale:
            cases = SCALE
            degree = degree or SCALE_DEGREE
        else:
            cases = SCENARIOS
        for name, (peers, geometry) in cases.items():
            if args.only not in name:
                continue
            started = time.process_time()
            swarm = Swarm(
                peers,
                geometry,
                seed=seed,
                degree=degree,
                slots=args.slots,
                unsent=args.unsent,
                piece=args.piece,
            )
            outcome = swarm.run(report=reporter(name))
            median = sorted(outcome.finished)[len(outcome.finished) // 2] / outcome.bound
            print(
                f"{name:28} {outcome.over_bound:8.3f} {median:7.3f} {outcome.copies:7.3f}"
                f" {outcome.waste:7.2%} {outcome.rejections:8d}"
                f"   ({time.process_time() - started:.1f} s)",
                flush=True,
            )
        if cases is SCENARIOS and args.only in "frozen source":
            lost = seconds_lost_to_a_frozen_source(
                seed=seed, slots=args.slots, unsent=args.unsent, piece=args.piece
            )
            print(f"{'frozen source at 99 %':28} {lost:+8.3f} s")


def reporter(name: str) -> Callable[[Progress], None] | None:
    """What shows the progress of a run on a terminal; None where stderr is none."""
    if not sys.stderr.isatty():
        return None

    def report(progress: Progress) -> None:
        line = (
            f"{name}: {progress.over_bound:.2f} × bound, {progress.fetched:.0%} fetched,"
            f" {progress.unfinished} unfinished"
        )
        sys.stderr.write(f"\r{line}\x1b[K" if progress.unfinished else "\r\x1b[K")
        sys.stderr.flush()

    return report


if __name__ == "__main__":
    main()
