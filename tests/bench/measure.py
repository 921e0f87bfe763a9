"""Runs and samples that several rows share."""

from __future__ import annotations

import shutil
import statistics
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from tests.bench.data import Source, make_source
from tests.bench.peer import Download, Loopback, Peer
from tests.bench.process import BenchError, Crew

FINISH_TIMEOUT = 600.0  # seconds for one download of a few GiB on a busy machine

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Sample:
    """One download: seconds, CPU seconds of all ends, bytes, and the leecher's peak RSS."""

    size: int
    seconds: float
    cpu_seconds: float
    received: int | None
    peak_rss: int

    @property
    def rate(self) -> float:
        """GB/s."""
        return self.size / self.seconds / 1e9

    @property
    def cpu_per_gb(self) -> float:
        return self.cpu_seconds / (self.size / 1e9)


@dataclass(slots=True)
class Outcome:
    """One line of the table. `samples` maps a program to its figures, in `unit`."""

    row: str
    measure: str
    unit: str
    limit: str
    goal: str
    samples: dict[str, list[float]]
    score: float | None = None  # what the goal speaks of: a ratio or an own figure
    met: bool | None = None
    notes: list[str] = field(default_factory=list)

    def median(self, name: str) -> float | None:
        values = self.samples.get(name)
        return statistics.median(values) if values else None

    def ratio(self, ours: str, theirs: str) -> float | None:
        """Median of `ours` ÷ median of `theirs`; None while either is missing."""
        above, below = self.median(ours), self.median(theirs)
        return above / below if above is not None and below else None

    def judge(self, score: float | None, met: Callable[[float], bool]) -> Outcome:
        """Set the score and whether it meets the goal; returns self."""
        self.score = score
        self.met = None if score is None else met(score)
        return self


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line chose."""

    size: int
    rounds: int
    work: Path
    peers: Sequence[str]

    def folder(self, name: str) -> Path:
        """A fresh folder under the working folder."""
        path = self.work / name
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True)
        return path


def alternate(
    names: Sequence[str], rounds: int, run: Callable[[str], T]
) -> tuple[dict[str, list[T]], list[str]]:
    """Call `run` for each name in turn, `rounds` times over: A B A B.

    A program that fails once is left out from then on, and a note says why.
    """
    results: dict[str, list[T]] = {name: [] for name in names}
    notes: list[str] = []
    failed: set[str] = set()
    for _ in range(rounds):
        for name in names:
            if name in failed:
                continue
            try:
                results[name].append(run(name))
            except BenchError as error:
                failed.add(name)
                notes.append(f"{name}: {error}")
    return results, notes


def content(options: Options, name: str, size: int) -> tuple[Path, Source]:
    """A fresh folder and a source of `size` bytes in its subfolder."""
    work = options.folder(name)
    (work / "content").mkdir()
    return work, make_source(work / "content" / "bench.bin", size)


def download(peer: Peer, source: Source, seeds: int, work: Path) -> Sample:
    """One download on loopback from `seeds` seeds, its result checked byte for byte."""
    place = Loopback()
    into = work / "leecher"
    with ExitStack() as last:
        last.callback(shutil.rmtree, into, ignore_errors=True)
        with Crew(work / "logs") as crew:
            serving = [peer.seed(crew, place, number) for number in range(seeds)]
            addresses = [seed.address for seed in serving]
            leecher = peer.leech(crew, Download(place, addresses, into))
            before = sum(seed.child.cpu_seconds() for seed in serving)
            start = leecher.go()
            waiting = leecher.child.cpu_seconds()
            finish = leecher.finish(FINISH_TIMEOUT)
            after = sum(seed.child.cpu_seconds() for seed in serving)
            cpu = after - before + leecher.child.cpu_seconds() - waiting
            leecher.child.sample()
            peak = leecher.child.peak_rss
        source.check(finish.path)
    return Sample(source.size, finish.at - start, cpu, finish.received, peak)
