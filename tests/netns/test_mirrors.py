"""Swarms that have one web server for a mirror and no seed: each byte leaves it about once."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.bench.data import Source, make_source
from tests.bench.furymesh_peer import CLI, ENVIRONMENT, GATE, home
from tests.bench.peer import READY_TIMEOUT
from tests.bench.process import Crew, cpu_busy
from tests.netns.lab import Host, Lab, Shape, mbit
from tests.web import web_server

PORT, WEB_PORT = 7000, 8080

pytestmark = [pytest.mark.netns, pytest.mark.usefixtures("lab_needed")]


@dataclass(frozen=True)
class Run:
    """Seconds to the last finish, the least possible, bytes the mirror sent, CPU share."""

    last: float
    bound: float
    sent: int
    busy: float


def swarm_of_a_mirror(hosts: int, rate: float, source: Source, work: Path, limit: float) -> Run:
    """Host 0 has a web server and a node that shared its URL, the others fetch at once."""
    shapes = [Shape(mbit(rate), mbit(rate))] * (hosts + 1)
    with Lab(shapes) as lab, Crew(work / "logs") as crew:
        origin, *others = lab.hosts
        goodput = lab.goodput(origin, others[0], 2)
        web = web_server(
            source.path.parent, work / "web", host=origin.address, port=WEB_PORT, popen=origin.popen
        )
        with web as server:
            url = server.url(source.path.name)
            data = home(work / "node", f"{origin.address}:{PORT}")
            share = [*CLI, "share", url, "--json", *data]
            shared = crew.spawn(origin.command(share), ENVIRONMENT).expect(None, READY_TIMEOUT)
            node = crew.spawn(origin.command([*CLI, "node", "--json", *data]), ENVIRONMENT)
            address = node.expect("listening", READY_TIMEOUT).fields["addresses"][0]

            def leech(host: Host) -> list[str]:
                into = work / str(host.number)
                options = ["--mirror", url, "--peer", address, "--output", str(into / "out")]
                keep = ["--seed", "--json", *home(into, f"{host.address}:{PORT}")]
                get = [sys.executable, GATE, "get", shared.fields["link"], *options, *keep]
                return host.command(get)

            leeches = [crew.spawn(leech(host), ENVIRONMENT) for host in others]
            for child in leeches:
                child.expect("ready", READY_TIMEOUT)
            before, busy, start = origin.sent(), cpu_busy(), time.monotonic()
            for child in leeches:
                child.release()
            done = [child.expect("complete", limit) for child in leeches]
            used = [now - then for now, then in zip(cpu_busy(), busy, strict=True)]
            sent = (origin.sent() - before).payload
            last = max(event.at for event in done) - start
            for host, event in zip(others, done, strict=True):
                source.check(work / str(host.number) / "out")
                by_mirror = [peer for peer in event.fields["peers"] if peer["found"] == "mirror"]
                assert [peer["address"] for peer in by_mirror] == [url]
    bound = max(source.size / goodput, hosts * source.size / ((hosts + 1) * goodput))
    return Run(last, bound, sent, used[0] / max(used[1], 0.01))


def test_three_hosts_and_a_mirror(tmp_path: Path) -> None:
    source = make_source(tmp_path / "content.bin", 12_000_000)
    run = swarm_of_a_mirror(3, 40, source, tmp_path / "work", 40)
    assert run.sent <= 1.15 * source.size, run
    assert run.last <= 1.6 * run.bound, run  # a few seconds, and the start counts among them


@pytest.mark.slow
def test_eight_hosts_and_a_mirror_are_nearly_as_quick_as_can_be(tmp_path: Path) -> None:
    source = make_source(tmp_path / "content.bin", 128 * 1024 * 1024)
    runs = [
        swarm_of_a_mirror(8, 100, source, tmp_path / f"work-{number}", 120) for number in range(3)
    ]
    for run in runs:
        print(f"{run.last / run.bound:.3f} × bound, {run.sent / source.size:.3f} × file, {run}")
    assert sorted(run.sent / source.size for run in runs)[1] <= 1.1, runs
    assert sorted(run.last / run.bound for run in runs)[1] <= 1.15, runs
