"""Rows 4 to 8 and 13: swarms of hosts behind shaped links.

A run's zero is the moment its leechers are released. The bound is what no protocol
can beat, from the goodput that iperf3 reached in the same namespaces just before.
Sent and received bytes are read from the shapers, not asked of the programs.
"""

from __future__ import annotations

import shutil
import signal
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.bench.data import Source
from tests.bench.furymesh_peer import Furymesh
from tests.bench.libtorrent_peer import Libtorrent
from tests.bench.measure import Options, Outcome, alternate, content
from tests.bench.peer import LAB_PORT, Download, LabHost, Peer, prepared
from tests.bench.process import BenchError, Child, Crew, cpu_busy
from tests.netns.lab import Host, Lab, Shape, Traffic, mbit, why_not
from tests.waiting import looks

MAX_BUSY = 0.60  # share of the machine's CPU above which a run says nothing about the protocol
PATIENCE = 6.0  # × the bound, and a minute: beyond that a swarm has failed
WIDE = mbit(1000)  # a downlink that is never the limit
POLL = 0.005  # seconds between looks at a counter that triggers something
SPREAD = tuple(mbit(50 * 10 ** (-step / 7)) for step in range(8))  # 50 down to 5 Mb/s
SWARM_PART = 16  # --size ÷ this is a swarm's file: 128 MiB by default
SOURCES_PART = 8  # and of the runs with several sources: 256 MiB
SCALING_RATE = 16  # Mb/s: 33 hosts and all their bytes on the processors of one machine


@dataclass(frozen=True, slots=True)
class Run:
    """One swarm run: seconds to the last finish, bytes by the shapers, CPU share."""

    last: float
    origin_sent: int
    received: int  # by the last leecher
    busy: float


def programs(options: Options) -> dict[str, Peer]:
    """The programs to compare that `--peers` lets through."""
    every: tuple[Peer, ...] = (
        Furymesh(),
        Libtorrent(),
        Libtorrent("libtorrent-super", super_seeding=True),
    )
    return {peer.name: peer for peer in every if peer.name in options.peers}


def bound(size: int, origin: float, ups: Sequence[float], down: float) -> float:
    """Least seconds in which all leechers can have `size` bytes; rates in bytes a second."""
    return max(size / origin, size / down, len(ups) * size / (origin + sum(ups)))


def swarm(
    peer: Peer,
    source: Source,
    lab: Lab,
    seeds: int,
    limit: float,
    work: Path,
    disturb: Callable[[Sequence[Child], Host], None] | None = None,
) -> Run:
    """The first `seeds` hosts serve, all others fetch and keep serving.

    `disturb` runs in a thread beside the transfer, with the seeds' processes and the
    last host. Raises BenchError when the swarm takes longer than `limit` seconds.
    """
    places = [LabHost(host) for host in lab.hosts]
    known = places if peer.leechers_listen else places[:seeds]
    addresses = [f"{place.address}:{LAB_PORT}" for place in known]
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, work, ignore_errors=True)
        crew = stack.enter_context(Crew(work / "logs"))
        serving = [peer.seed(crew, places[number], number).child for number in range(seeds)]
        waiting = [
            peer.leech(
                crew,
                Download(
                    place,
                    [*addresses[:number], *addresses[number + 1 :]],  # all but its own
                    work / str(number),
                    stay=True,
                ),
            )
            for number, place in enumerate(places)
            if number >= seeds
        ]
        origin, final = lab.hosts[0], lab.hosts[-1]
        sent, received, busy = origin.sent(), final.received(), cpu_busy()
        disturber = None
        if disturb is not None:
            disturber = threading.Thread(target=disturb, args=(serving, final), daemon=True)
        start = time.monotonic()
        for leecher in waiting:
            leecher.go()
        if disturber is not None:
            disturber.start()
        deadline = start + limit
        done = []
        for leecher in waiting:
            try:
                done.append(leecher.finish(max(0.1, deadline - time.monotonic())))
            except BenchError as error:
                if time.monotonic() < deadline:
                    raise
                short = f"{len(done)} of {len(waiting)} finished in {limit:.0f} s"
                raise BenchError(short) from error
        used = [now - then for now, then in zip(cpu_busy(), busy, strict=True)]
        sent, received = origin.sent() - sent, final.received() - received
        if disturber is not None:
            disturber.join(limit)
        for finish in done:
            source.check(finish.path)
    last = max(finish.at for finish in done) - start
    return Run(last, sent.payload, received.payload, used[0] / max(used[1], 0.01))


def _valid(runs: dict[str, list[Run]], notes: list[str]) -> dict[str, list[Run]]:
    """The runs the machine did not slow down; the others become notes."""
    for name, done in runs.items():
        for run in done:
            if run.busy > MAX_BUSY:
                notes.append(f"{name}: a run of {run.last:.1f} s is void, CPU {run.busy:.0%}")
    return {name: [run for run in done if run.busy <= MAX_BUSY] for name, done in runs.items()}


