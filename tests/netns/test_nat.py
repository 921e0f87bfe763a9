"""Nodes behind NATs and a public relay: directly where that is possible, else through it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.apart import ALONE
from tests.e2e.mesh import Event, Mesh, Process, finished, same, write_blob
from tests.netns.lab import Host, Lab, LabError, Shape, mbit
from tests.netns.nat import Nat, behind
from tests.waiting import block_until

RATE = mbit(40)
GOODPUT = RATE / 8 * 1448 / 1514  # bytes a second that a line of RATE carries at most
PORT = 7700
SIZE = 25_000_000  # bytes: five seconds on such a line
PATIENCE = 60.0
DIRECT_SECONDS = 5.0  # within which two that can meet directly do
# What a relay sends where bytes go directly: handshakes, and what a link brought before
# the direct one took its place.
ASIDE = 0.2

pytestmark = pytest.mark.netns


@dataclass
class Neighbourhood:
    """A seed and a downloader behind routers, and a relay in public."""

    relay: Host
    source: Path
    get: Callable[[], Process]

    def carried(self) -> int:
        """Bytes that the relay has sent."""
        return self.relay.sent().payload


@pytest.fixture
def neighbourhood(mesh: Mesh, lab_needed: None) -> Iterator[Callable[..., Neighbourhood]]:
    with ExitStack() as stack:
        node = ("node", "--json", "--listen")

        def build(seed_nat: Nat, get_nat: Nat, size: int = SIZE) -> Neighbourhood:
            lab = stack.enter_context(Lab([Shape(RATE, RATE)] * 3))
            stack.callback(mesh.close)
            relay, *routers = lab.hosts
            try:
                guests = [
                    behind(router, kind)
                    for router, kind in zip(routers, (seed_nat, get_nat), strict=True)
                ]
            except LabError as error:
                pytest.skip(f"no NAT here: {error}")
            source = write_blob(mesh.root / "content.bin", size, seed=17)
            link = mesh.share("seed", source, chunk_size=256 * 1024).link.text

            mesh.home("relay", "node: {relay: true}\n")
            started = mesh.start("relay", *node, f"{relay.address}:{PORT}", on=relay)
            node_id = started.expect("listening")["node_id"]
            relays = {**ALONE, "relays": [f"{node_id}@{relay.address}:{PORT}"]}
            for name in ("seed", "leecher"):
                mesh.home(name, discovery=f"discovery: {json.dumps(relays)}\n")
            seed = mesh.start("seed", *node, f"0.0.0.0:{PORT}", on=guests[0])
            seed.expect("listening")
            get = ("leecher", "get", link, "--json", "--timeout", PATIENCE)
            return Neighbourhood(relay, source, lambda: mesh.start(*get, on=guests[1]))

        yield build


def named(kind: Nat) -> str:
    return kind.name.lower()


def done(process: Process) -> int:
    return max((event.get("bytes_done", 0) for event in process.events), default=0)


@pytest.mark.parametrize("seed_nat", [Nat.SYMMETRIC, Nat.PORT_RESTRICTED], ids=named)
def test_a_symmetric_nat_is_crossed_by_the_relay_at_the_rate_of_its_line(
    neighbourhood: Callable[..., Neighbourhood],
    record_property: Callable[[str, object], None],
    seed_nat: Nat,
) -> None:
    place = neighbourhood(seed_nat, Nat.SYMMETRIC)
    leecher = place.get()
    block_until(lambda: done(leecher) >= 0.1 * SIZE, PATIENCE)
    begun, before = time.monotonic(), place.carried()
    block_until(lambda: done(leecher) >= 0.9 * SIZE, PATIENCE)
    rate = (place.carried() - before) / (time.monotonic() - begun)
    record_property("share of the relay's line", round(rate / GOODPUT, 3))
    complete: Event = finished(leecher, PATIENCE)
    assert same(Path(complete["path"]), place.source)
    assert place.carried() >= SIZE
    assert rate >= 0.8 * GOODPUT, f"{rate / GOODPUT:.2f} of the line"


@pytest.mark.parametrize(
    ("seed_nat", "get_nat"),
    [
        (Nat.PORT_RESTRICTED, Nat.PORT_RESTRICTED),
        (Nat.FULL_CONE, Nat.PORT_RESTRICTED),
        (Nat.FULL_CONE, Nat.SYMMETRIC),
    ],
    ids=named,
)
def test_nats_that_keep_the_port_are_crossed_directly(
    neighbourhood: Callable[..., Neighbourhood],
    record_property: Callable[[str, object], None],
    seed_nat: Nat,
    get_nat: Nat,
) -> None:
    place = neighbourhood(seed_nat, get_nat)
    leecher = place.get()
    complete: Event = finished(leecher, PATIENCE)
    assert same(Path(complete["path"]), place.source)
    record_property("seconds", complete["seconds"])
    record_property("carried by the relay", place.carried())
    assert place.carried() <= ASIDE * SIZE
    assert complete["seconds"] <= DIRECT_SECONDS + SIZE / (0.8 * GOODPUT)
