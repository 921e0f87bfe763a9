"""Rows 1, 2 and 3: rate and CPU time of one download on loopback."""

from __future__ import annotations

from collections.abc import Sequence

from tests.bench.aria2_peer import Aria2
from tests.bench.data import touch_memory
from tests.bench.floor_peer import Floor
from tests.bench.furymesh_peer import Furymesh
from tests.bench.libtorrent_peer import BULK_PIECES, BULK_THREADS, Libtorrent
from tests.bench.measure import Options, Outcome, Sample, alternate, content, download
from tests.bench.peer import Peer, prepared
from tests.bench.rsync_peer import Rsync

SEEDS = 4  # of row 2


def _compare(
    options: Options, peers: Sequence[Peer], seeds: int
) -> tuple[dict[str, list[Sample]], list[str]]:
    work, source = content(options, f"loopback-{seeds}", options.size)
    wanted = {peer.name: peer for peer in peers if peer.name in options.peers}
    peer = prepared(wanted, source, seeds, work)

    def run(name: str) -> Sample:
        ready = peer(name)
        touch_memory(work, options.size)
        return download(ready, source, seeds, work / name)

    return alternate(list(wanted), options.rounds, run)


def _bulk() -> Libtorrent:
    """libtorrent tuned for just these rows, beyond what the goals ask for."""
    return Libtorrent("libtorrent-bulk", piece_size=BULK_PIECES, hashing_threads=BULK_THREADS)


def _rates(samples: dict[str, list[Sample]]) -> dict[str, list[float]]:
    return {name: [sample.rate for sample in runs] for name, runs in samples.items()}


def _facts(samples: dict[str, list[Sample]]) -> list[str]:
    facts = []
    for name, runs in samples.items():
        if runs:
            peak = max(run.peak_rss for run in runs) / 1e6
            known = [run.received / run.size for run in runs if run.received is not None]
            sent = f", sent {max(known):.3f} × the file" if known else ""
            facts.append(f"{name}: leecher's peak RSS {peak:.0f} MB{sent}")
    return facts


def one_seed(options: Options) -> list[Outcome]:
    """Rows 1 and 3, from the same runs."""
    peers = (Furymesh(), Libtorrent(), _bulk(), Aria2(), Rsync(), Floor())
    samples, notes = _compare(options, peers, 1)
    title = f"{options.size / 2**30:.2f} GiB, 1 seed → 1 leecher"
    rate = Outcome("1", title, "GB/s", "≈ 1.4 GB/s", "≥ 3.0 × libtorrent", _rates(samples))
    rate.notes = notes + _facts(samples)
    cpu_used = {name: [run.cpu_per_gb for run in runs] for name, runs in samples.items()}
    cpu = Outcome("3", "CPU, both ends", "s/GB", "≈ 1.5 s/GB", "≤ 0.5 × libtorrent", cpu_used)
    return [
        rate.judge(rate.ratio("furymesh", "libtorrent"), lambda score: score >= 3.0),
        cpu.judge(cpu.ratio("furymesh", "libtorrent"), lambda score: score <= 0.5),
    ]


def four_seeds(options: Options) -> list[Outcome]:
    """Row 2."""
    samples, notes = _compare(options, (Furymesh(), Libtorrent(), _bulk(), Aria2()), SEEDS)
    title = f"{options.size / 2**30:.2f} GiB, {SEEDS} seeds → 1 leecher"
    rate = Outcome("2", title, "GB/s", "≈ 1.4 GB/s", "≥ 2.5 × libtorrent", _rates(samples))
    rate.notes = notes + _facts(samples)
    return [rate.judge(rate.ratio("furymesh", "libtorrent"), lambda score: score >= 2.5)]
