"""Peers that find each other on a local network, with no address typed anywhere."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from random import SystemRandom

import pytest

from furymesh.core.ids import node_id_text
from furymesh.net.identity import load_or_create
from tests.e2e.mesh import DEADLINE, Process, finished, same, write_blob
from tests.netns.conftest import MakeSegment
from tests.netns.lab import Host, Shape, _run, mbit
from tests.netns.segment import ALIASES, FLOOD_RATE, SIZE
from tests.proc import cpu_seconds, memory
from tests.waiting import block_until, holds

Record = Callable[[str, object], None]

HERE = Path(__file__).parent
FLOOD_SECONDS = 10
LINE = mbit(100)
UNSHAPED = mbit(40_000)  # far beyond what the processors can do
MOST_SHARE = 0.15  # of a processor; a tenth where nothing else is at work
MOST_MEMORY = 32 * 1024 * 1024


def seconds_to_start(process: Process, begun: float) -> float:
    process.expect("started")
    return time.monotonic() - begun


@pytest.mark.netns
def test_a_download_finds_its_peer_by_itself_as_fast_as_by_name(
    segment: MakeSegment, record_property: Record
) -> None:
    two = segment(2)
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
def test_offers_come_where_links_are_accepted(segment: MakeSegment) -> None:
    two = segment(2)
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
def test_two_nodes_of_one_host_are_found_there_and_elsewhere(segment: MakeSegment) -> None:
    two = segment(2)
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
def test_an_interface_that_comes_later_is_asked_at_once(segment: MakeSegment) -> None:
    two = segment(2)
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
def test_what_is_shared_later_is_found_soon(segment: MakeSegment) -> None:
    two = segment(2)
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
    segment: MakeSegment, count: int, record_property: Record
) -> None:
    many = segment(count)
    tag = os.urandom(32).hex()
    before = [host.sent() for host in many.hosts]
    processes = []
    for number, host in enumerate(many.hosts):
        script = [sys.executable, str(HERE / "lan_node.py"), tag, str(1000 + number)]
        processes.append(many.start(host, script))
    for process in processes:
        process.expect("found", lambda event: event["count"] == count - 1)
    # What is counted is what a network has to bear in such a time.
    holds(lambda: all(process.process.poll() is None for process in processes), 8.0)
    sent = [host.sent() - start for host, start in zip(many.hosts, before, strict=True)]
    most = max(traffic.frames for traffic in sent)
    record_property("result", f"{count} hosts: at most {most} frames each until 8 s after")
    # Five rounds in that time, and an answer to each of those of every other; some ARP and IGMP.
    assert most < 7 * count + 30, sent


@pytest.mark.netns
@pytest.mark.promise(10)
@pytest.mark.parametrize(
    ("hostile", "wait", "on"),
    [(10_000, 30, False), pytest.param(100_000, 60, True, marks=pytest.mark.slow)],
)
def test_a_flood_of_lies_keeps_nobody_from_the_real_peer(
    segment: MakeSegment, hostile: int, wait: float, on: bool, record_property: Record
) -> None:
    three = segment(3)
    seed_host, user_host, liar = three.hosts
    file_id = three.share("seed")
    seed = SystemRandom().getrandbits(32)
    flood = three.flood(liar, three.aliases(liar, ALIASES), seed, "--tell", hostile)
    user = three.run(user_host, "user", "get", file_id, "--timeout", 4 * wait)
    flood.expect("flooding")
    before = memory(user.pid)
    done = flood.expect("sent", timeout=wait)
    grown = memory(user.pid) - before
    assert user.process.poll() is None, (seed, user.err)
    if not on:
        flood.kill()
    three.node(seed_host, "seed")
    ready = time.monotonic()
    user.expect("started")
    took = time.monotonic() - ready
    finished(user)
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
@pytest.mark.promise(10)
@pytest.mark.parametrize(
    ("seconds", "keeps"), [(2, 0.8), pytest.param(FLOOD_SECONDS, 0.9, marks=pytest.mark.slow)]
)
def test_a_download_keeps_its_rate_in_a_flood(
    segment: MakeSegment, seconds: int, keeps: float, record_property: Record
) -> None:
    """Against one beside which the same datagrams go to somebody else: they cost to make, too."""
    fast = Shape(UNSHAPED, UNSHAPED)
    four = segment(4, [Shape(LINE, UNSHAPED), fast, fast, fast])
    seed_host, user_host, liar, somebody = four.hosts
    aliases = four.aliases(liar, ALIASES)
    size = LINE // 8 * (seconds + 3)
    file_id = four.share("seed", size=size, chunk_size=1 << 20)
    seed = SystemRandom().getrandbits(32)
    four.node(seed_host, "seed")

    def rate(name: str, *options: object) -> float:
        flood = four.flood(liar, aliases, seed, *options)
        user = four.run(user_host, name, "get", file_id)
        flood.expect("flooding")
        measured = rate_over(user, seconds)
        user.kill()
        flood.kill()
        return measured

    quiet = rate("quiet", "--at", somebody.address)
    flooded = rate("flooded")
    record_property("cases", 1)
    record_property(
        "result",
        f"{FLOOD_RATE} datagrams a second: {flooded / quiet:.0%} of the rate without, which is"
        f" {quiet / 1e6:.0f} MB/s",
    )
    record_property("seed", seed)
    assert flooded > keeps * quiet, (seed, flooded, quiet)


@pytest.mark.netns
@pytest.mark.promise(10)
@pytest.mark.parametrize("seconds", [2, pytest.param(FLOOD_SECONDS, marks=pytest.mark.slow)])
def test_a_flood_takes_little_of_the_processor_from_a_download(
    segment: MakeSegment, seconds: int, record_property: Record
) -> None:
    """Which on an unshaped line takes all that there is; this one hardly needs any."""
    three = segment(3)
    seed_host, user_host, liar = three.hosts
    seed = SystemRandom().getrandbits(32)
    file_id = three.share("seed")
    three.node(seed_host, "seed")
    aliases = three.aliases(liar, ALIASES)
    user = three.run(user_host, "user", "get", file_id, "--max-download", "50k")
    user.expect("progress", lambda event: event["chunks_done"] > 0)

    def busy() -> float:
        before = cpu_seconds(user.pid)
        holds(lambda: user.process.poll() is None, seconds)
        return (cpu_seconds(user.pid) - before) / seconds

    calm = busy()
    three.flood(liar, aliases, seed).expect("flooding")
    share = busy() - calm
    record_property("cases", 1)
    record_property("result", f"{FLOOD_RATE} datagrams a second: {share:.1%} of a processor")
    record_property("seed", seed)
    assert share < MOST_SHARE, (seed, share)


def rate_over(process: Process, seconds: float) -> float:
    """Bytes a second of a download over some time from its next report."""
    first = process.expect("progress", lambda event: event["chunks_done"] > 0)
    begun = time.monotonic()
    last = first
    while time.monotonic() - begun < seconds:
        last = process.expect("progress")
    return float(last["bytes_done"] - first["bytes_done"]) / (time.monotonic() - begun)
