"""Swarms that are split, healed and robbed of packets: everybody goes on soon after.

Processes are real, the network is a laboratory of namespaces. A side that is cut
off hears nothing, not even a reset: its links look alive until something gives up.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.e2e.mesh import Mesh, Process, finished, same, write_blob
from tests.netns.lab import Host, Lab, Shape, mbit, why_not
from tests.waiting import block_until

RATE = mbit(40)
PORT = 7700
SIZE = 25_000_000  # bytes: five seconds for the seed to send once
SHORT_SIZE = 10_000_000
LOSSY_SECONDS = 15.0
HEALED = 30.0  # seconds within which everybody has to be going on again
PATIENCE = 240.0  # seconds for a whole download under the worst of these
BEGUN = 0.2  # of the content, that everybody has when the network breaks

Record = Callable[[str, object], None]


@dataclass
class Trial:
    """One seed and some downloads, each on a host of its own."""

    hosts: Sequence[Host]
    source: Path
    leechers: list[Process] = field(default_factory=list)

    def done(self, number: int) -> int:
        """Bytes that a leecher has said to have."""
        events = self.leechers[number].events
        return max((event.get("bytes_done", 0) for event in events), default=0)

    def complete(self, number: int) -> bool:
        return any(event["event"] == "complete" for event in self.leechers[number].events)

    def check(self) -> None:
        for leecher in self.leechers:
            assert same(Path(finished(leecher, PATIENCE)["path"]), self.source)

    def split(self, one: Sequence[int], other: Sequence[int]) -> None:
        """Let nothing through between two groups of hosts, silently."""
        for here, there in [(a, b) for a in one for b in other]:
            for host, away in ((here, there), (there, here)):
                _filter(self.hosts[host], "-I", self.hosts[away].address)

    def heal(self, one: Sequence[int], other: Sequence[int]) -> None:
        for here, there in [(a, b) for a in one for b in other]:
            for host, away in ((here, there), (there, here)):
                _filter(self.hosts[host], "-D", self.hosts[away].address)

    def recovery(self, numbers: Sequence[int]) -> float:
        """Seconds from now until each of these leechers has more than now, or is complete."""
        before = {number: self.done(number) for number in numbers}
        start = time.monotonic()

        def going_on() -> bool:
            return all(self.complete(n) or self.done(n) > before[n] for n in numbers)

        block_until(going_on, HEALED)
        return time.monotonic() - start


def _filter(host: Host, action: str, source: str) -> None:
    rule = ["iptables", "-w", action, "INPUT", "-s", source, "-j", "DROP"]
    assert os.waitstatus_to_exitcode(os.spawnvp(os.P_WAIT, "ip", host.command(rule))) == 0


@pytest.fixture
def trial(tmp_path: Path) -> Iterator[Callable[..., Trial]]:
    if (reason := why_not()) is not None:
        pytest.skip(reason)
    with ExitStack() as stack:

        def start(leechers: int, size: int = SIZE, loss: float = 0.0) -> Trial:
            lab = stack.enter_context(Lab([Shape(RATE, RATE)] * (leechers + 1)))
            for host in lab.hosts if loss else ():
                host.lose(loss)
            mesh = Mesh(tmp_path)
            stack.callback(mesh.close)
            made = Trial(lab.hosts, write_blob(tmp_path / "content.bin", size, seed=13))
            link = mesh.share("seed", made.source, chunk_size=256 * 1024).link.text

            def run(host: Host, name: str, command: str, *arguments: object) -> Process:
                home = mesh.home(name)
                places = ["--config", str(mesh.config_of(home)), "--data-dir", str(home)]
                argv = [sys.executable, "-m", "furymesh", command, *places, "--json"]
                process = Process(
                    host.command([*argv, *map(str, arguments)]),
                    tmp_path / f"{name}.err",
                    mesh.files(home),
                    dict(os.environ),
                )
                stack.callback(process.clean_up)
                return process

            seed, *others = lab.hosts
            address = f"{seed.address}:{PORT}"
            run(seed, "seed", "node", "--listen", address).expect("listening")
            for number, host in enumerate(others):
                get = (link, "--peer", address, "--timeout", PATIENCE)
                made.leechers.append(run(host, f"leecher{number}", "get", *get))
            return made

        yield start


@pytest.mark.netns
@pytest.mark.parametrize(
    ("cut_off", "seconds", "size"),
    [
        ([1, 2], 2, SHORT_SIZE),
        # From 26 and from 52 seconds on the kernel's next retry is as many more away.
        *(
            pytest.param(cut_off, seconds, SIZE, marks=pytest.mark.slow)
            for cut_off in ([1, 2], [2])
            for seconds in (10, 27, 54)
        ),
    ],
)
def test_a_split_swarm_goes_on_after_it_heals(
    trial: Callable[..., Trial],
    cut_off: list[int],
    seconds: float,
    size: int,
    record_property: Record,
) -> None:
    """Hosts `cut_off` lose the seed and whoever is with it; they keep each other."""
    swarm = trial(leechers=2, size=size)
    block_until(lambda: min(swarm.done(0), swarm.done(1)) >= size * BEGUN, PATIENCE)
    rest = [host for host in range(3) if host not in cut_off]
    swarm.split(cut_off, rest)
    time.sleep(seconds)  # the length of the split is what is tried
    swarm.heal(cut_off, rest)
    took = swarm.recovery([host - 1 for host in cut_off])
    swarm.check()
    record_property("row", 13)
    record_property("cases", 1)
    record_property(
        "result", f"{len(cut_off)} of 3 hosts cut off for {seconds} s go on after {took:.0f} s"
    )


@pytest.mark.netns
@pytest.mark.slow
@pytest.mark.parametrize("loss", [0.01, 0.03, 0.1, 0.2])
def test_a_lossy_network_is_used_again_as_soon_as_it_heals(
    trial: Callable[..., Trial], loss: float, record_property: Record
) -> None:
    swarm = trial(leechers=2, loss=loss)
    time.sleep(LOSSY_SECONDS)  # the length of the trouble is what is tried
    lost = min(swarm.done(0), swarm.done(1))
    for host in swarm.hosts:
        flush = host.command(["iptables", "-w", "-F", "INPUT"])
        assert os.waitstatus_to_exitcode(os.spawnvp(os.P_WAIT, "ip", flush)) == 0
    took = swarm.recovery([0, 1])
    swarm.check()
    record_property("row", 13)
    record_property("cases", 1)
    record_property(
        "result",
        f"{loss:.0%} loss each way for {LOSSY_SECONDS:.0f} s, {lost} bytes in it;"
        f" going on {took:.0f} s after it",
    )


@pytest.mark.netns
@pytest.mark.slow
def test_a_split_of_a_lossy_network_heals_too(
    trial: Callable[..., Trial], record_property: Record
) -> None:
    swarm = trial(leechers=2, loss=0.05)
    block_until(lambda: min(swarm.done(0), swarm.done(1)) >= SIZE * BEGUN / 10, PATIENCE)
    swarm.split([1, 2], [0])
    time.sleep(20)  # the length of the split is what is tried
    swarm.heal([1, 2], [0])
    took = swarm.recovery([0, 1])
    swarm.check()
    record_property("row", 13)
    record_property("cases", 1)
    record_property("result", f"5% loss and 20 s cut off: going on after {took:.0f} s")
