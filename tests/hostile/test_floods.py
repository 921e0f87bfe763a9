"""Crowds of connections: honest peers are served on, and nothing is left of the crowd."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from random import Random

import pytest
import trio
from trio.lowlevel import current_statistics

from furymesh.core.errors import FuryMeshError
from furymesh.core.link import Address
from tests.e2e.mesh import Mesh, finished
from tests.hostile.attacker import connect, new_endpoint, reset, wire
from tests.hostile.conftest import Target
from tests.hostile.siege import Besieger, besieged, deaf, idle, trickling, useless
from tests.proc import descriptors
from tests.unit.swarm.lab import lab
from tests.waiting import block_until, until

SEED = 15
CROWD = 500
# Members that do not read: each takes a slot for a moment when it comes, which a long
# download outlasts and a short one does not.
DEAF = 64
RATE = 16_000_000  # bytes a second, a limit, so that the processor is not what is measured
SIZE = 30_000_000
LONG_SIZE = 8 * SIZE
KEPT = 0.8  # of the throughput
IDLE_SECONDS = 15.0  # in which who does nothing is cut off
SHORT_CONNECTS = 500
LONG_CONNECTS = 10_000
SETTLED_SECONDS = 20.0  # above every deadline of a node for strangers
AT_ONCE = 32
Record = Callable[[str, object], None]

KINDS: dict[Besieger, int] = {
    idle: CROWD,
    trickling: CROWD,
    useless: CROWD // 5,
    deaf: DEAF,
}
STRANGERS: dict[Besieger, int] = {idle: CROWD // 2, trickling: CROWD // 2, useless: CROWD // 25}


@pytest.fixture
def limited(mesh: Mesh, request: pytest.FixtureRequest) -> Iterator[Target]:
    """A node whose uplink is the narrowest place."""
    size = LONG_SIZE if request.node.get_closest_marker("slow") else SIZE
    with Target.serving(mesh, size, "--max-upload", RATE) as running:
        yield running


def rate(target: Target, name: str) -> float:
    """Bytes a second of one honest download."""
    user = target.mesh.start_get(name, target.link, peers=[target.node.address])
    complete = finished(user, timeout=120)
    return float(complete["size"]) / float(complete["seconds"])


def test_crowd_leaves_honest_peers_their_throughput(limited: Target) -> None:
    alone = rate(limited, "alone")
    with besieged(limited.address, limited.file_id, STRANGERS) as siege:
        block_until(lambda: siege.come > CROWD // 4)
        besieged_rate = rate(limited, "besieged")
    assert besieged_rate >= KEPT * alone, f"{besieged_rate / alone:.0%} of the throughput"


@pytest.mark.slow
@pytest.mark.parametrize(
    "besieger",
    [idle, trickling, useless, deaf],
    ids=[kind.__name__ for kind in KINDS],
)
def test_crowd_of_one_kind_leaves_honest_peers_their_throughput(
    limited: Target, besieger: Besieger, record_property: Record
) -> None:
    alone = rate(limited, "alone")
    count = KINDS[besieger]
    with besieged(limited.address, limited.file_id, {besieger: count}) as siege:
        block_until(lambda: siege.come >= min(count, 64))
        besieged_rate = rate(limited, "besieged")
    record_property("row", 9)
    record_property("cases", count)
    kept = besieged_rate / alone
    record_property("result", f"{besieger.__name__}: {kept:.0%} of the honest throughput")
    assert kept >= KEPT, f"{kept:.0%} of the throughput"


@pytest.mark.slow
@pytest.mark.parametrize("besieger", [idle, trickling, useless], ids=lambda one: one.__name__)
def test_who_does_nothing_is_cut_off_in_time(
    target: Target, besieger: Besieger, record_property: Record
) -> None:
    with besieged(target.address, target.file_id, {besieger: CROWD}, patient=True) as siege:
        block_until(lambda: len(siege.lasted) == CROWD, timeout=2 * IDLE_SECONDS)
    assert max(siege.lasted) <= IDLE_SECONDS
    target.is_well()
    record_property("row", 9)
    record_property("cases", CROWD)
    record_property("result", f"{besieger.__name__}: cut off within {max(siege.lasted):.1f} s")


# --- nothing is left -------------------------------------------------------------------


async def come_and_go(address: Address, how: str) -> None:
    """One connection that ends at some point of its handshake, or after it."""
    with suppress(FuryMeshError, OSError, trio.TooSlowError):
        if how == "complete":
            async with wire(address, new_endpoint()) as link:
                await link.answers()
            return
        with await connect(address) as sock:
            if how == "half":
                sock.send(b"\0\x20" + bytes(16))
            if how == "reset":
                sock.send(b"\0\x20" + bytes(32))
                reset(sock)


async def connects(address: Address, count: int) -> None:
    rng = Random(SEED)
    left = iter(rng.choices(("complete", "half", "silent", "reset"), k=count))

    async def work() -> None:
        for how in left:
            await come_and_go(address, how)

    async with trio.open_nursery() as nursery:
        for _ in range(AT_ONCE):
            nursery.start_soon(work)


def leave_nothing(target: Target, count: int) -> None:
    target.is_well()  # whatever is opened once and kept is open now
    before = descriptors(target.pid)
    trio.run(connects, target.address, count)
    block_until(lambda: descriptors(target.pid) <= before, timeout=SETTLED_SECONDS)
    target.is_well()


def test_connections_of_all_kinds_leave_nothing_open(target: Target) -> None:
    leave_nothing(target, SHORT_CONNECTS)


@pytest.mark.slow
def test_ten_thousand_connections_leave_nothing_open(
    target: Target, record_property: Record
) -> None:
    leave_nothing(target, LONG_CONNECTS)
    record_property("row", 15)
    record_property("seed", SEED)
    record_property("cases", LONG_CONNECTS)
    record_property("result", "descriptors back to the baseline")


async def test_connections_of_all_kinds_leave_no_task(tmp_path: Path) -> None:
    async with lab(tmp_path, "one") as (one,):
        await trio.testing.wait_all_tasks_blocked()
        before = current_statistics().tasks_living
        await connects(one.address, SHORT_CONNECTS // 2)
        await until(lambda: not one.swarm.links)
        await until(lambda: current_statistics().tasks_living == before)