def need_lab() -> None:
    """Raises BenchError where hosts cannot be made."""
    if (reason := why_not()) is not None:
        raise BenchError(reason)


@dataclass(frozen=True, slots=True)
class Swarm:
    """What swarms fetching `size` bytes showed: valid runs, the bound, and notes."""

    size: int
    runs: dict[str, list[Run]]
    bound: float
    notes: list[str]

    def over_bound(self) -> dict[str, list[float]]:
        return self.column(lambda run: run.last / self.bound)

    def origin_copies(self) -> dict[str, list[float]]:
        return self.column(lambda run: run.origin_sent / self.size)

    def column(self, value: Callable[[Run], float]) -> dict[str, list[float]]:
        return {name: [value(run) for run in done] for name, done in self.runs.items()}


def one_origin(
    options: Options,
    peers: dict[str, Peer],
    shapes: Sequence[Shape],
    size: int,
) -> Swarm:
    """Host 0 is the origin of one file of `size` bytes, all other hosts fetch it."""
    need_lab()
    work, source = content(options, "swarm", size)
    peer = prepared(peers, source, 1, work)
    with Lab(shapes) as lab:
        best = max(lab.hosts[1:], key=lambda host: host.shape.down)
        by_rate = {
            host.shape.up: lab.goodput(host, best if host is not best else lab.hosts[0])
            for host in {host.shape.up: host for host in lab.hosts}.values()
        }
        ups = [by_rate[host.shape.up] for host in lab.hosts]
        down = lab.goodput(*_fastest_to_slowest(lab))
        least = bound(size, ups[0], ups[1:], down)

        def once(name: str) -> Run:
            return swarm(peer(name), source, lab, 1, PATIENCE * least + 60, work / name)

        runs, notes = alternate(list(peers), options.rounds, once)
    return Swarm(size, _valid(runs, notes), least, notes)


def _fastest_to_slowest(lab: Lab) -> tuple[Host, Host]:
    slowest = min(lab.hosts[1:], key=lambda host: host.shape.down)
    others = [host for host in lab.hosts if host is not slowest]
    return max(others, key=lambda host: host.shape.up), slowest


