"""`make fuzz`: every target for a while, each in a process of its own.

    python -m tests.fuzz                        # all targets, 300 s each
    python -m tests.fuzz link config --seconds 20
    python -m tests.fuzz link --seed 7          # the same inputs as before
    python -m tests.fuzz link --input FILE      # one input again, with its traceback

A crasher is kept under .fuzz/ and the command that repeats it is printed.
"""

from __future__ import annotations

import argparse
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from random import SystemRandom

from tests.fuzz.engine import attempt, guarded, weigh
from tests.fuzz.targets import TARGETS, fuzz_by_name


def repeat(name: str, path: Path) -> int:
    """Run one input; 1 if it crashes."""
    target = TARGETS[name]
    with guarded():
        crash = attempt(target, path.read_bytes()) or weigh(target, path.read_bytes())
    print(f"{crash.traceback}{crash.reason}" if crash else "no crash")
    return 1 if crash else 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("target", nargs="*", help="names of targets; all without any")
    parser.add_argument(
        "--seconds", type=float, default=float(os.environ.get("FUZZ_SECONDS", "300"))
    )
    parser.add_argument("--seed", type=int, help="repeats an earlier run")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--input", type=Path, help="run this file once, on one target")
    given = parser.parse_args()
    names = given.target or list(TARGETS)
    if unknown := [name for name in names if name not in TARGETS]:
        parser.error(f"no target {unknown[0]}; there are {', '.join(TARGETS)}")
    if given.input is not None:
        return repeat(names[0], given.input)
    seed = given.seed if given.seed is not None else SystemRandom().randrange(2**32)
    crashes = total = 0
    # A process a target: what one leaves behind does not weigh on the next.
    with ProcessPoolExecutor(
        given.jobs, mp_context=get_context("spawn"), max_tasks_per_child=1
    ) as pool:
        for future in [pool.submit(fuzz_by_name, name, seed, given.seconds) for name in names]:
            report = future.result()
            total += report.inputs
            crashes += report.crash is not None
            print(report.told(), flush=True)
    print(f"{len(names)} targets, seed {seed}, {total} inputs, {crashes} crashes")
    return 1 if crashes else 0


if __name__ == "__main__":
    sys.exit(main())
