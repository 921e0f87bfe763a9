"""Rows 15 and 16: one source behind a long road, and behind a lossy one.

What is stored is read from the downloading process's own account of bytes written
(/proc), every few milliseconds, so a pause is a pause in verified bytes. The yardstick
is one TCP stream of iperf3 over the same road, under the same loss, just before.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path

from tests.bench.data import Source
from tests.bench.furymesh_peer import Furymesh
from tests.bench.measure import Options, Outcome, alternate, content
from tests.bench.peer import READY_TIMEOUT, Download, LabHost
from tests.bench.process import Crew, cpu_busy
from tests.bench.shaped import MAX_BUSY, PATIENCE, need_lab
from tests.netns.lab import Host, Lab, Shape, mbit
from tests.waiting import looks

LOOK = 0.02  # seconds between looks at what is stored: far below any pause that matters
STORED = 64 * 1024  # bytes; a chunk is more, what else is written (journal, JSON) is less
SETTLED = 5.0  # seconds after the start from which a long road must be used well
RATE = mbit(100)
ROUND_TRIPS = (0.05, 0.2)  # seconds: across a continent, and to the other side of the world
LOSSES = (0.01, 0.03, 0.05)  # shares of the frames, each way: a bad radio link
CONGESTION = ("cubic", "bbr")
YARDSTICK = 8  # seconds of iperf3 under loss, where a stream's rate goes up and down
LONG_PART = 16  # --size ÷ this is the file on a long road: 128 MiB by default
LOSSY_PART = 32  # and on a lossy one: 64 MiB


@dataclass(frozen=True, slots=True)
class Transfer:
    """What one download from one source showed."""

    stored: list[tuple[float, int]]  # (seconds since the start, bytes), first (0, 0)
    wasted: int  # bytes that came for nothing, by the product's own count
    links: int  # connections that were made; more than one means that one was lost
    busy: float  # share of the machine's CPU

    @property
    def size(self) -> int:
        return self.stored[-1][1]

    def goodput(self, since: float = 0.0) -> float:
        """Bytes stored a second, from `since` seconds after the start on."""
        at, before = max(entry for entry in self.stored if entry[0] <= since)
        return (self.size - before) / (self.stored[-1][0] - at)

    @property
    def longest_pause(self) -> float:
        """Seconds between two chunks at worst, from the first chunk on."""
        times = [at for at, size in self.stored if size]
        return max((later - at for at, later in pairwise(times)), default=0.0)


def transfer(source: Source, host: Host, sink: Host, work: Path, limit: float) -> Transfer:
    """Download `source` from `host` to `sink`; both processes are real.

    Raises BenchError when that takes more than `limit` seconds.
    """
    peer = Furymesh()
    peer.prepare(source, 1, work)
    into = work / "leecher"
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, into, ignore_errors=True)
        crew = stack.enter_context(Crew(work / "logs"))
        seed = peer.seed(crew, LabHost(host), 0)
        leecher = peer.leech(crew, Download(LabHost(sink), [seed.address], into, stay=True))
        pid = leecher.child.pid
        opened, base, busy = _opened(pid), _written(pid), cpu_busy()
        stored, last = [(0.0, 0)], base
        leecher.go()
        for at in looks(LOOK):
            written = _written(pid)
            size = min(written - base, source.size)
            if written - last >= STORED or size == source.size:
                stored.append((at, size))
                last = written
            if size == source.size:
                break
            if at > limit:
                raise leecher.child.error(f"stored {stored[-1][1]} bytes in {limit:.0f} s")
        used = [now - then for now, then in zip(cpu_busy(), busy, strict=True)]
        links = _opened(pid) - opened
        done = leecher.child.expect("complete", READY_TIMEOUT).fields
        source.check(Path(done["path"]))
    return Transfer(stored, int(done["bytes_wasted"]), links, used[0] / max(used[1], 0.01))


def _written(pid: int) -> int:
    """Bytes that a process wrote so far, to whatever it is."""
    lines = Path(f"/proc/{pid}/io").read_text().splitlines()
    return int(dict(line.split(": ") for line in lines)["wchar"])


def _opened(pid: int) -> int:
    """TCP connections made so far in the namespace of a process, from either side."""
    lines = Path(f"/proc/{pid}/net/snmp").read_text().splitlines()
    names, values = (line.split() for line in lines if line.startswith("Tcp:"))
    return sum(int(values[names.index(name)]) for name in ("ActiveOpens", "PassiveOpens"))


def _runs(
    options: Options, title: str, source: Source, lab: Lab, yardstick: Callable[[Host, Host], float]
) -> tuple[list[tuple[Transfer, float]], list[str]]:
    """Every round's transfer from the lab's first host to its second, and the yardstick
    measured just before it; void ones become notes."""
    host, sink = lab.hosts
    work = source.path.parent.parent

    def once(name: str) -> tuple[Transfer, float]:
        link = yardstick(host, sink)
        limit = PATIENCE * source.size / link + 60
        return transfer(source, host, sink, work / name, limit), link

    names = ["furymesh"] if "furymesh" in options.peers else []
    done, notes = alternate(names, options.rounds, once)
    valid = []
    for run, link in done.get("furymesh", []):
        if run.busy > MAX_BUSY:
            notes.append(f"{title}: a run is void, CPU {run.busy:.0%}")
        else:
            notes.append(f"{title}: {run.goodput() * 8 / 1e6:.1f} Mb/s, CPU {run.busy:.0%}")
            valid.append((run, link))
    return valid, notes


def long_road(options: Options) -> list[Outcome]:
    """Row 15. Both kernels see the round trip; iperf3's first seconds do not count either."""
    need_lab()
    _, source = content(options, "road", options.size // LONG_PART)
    outcomes = []
    for round_trip in ROUND_TRIPS:
        for congestion in CONGESTION:
            title = f"{round_trip * 1000:.0f} ms round trip, 100 Mb/s, {congestion}"
            shapes = [Shape(RATE, RATE), Shape(RATE, RATE, round_trip / 2)]
            with Lab(shapes, congestion) as lab:
                yardstick = partial(lab.goodput, warm_up=int(SETTLED))
                runs, notes = _runs(options, title, source, lab, yardstick)
            used = {"furymesh": [run.goodput(SETTLED) / link for run, link in runs]}
            row = Outcome(
                "15", f"{title}: goodput after 5 s ÷ link", "", "1.0", "≥ 0.90", used, notes=notes
            )
            outcomes.append(row.judge(row.median("furymesh"), lambda score: score >= 0.9))
    return outcomes


def lossy_road(options: Options) -> list[Outcome]:
    """Row 16. A stream's luck differs from run to run, hence the wide goal for the ratio."""
    need_lab()
    _, source = content(options, "lossy", options.size // LOSSY_PART)
    outcomes = []
    for congestion in CONGESTION:
        for loss in LOSSES:
            title = f"{loss:.0%} loss, 100 Mb/s, {congestion}"
            with Lab([Shape(RATE, RATE)] * 2, congestion) as lab:
                for host in lab.hosts:
                    host.lose(loss)
                yardstick = partial(lab.goodput, seconds=YARDSTICK)
                runs, notes = _runs(options, title, source, lab, yardstick)
            ratio = {"furymesh": [run.goodput() / link for run, link in runs]}
            pause = {"furymesh": [run.longest_pause for run, _ in runs]}
            used = Outcome(
                "16", f"{title}: goodput ÷ iperf3's", "", "1.0", "≥ 0.80", ratio, notes=notes
            )
            quiet = Outcome("16", f"{title}: longest pause", "s", "1 retry", "≤ 2.0", pause)
            for run, _ in runs:
                if run.links > 1 or run.wasted > run.size / 100:
                    quiet.notes.append(f"{title}: {run.links} links, {run.wasted} bytes wasted")
            worst = max(pause["furymesh"], default=None)
            outcomes += [
                used.judge(used.median("furymesh"), lambda score: score >= 0.8),
                quiet.judge(worst, lambda score: score <= 2.0),
            ]
    return outcomes


ROWS: dict[str, Callable[[Options], list[Outcome]]] = {
    "15": long_road,
    "16": lossy_road,
}
