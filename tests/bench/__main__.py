"""`python -m tests.bench`: furymesh beside its peers, one table, one ratio a row."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import signal
import statistics
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import tabulate

from tests.bench import by_sftp, conditions, loopback, shaped, single, syncing
from tests.bench.measure import Options, Outcome
from tests.bench.process import BenchError, cpu_busy
from tests.waiting import looks

PEERS = ("furymesh", "libtorrent", "libtorrent-super", "libtorrent-bulk", "aria2", "rsync", "floor")
UNITS = {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
ROWS: dict[str, Callable[[Options], list[Outcome]]] = {
    "1": loopback.one_seed,
    "2": loopback.four_seeds,
    "3": loopback.one_seed,
    **single.ROWS,
    **syncing.ROWS,
    **by_sftp.ROWS,
    **shaped.ROWS,
    **conditions.ROWS,
}


def size(text: str) -> int:
    """Bytes, or a number with KiB, MiB or GiB."""
    for unit, factor in UNITS.items():
        if text.endswith(unit):
            return int(float(text.removesuffix(unit)) * factor)
    return int(text)


def parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--size", type=size, default=2 * 2**30, help="of rows 1-3 (2GiB)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", action="append", choices=list(ROWS), metavar="ROW")
    parser.add_argument("--peers", default=",".join(PEERS), help="comma-separated")
    parser.add_argument("--work", type=Path, default=Path("/dev/shm"), help="a tmpfs")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the samples")
    return parser.parse_args(argv)


def spread(outcome: Outcome, name: str) -> str:
    values = outcome.samples.get(name)
    if not values:
        return "–"
    middle = statistics.median(values)
    return f"{middle:.3g} ({min(values):.3g}–{max(values):.3g})"


def table(outcomes: list[Outcome]) -> str:
    lines = []
    for outcome in outcomes:
        others = [name for name in outcome.samples if name != "furymesh"]
        beside = "\n".join(f"{name} {spread(outcome, name)}" for name in others)
        score = "–" if outcome.score is None else f"{outcome.score:.3g}"
        verdict = {None: "–", True: "met", False: "missed"}[outcome.met]
        measure = textwrap.fill(f"{outcome.measure} [{outcome.unit}]", 34)
        ours = spread(outcome, "furymesh")
        limits = (outcome.limit, outcome.goal)
        lines.append((outcome.row, measure, ours, beside, score, *limits, verdict))
    headers = ("#", "measure", "furymesh", "peers", "ratio", "limit", "goal", "")
    return tabulate.tabulate(lines, headers, tablefmt="simple_grid", disable_numparse=True)


def describe(options: Options, busy: float) -> dict[str, object]:
    return {
        "date": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs, Linux {platform.release()}",
        "congestion_control": Path("/proc/sys/net/ipv4/tcp_congestion_control").read_text().strip(),
        "python": platform.python_version(),
        "size": options.size,
        "rounds": options.rounds,
        "busy_before": round(busy, 2),
    }


def busy_now() -> float:
    """Share of the machine's CPU in use before anything is measured, over one second."""
    (busy, total), *_, (later, after) = [cpu_busy() for _ in looks(1.0, 1.0)]
    return (later - busy) / max(after - total, 0.01)


def tell(
    chosen: argparse.Namespace,
    facts: dict[str, object],
    outcomes: list[Outcome],
    errors: list[str],
) -> None:
    """Print the table, and write it where it was asked for."""
    print(table(outcomes))
    for outcome in outcomes:
        for note in outcome.notes:
            print(f"row {outcome.row}: {note}")
    print(", ".join(f"{key} {value}" for key, value in facts.items()))
    for line in errors:
        print(line, file=sys.stderr)
    if chosen.json is not None:
        report = {"facts": facts, "outcomes": [asdict(outcome) for outcome in outcomes]}
        chosen.json.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")


def main(argv: list[str]) -> int:
    chosen = parse(argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that `finally` runs
    peers = chosen.peers.split(",")
    work = Path(tempfile.mkdtemp(prefix="furymesh-bench-", dir=chosen.work))
    options = Options(chosen.size, chosen.rounds, work, peers)
    outcomes: list[Outcome] = []
    errors: list[str] = []
    facts = describe(options, busy_now())
    try:
        runs = dict.fromkeys(ROWS[row] for row in chosen.only or ROWS)  # rows 1 and 3 share one
        for run in runs:
            print(f"measuring {run.__name__} …", file=sys.stderr, flush=True)
            try:
                outcomes += run(options)
            except BenchError as error:
                errors.append(f"{run.__name__}: {error}")
            for folder in work.iterdir():  # the next row wants the room
                shutil.rmtree(folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)
        tell(chosen, facts, outcomes, errors)  # whatever ended it early, what was measured counts
    return 1 if errors or any(outcome.score is None for outcome in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
