"""Peers that find each other on a local network, with no address typed anywhere."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from random import SystemRandom

import pytest

from furymesh.core.ids import node_id_text
from furymesh.net.identity import load_or_create
from tests.e2e.mesh import DEADLINE, Mesh, Process, finished, same, write_blob
from tests.netns.lab import Host, Lab, Shape, _run, mbit, why_not
from tests.waiting import block_until

Record = Callable[[str, object], None]

CONFIG = "discovery: {dht: {enabled: false}}\n"
HERE = Path(__file__).parent
SIZE = 2_000_000
FAST = Shape(mbit(1000), mbit(1000))
FLOOD_SECONDS = 10
FLOOD_RATE = 10_000  # datagrams a second
CAPPED = 15_000_000  # bytes a second of a download: far from what the processors can do
ALIASES = 150  # addresses of one who lies
MOST_MEMORY = 32 * 1024 * 1024


class Net:
    """Hosts on one segment that run furymesh as it comes, but for the DHT."""

    def __init__(self, lab: Lab, root: Path, stack: ExitStack) -> None:
        self.hosts = lab.hosts
        self.mesh = Mesh(root)
        self._stack = stack
        self._count = 0
        stack.callback(self.mesh.close)
        self.source = root / "content.bin"

    def share(self, *homes: str, size: int = SIZE) -> str:
        """Share the same content from these homes; the bare file id."""
        write_blob(self.source, size, seed=21)
        for home in homes:
            self._home(home)
            shared = self.mesh.share(home, self.source, chunk_size=64 * 1024)
        return shared.file_id.hex()

    def run(self, host: Host, home: str, command: str, *arguments: object) -> Process:
        data = self._home(home)
        places = ["--config", str(self.mesh.config_of(data)), "--data-dir", str(data)]
        argv = [sys.executable, "-m", "furymesh", command, *places, "--json"]
        return self.start(host, [*argv, *map(str, arguments)])

    def start(self, host: Host, argv: list[str]) -> Process:
        self._count += 1
        log = self.mesh.root / f"{self._count}.err"
        process = Process(host.command(argv), log, self.mesh.files("work"), dict(os.environ))
        self._stack.callback(process.clean_up)
        return process

    def node(self, host: Host, home: str) -> Process:
        process = self.run(host, home, "node", "--listen", "0.0.0.0:0")
        process.expect("listening")
        return process

    def flood(self, host: Host, count: int, seed: int) -> Process:
        """One who lies to whoever asks, from many addresses."""
        aliases = [f"10.77.0.{100 + number}" for number in range(ALIASES)]
        for alias in aliases:
            _run("ip", "-n", host.namespace, "addr", "add", f"{alias}/32", "dev", "eth0")
        script = [sys.executable, str(HERE / "lan_flood.py"), "--rate", str(FLOOD_RATE)]
        process = self.start(host, [*script, "--tell", str(count), "--seed", str(seed), *aliases])
        process.expect("ready")
        return process

    def _home(self, name: str) -> Path:
        data = self.mesh.home(name)
        self.mesh.config_of(data).write_text(CONFIG)
        return data


@pytest.fixture
def net(tmp_path: Path) -> Iterator[Callable[[int], Net]]:
    if (reason := why_not()) is not None:
        pytest.skip(reason)
    with ExitStack() as stack:
        yield lambda hosts: Net(stack.enter_context(Lab([FAST] * hosts)), tmp_path, stack)


def seconds_to_start(process: Process, begun: float) -> float:
    process.expect("started")
    return time.monotonic() - begun


@pytest.mark.netns
def test_a_download_finds_its_peer_by_itself_as_fast_as_by_name(
    net: Callable[[int], Net], record_property: Record
) -> None:
    two = net(2)
    file_id = two.share("seed")
    two.node(two.hosts[0], "seed")
    found, named = [], []
    for number in range(3):
        begun = time.monotonic()
        process = two.run(two.hosts[1], f"user{number}", "get", file_id, "--output", f"{number}")
        found.append(seconds_to_start(process, begun))
        done = finished(process)
        assert [peer["found"] for peer in done["peers"]] == ["lan"]
        assert same(Path(done["path"]), two.source)
        begun = time.monotonic()
        address = done["peers"][0]["address"]
        flags = ("--peer", address, "--output", f"named{number}")
        process = two.run(two.hosts[1], f"named{number}", "get", file_id, *flags)
        named.append(seconds_to_start(process, begun))
        finished(process)
    record_property("result", f"started after {min(found):.2f} s, named {min(named):.2f} s")
    assert min(found) < min(named) + 0.4, (found, named)


def switch_ipv6(host: Host, *, on: bool) -> None:
    place = "/proc/sys/net/ipv6/conf/eth0"
    # Without asking first whether others have the address: that takes seconds.
    off = f"echo 0 > {place}/accept_dad; echo {int(not on)} > {place}/disable_ipv6"
    _run(*host.command(["sh", "-c", off]))


@pytest.mark.netns
def test_offers_come_where_links_are_accepted(net: Callable[[int], Net]) -> None:
    two = net(2)
    file_id = two.share("seed")
    seed, user = two.hosts
    for host in two.hosts:
        switch_ipv6(host, on=True)
    _run("ip", "-n", user.namespace, "-4", "addr", "flush", "dev", "eth0")
    over_ipv4 = two.run(seed, "seed", "node", "--listen", "0.0.0.0:0")
    over_ipv4.expect("listening")
    assert two.run(user, "alone", "get", file_id, "--timeout", 2).done().code == 3
    over_ipv4.stop()
    two.run(seed, "seed", "node", "--listen", "[::]:0").expect("listening")
    done = finished(two.run(user, "six", "get", file_id, "--output", "six"))
    assert done["peers"][0]["address"].startswith("[fe80::")
    switch_ipv6(user, on=False)
    _run("ip", "-n", user.namespace, "addr", "add", f"{user.address}/24", "dev", "eth0")
    done = finished(two.run(user, "four", "get", file_id, "--output", "four"))
    assert done["peers"][0]["address"].startswith(f"{seed.address}:")
    assert same(Path(done["path"]), two.source)


@pytest.mark.netns
def test_two_nodes_of_one_host_are_found_there_and_elsewhere(net: Callable[[int], Net]) -> None:
    two = net(2)
    file_id = two.share("one", "other")
    nodes = {
        node_id_text(load_or_create(two.mesh.home(name)).node_id)[:16] for name in ("one", "other")
    }
    for name in ("one", "other"):
        two.node(two.hosts[0], name)
    for number, host in enumerate(two.hosts):
        flags = ("--verbose", "--max-download", "1M", "--output", f"{number}.bin")
        process = two.run(host, f"user{number}", "get", file_id, *flags)
        block_until(lambda: all(node in process.err for node in nodes), DEADLINE)  # noqa: B023
        process.kill()


@pytest.mark.netns
def test_an_interface_that_comes_later_is_asked_at_once(net: Callable[[int], Net]) -> None:
    two = net(2)
    file_id = two.share("seed")
    two.node(two.hosts[0], "seed")
    user = two.hosts[1]
    _run("ip", "-n", user.namespace, "link", "set", "eth0", "down")
    process = two.run(user, "user", "get", file_id)
    process.expect_err("No peer has it yet; nobody answered on the local network")
    _run("ip", "-n", user.namespace, "link", "set", "eth0", "up")
    _run("ip", "-n", user.namespace, "route", "add", "10.77.0.0/24", "dev", "eth0")
    begun = time.monotonic()
    process.expect("started")
    assert time.monotonic() - begun < 6.0  # looks every two seconds; the pause alone may be eight
    assert same(Path(finished(process)["path"]), two.source)


@pytest.mark.netns
def test_what_is_shared_later_is_found_soon(net: Callable[[int], Net]) -> None:
    two = net(2)
    two.node(two.hosts[0], "seed")
    source = write_blob(two.mesh.root / "later.bin", SIZE, seed=22)
    aside = two.mesh.share("aside", source, chunk_size=64 * 1024)
    process = two.run(two.hosts[1], "user", "get", aside.file_id.hex())
    process.expect_err("nobody answered on the local network")
    shared = two.run(two.hosts[0], "seed", "share", source, "--chunk-size", 64 * 1024)
    assert shared.done().code == 0
    begun = time.monotonic()
    process.expect("started")
    assert time.monotonic() - begun < 11.0
    finished(process)


@pytest.mark.netns
@pytest.mark.parametrize("count", [6, pytest.param(20, marks=pytest.mark.slow)])
def test_many_on_one_network_find_each_other_without_a_storm(
    net: Callable[[int], Net], count: int, record_property: Record
) -> None:
    many = net(count)
    tag = os.urandom(32).hex()
    before = [host.sent() for host in many.hosts]
    processes = []
    for number, host in enumerate(many.hosts):
        script = [sys.executable, str(HERE / "lan_node.py"), tag, str(1000 + number)]
        processes.append(many.start(host, script))
    for process in processes:
        process.expect("found", lambda event: event["count"] == count - 1)
    time.sleep(8.0)  # what is counted is what a network has to bear in such a time
    sent = [host.sent() - start for host, start in zip(many.hosts, before, strict=True)]
    most = max(traffic.frames for traffic in sent)
    record_property("result", f"{count} hosts: at most {most} frames each until 8 s after")
    # Five rounds in that time, and an answer to each of those of every other; some ARP and IGMP.
    assert most < 7 * count + 30, sent


@pytest.mark.netns
@pytest.mark.parametrize(
    ("hostile", "wait", "on"),
    [(10_000, 30, False), pytest.param(100_000, 60, True, marks=pytest.mark.slow)],
)
def test_a_flood_of_lies_keeps_nobody_from_the_real_peer(
    net: Callable[[int], Net], hostile: int, wait: float, on: bool, record_property: Record
) -> None:
    three = net(3)
    seed_host, user_host, liar = three.hosts
    file_id = three.share("seed")
    seed = SystemRandom().getrandbits(32)
    flood = three.flood(liar, hostile, seed)
    user = three.run(user_host, "user", "get", file_id, "--timeout", 4 * wait)
    flood.expect("flooding")
    before = resident(user.pid)
    done = flood.expect("sent", timeout=wait)
    grown = resident(user.pid) - before
    assert user.process.poll() is None, (seed, user.err)
    if not on:
        flood.kill()
    three.node(seed_host, "seed")
    ready = time.monotonic()
    user.expect("started")
    took = time.monotonic() - ready
    finished(user)
    record_property("row", 10)
    record_property("cases", 1)
    record_property(
        "result",
        f"{hostile} datagrams in {done['seconds']:.0f} s, {done['fake']} made-up peers:"
        f" {grown / 2**20:.0f} MiB more memory, the real peer {took:.1f} s after it came",
    )
    record_property("seed", seed)
    assert grown < MOST_MEMORY, (seed, grown)
    assert took < 10.0, (seed, took)


@pytest.mark.netns
@pytest.mark.parametrize(
    ("seconds", "keeps"), [(2, 0.7), pytest.param(FLOOD_SECONDS, 0.9, marks=pytest.mark.slow)]
)
def test_a_download_keeps_its_rate_in_a_flood(
    net: Callable[[int], Net], seconds: int, keeps: float, record_property: Record
) -> None:
    three = net(3)
    seed_host, user_host, liar = three.hosts
    file_id = three.share("seed", size=CAPPED * (2 * seconds + 8))
    seed = SystemRandom().getrandbits(32)
    three.node(seed_host, "seed")
    calm = three.run(user_host, "calm", "get", file_id, "--max-download", CAPPED)
    quiet = rate_over(calm, seconds)
    calm.kill()
    user = three.run(user_host, "user", "get", file_id, "--max-download", CAPPED, "--output", "u")
    user.expect("started")
    flood = three.flood(liar, FLOOD_RATE, seed)
    flood.expect("flooding", timeout=60)
    flooded = rate_over(user, seconds)
    record_property("row", 10)
    record_property("cases", 1)
    record_property(
        "result", f"{FLOOD_RATE} datagrams a second: {flooded / quiet:.0%} of the rate without"
    )
    record_property("seed", seed)
    assert flooded > keeps * quiet, (seed, flooded, quiet)


def rate_over(process: Process, seconds: float) -> float:
    """Bytes a second of a download over some time from its next report."""
    first = process.expect("progress", lambda event: event["chunks_done"] > 0)
    begun = time.monotonic()
    last = first
    while time.monotonic() - begun < seconds:
        last = process.expect("progress")
    return float(last["bytes_done"] - first["bytes_done"]) / (time.monotonic() - begun)


def resident(pid: int) -> int:
    """Bytes of memory that a process has."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"process {pid} is gone")