def equal_swarms(options: Options) -> list[Outcome]:
    """Rows 4 and 6, from the same runs."""
    outcomes = []
    for count, rate in ((8, 100), (16, 50)):
        shapes = [Shape(mbit(rate), mbit(rate))] * (count + 1)
        found = one_origin(options, programs(options), shapes, options.size // SWARM_PART)
        title = f"N = {count} at {rate} Mb/s, {options.size // SWARM_PART / 2**20:.0f} MiB"
        over, copies = found.over_bound(), found.origin_copies()
        last = Outcome("4", f"{title}: last ÷ bound", "× bound", "1.01", "≤ 1.08", over)
        last.notes = [*found.notes, f"{title}: bound {found.bound:.2f} s"]
        origin = Outcome("6", f"{title}: origin sends", "× file", "1.0", "≤ 1.05", copies)
        outcomes += [
            last.judge(last.median("furymesh"), lambda score: score <= 1.08),
            origin.judge(origin.median("furymesh"), lambda score: score <= 1.05),
        ]
    return outcomes


def uneven_swarm(options: Options) -> list[Outcome]:
    """Row 5: half of eight leechers have a quarter of the uplink."""
    full, quarter = Shape(mbit(100), mbit(100)), Shape(mbit(25), mbit(100))
    shapes = [full, *[full] * 4, *[quarter] * 4]
    found = one_origin(options, programs(options), shapes, options.size // SWARM_PART)
    title = "N = 8, half with ¼ uplink: last ÷ bound"
    row = Outcome("5", title, "× bound", "1.0", "≤ 1.15", found.over_bound())
    row.notes = [*found.notes, f"bound {found.bound:.2f} s"]
    return [row.judge(row.median("furymesh"), lambda score: score <= 1.15)]


def many_sources(options: Options) -> list[Outcome]:
    """Row 7: eight sources whose uplinks differ by up to 10:1."""
    need_lab()
    size = options.size // SOURCES_PART
    work, source = content(options, "sources", size)
    peers = programs(options)
    peer = prepared(peers, source, len(SPREAD), work)
    with Lab([*(Shape(rate, WIDE) for rate in SPREAD), Shape(WIDE, WIDE)]) as lab:
        sink = lab.hosts[-1]
        total = sum(lab.goodput(host, sink) for host in lab.hosts[:-1])

        def once(name: str) -> Run:
            limit = PATIENCE * size / total + 60
            return swarm(peer(name), source, lab, len(SPREAD), limit, work / name)

        runs, notes = alternate(list(peers), options.rounds, once)
    found = Swarm(size, _valid(runs, notes), size / total, notes)
    used = found.column(lambda run: size / run.last / total)
    extra = found.column(lambda run: 100 * (run.received / size - 1))
    title = f"8 sources, uplinks 10:1, {size / 2**20:.0f} MiB"
    rate = Outcome("7", f"{title}: goodput ÷ Σ uplinks", "", "1.0", "≥ 0.97", used, notes=notes)
    more = Outcome("7", f"{title}: extra bytes", "%", "0", "≤ 1 %", extra)
    return [
        rate.judge(rate.median("furymesh"), lambda score: score >= 0.97),
        more.judge(more.median("furymesh"), lambda score: score <= 1.0),
    ]


def vacuous(left: int, sources: int, size: int, before: Traffic, after: Traffic) -> str | None:
    """Why freezing a source proved nothing, or None: it must have mattered and still owe bytes.

    `left` bytes were missing at the freeze; the source had sent `before` until then, and
    its kernel sent `after` on its own from buffers that the stopped process had filled.
    """
    if before.payload < size / sources / 2:
        return f"the frozen source had sent {before.payload / 1e6:.1f} MB only, it was not in use"
    if after.payload >= left / sources:
        return f"its kernel still sent {after.payload} bytes, all of its share; raise --size"
    return None


def frozen_source(options: Options) -> list[Outcome]:
    """Row 8: one of four sources stops dead when 99 % of the file has arrived."""
    need_lab()
    size = options.size // SOURCES_PART
    work, source = content(options, "frozen", size)
    peers, sources = programs(options), 4
    peer = prepared(peers, source, sources, work)
    limit = PATIENCE * size / (mbit(50) / 8) + 60

    def once_in(lab: Lab, name: str) -> tuple[Run, Run]:
        victim = lab.hosts[sources - 1]
        seen: list[tuple[int, Traffic, Traffic]] = []  # at the freeze: left, before, sent

        def freeze(serving: Sequence[Child], sink: Host) -> None:
            start, before = sink.received(), victim.sent()
            for _ in looks(POLL, limit):
                arrived = (sink.received() - start).payload
                if arrived >= 0.99 * size:
                    serving[-1].signal(signal.SIGSTOP)
                    seen.append((size - arrived, before, victim.sent()))
                    return

        calm = swarm(peer(name), source, lab, sources, limit, work / name)
        stopped = swarm(peer(name), source, lab, sources, limit, work / name, freeze)
        if not seen:
            raise BenchError("99 % never passed the shaper, nothing was frozen")
        left, before, at_freeze = seen[0]
        if why := vacuous(left, sources, size, at_freeze - before, victim.sent() - at_freeze):
            raise BenchError(f"void: {why}")
        return calm, stopped

    with Lab([*[Shape(mbit(50), WIDE)] * sources, Shape(WIDE, WIDE)]) as lab:
        runs, notes = alternate(list(peers), options.rounds, partial(once_in, lab))
    extra = {name: [stop.last - calm.last for calm, stop in done] for name, done in runs.items()}
    busiest = max((run.busy for done in runs.values() for pair in done for run in pair), default=0)
    notes.append(f"CPU up to {busiest:.0%}" + (": void" if busiest > MAX_BUSY else ""))
    title = "one of 4 sources stopped at 99 %: extra time"
    row = Outcome("8", title, "s", "one RTT + one chunk", "≤ 1 s", extra, notes=notes)
    score = None if busiest > MAX_BUSY else row.median("furymesh")
    return [row.judge(score, lambda score: score <= 1.0)]


def scaling(options: Options) -> list[Outcome]:
    """Row 13: the same rates, eight times the hosts."""
    peers = {name: peer for name, peer in programs(options).items() if name != "libtorrent-super"}
    size = options.size // SWARM_PART // 2
    shape = Shape(mbit(SCALING_RATE), mbit(SCALING_RATE))
    small = one_origin(options, peers, [shape] * 5, size)
    large = one_origin(options, peers, [shape] * 33, size)
    ratios = {}
    for name in peers:
        if small.runs[name] and large.runs[name]:
            middle = statistics.median(run.last for run in small.runs[name])
            ratios[name] = [run.last / middle for run in large.runs[name]]
    row = Outcome(
        "13", f"T(N = 32) ÷ T(N = 4), {SCALING_RATE} Mb/s each", "", "1.01", "≤ 1.10", ratios
    )
    row.notes = [*small.notes, *large.notes]
    return [row.judge(row.median("furymesh"), lambda score: score <= 1.10)]


ROWS: dict[str, Callable[[Options], list[Outcome]]] = {
    "4": equal_swarms,
    "5": uneven_swarm,
    "6": equal_swarms,
    "7": many_sources,
    "8": frozen_source,
    "13": scaling,
}
