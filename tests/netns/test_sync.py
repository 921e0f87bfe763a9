"""Folder sync between hosts of its own: no address typed, and a network that goes away."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.e2e.mesh import Mesh, Process
from tests.netns.lab import Host, Lab, Shape, mbit, why_not
from tests.unit.sync.lab import contents, tree
from tests.waiting import holds

CONFIG = "discovery: {dht: {enabled: false}}\n"
FAST = Shape(mbit(1000), mbit(1000))
SLOW = Shape(mbit(40), mbit(40))
SIZE = 14_000_000  # seconds of a slow network
Record = Callable[[str, object], None]


class Net:
    """Hosts on one segment that run furymesh as it comes, but for the DHT."""

    def __init__(self, lab: Lab, root: Path, stack: ExitStack) -> None:
        self.hosts = lab.hosts
        self.root = root
        self.archive = root / "archive"
        self._mesh = Mesh(root)
        self._stack = stack
        self._count = 0
        stack.callback(self._mesh.close)

    def run(self, host: Host, home: str, command: str, *arguments: object) -> Process:
        data = self._mesh.home(home)
        self._mesh.config_of(data).write_text(CONFIG)
        places = ["--config", str(self._mesh.config_of(data)), "--data-dir", str(data)]
        argv = [sys.executable, "-m", "furymesh", *command.split(), *places, "--json"]
        self._count += 1
        log = self.root / f"{self._count}.err"
        files = self._mesh.files("work")
        argv = host.command([*argv, *map(str, arguments)])
        process = Process(argv, log, files, dict(os.environ))
        self._stack.callback(process.clean_up)
        return process

    def serve(self, host: Host, home: str = "server") -> Process:
        process = self.run(host, home, "sync serve", "--archive", self.archive)
        process.expect("listening")
        return process

    def push(self, host: Host, source: Path, client_id: str, *options: object) -> Process:
        flags = ("--archive", source, "--client-id", client_id, *options)
        return self.run(host, client_id, "sync push", *flags)


@pytest.fixture
def net(tmp_path: Path) -> Iterator[Callable[..., Net]]:
    if (reason := why_not()) is not None:
        pytest.skip(reason)
    with ExitStack() as stack:
        yield lambda *shapes: Net(stack.enter_context(Lab(shapes)), tmp_path, stack)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "source").mkdir()
    return tree(tmp_path / "source", seed=5)


@pytest.mark.netns
def test_a_client_finds_its_server_with_no_address_typed(
    net: Callable[..., Net], source: Path
) -> None:
    three = net(FAST, FAST, FAST)
    server = three.serve(three.hosts[0])
    client = three.push(three.hosts[1], source, "laptop", "--once")
    found = client.expect("found")
    assert found["address"].startswith(three.hosts[0].address)
    assert (found["new"], found["others"]) == (True, [])
    assert client.done().code == 0
    assert contents(three.archive / "laptop") == contents(source)
    # Another server comes: the client stays with its own, and a new client takes one for good.
    three.serve(three.hosts[2], "other")
    client = three.push(three.hosts[1], source, "laptop", "--once")
    again = client.expect("found")
    assert (again["node_id"], again["new"]) == (found["node_id"], False)
    assert client.done().code == 0
    chosen = [
        three.push(three.hosts[1], source, f"new{n}", "--once").expect("found") for n in range(2)
    ]
    assert chosen[0]["node_id"] == chosen[1]["node_id"]
    assert [len(event["others"]) for event in chosen] == [1, 1]
    # And where only the other one is, the client waits for its own, and says so.
    server.stop()
    done = three.push(three.hosts[1], source, "laptop", "--once", "--timeout", "1.5").done()
    assert done.code == 3
    assert 'client id "laptop" is used with' in done.err


@pytest.mark.netns
@pytest.mark.parametrize("seconds", [3, pytest.param(30, marks=pytest.mark.slow)])
def test_a_network_that_is_away_for_a_while_costs_only_that_time(
    net: Callable[..., Net], tmp_path: Path, seconds: int, record_property: Record
) -> None:
    source = tmp_path / "large"
    source.mkdir()
    (source / "large.bin").write_bytes(os.urandom(SIZE))
    two = net(SLOW, SLOW)
    two.serve(two.hosts[0])
    client = two.push(two.hosts[1], source, "laptop", "--once")
    before = client.expect("progress", lambda event: event["bytes_done"] > SIZE // 4)
    two.hosts[1].cut()
    holds(lambda: client.process.poll() is None, seconds)
    two.hosts[1].heal()
    back = time.monotonic()
    report = client.expect("synced", timeout=60 + seconds)
    took = time.monotonic() - back
    assert client.done().code == 0
    assert contents(two.archive / "laptop") == contents(source)
    lost = [event for event in client.events if event["event"] == "lost"]
    record_property("result", f"{seconds} s away: done {took:.1f} s after it was back")
    arrived = before["bytes_done"] if lost else 0  # in a session before the last one
    assert report["bytes"] <= SIZE - arrived
    assert took < 25, report
