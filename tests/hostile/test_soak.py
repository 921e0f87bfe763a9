"""Hours of comings and goings: a node's memory and descriptors stay flat."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from random import Random
from statistics import linear_regression
from typing import Any

import pytest
import trio

from furymesh.core.errors import FuryMeshError
from furymesh.wire import messages as m
from tests.beside import beside
from tests.e2e.mesh import Mesh, RunningNode, write_blob
from tests.hostile.attacker import connect, reset, wire
from tests.hostile.conftest import Target
from tests.proc import descriptors, memory
from tests.reliability import Record
from tests.waiting import block_until, looks

SEED = 23
SECONDS = float(os.environ.get("SOAK_SECONDS", "2400"))  # a day of them before a release
SHORT_ROUNDS = 3
GUESTS_A_SECOND = 10.0
ROUND_SECONDS = 3.0  # from one round to the next
WARM = 1 / 3  # of the rounds, in which tables and pools still fill
SLOPE = 1024 * 1024  # bytes an hour
GROWTH = 16 * 1024 * 1024  # bytes, in the first few rounds
PASSING = 8  # descriptors that links of the moment may hold
SIZE = 2 * 1024 * 1024  # of what is shared, fetched and forgotten in each round


async def guest(target: Target, how: str) -> None:
    """Somebody who comes, wants something or nothing, and leaves."""
    if how in ("half", "reset"):
        sock = await connect(target.address)
        sock.send(b"\0\x20" + bytes(16))
        reset(sock) if how == "reset" else sock.close()
        return
    async with wire(target.address) as link:
        if how == "link":
            await link.answers()
            return
        number = await link.join(target.file_id)
        if how == "asker":
            await link.say(m.Request(number, (0, 1)))
            await link.await_message(m.Data)


class Churn:
    """A node with guests of all kinds, and a user who shares, fetches and forgets."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.mesh: Mesh = target.mesh
        self.other: RunningNode = self.mesh.node("other")
        self.rounds = 0
        self.memory: list[tuple[float, int]] = []  # seconds, bytes
        self.descriptors: list[int] = []

    async def guests(self, task_status: trio.TaskStatus[None]) -> None:
        rng = Random(SEED)
        task_status.started()
        while True:
            await trio.sleep(rng.expovariate(GUESTS_A_SECOND))
            with suppress(FuryMeshError, OSError, trio.TooSlowError):
                how = rng.choice(("member", "asker", "link", "half", "reset"))
                await guest(self.target, how)

    def round(self, seconds: float) -> None:
        home, number = self.target.node.home, self.rounds
        self.rounds += 1
        self.say(home, "share", write_blob(self.mesh.root / "passing.bin", SIZE, 2 * number))
        wanted = write_blob(self.mesh.root / "wanted.bin", SIZE, 2 * number + 1)
        (shared,) = self.say(self.other.home, "share", wanted)
        fetched = self.mesh.files(home) / f"fetched-{number}.bin"
        peer = ("--peer", self.other.address)
        self.say(home, "get", shared["link"], "--detach", "--output", fetched, *peer)
        block_until(fetched.exists, timeout=30)
        for place in (home, self.other.home):
            for share in self.say(place, "list"):
                if share["file_id"] != self.target.file_id.hex():
                    self.say(place, "unshare", share["file_id"])
        fetched.unlink()
        # What it has mapped of files comes and goes.
        self.memory.append((seconds, memory(self.target.pid, "RssAnon")))
        self.descriptors.append(descriptors(self.target.pid))

    def say(self, home: Path, command: str, *arguments: object) -> list[Any]:
        flags = () if command == "unshare" else ("--json",)
        done = self.mesh.call(home, command, *arguments, *flags)
        assert done.code == 0, (command, done.err)
        return [json.loads(line) for line in done.out.splitlines()] if flags else []


def test_guests_and_shares_that_pass_leave_nothing(target: Target) -> None:
    churn = Churn(target)
    with beside(churn.guests):
        for number in range(SHORT_ROUNDS):
            churn.round(number)
    (_, first), *_, (_, last) = churn.memory
    assert last - first <= GROWTH
    assert churn.descriptors[-1] <= churn.descriptors[0] + PASSING
    target.is_well()


@pytest.mark.slow
@pytest.mark.promise(23)
@pytest.mark.timeout(SECONDS + 600)
def test_memory_and_descriptors_stay_flat_for_long(target: Target, record_property: Record) -> None:
    churn = Churn(target)
    with beside(churn.guests):
        for seconds in looks(ROUND_SECONDS, SECONDS):
            churn.round(seconds)
    warm = int(WARM * churn.rounds)
    times, sizes = zip(*churn.memory[warm:], strict=True)
    slope = linear_regression(times, sizes).slope * 3600
    first, last = churn.descriptors[warm:][:20], churn.descriptors[-20:]
    record_property("seed", SEED)
    record_property("cases", churn.rounds)
    record_property(
        "result", f"{slope / 1e6:+.1f} MB an hour in {SECONDS / 60:.0f} minutes, {max(last)} open"
    )
    assert max(last) <= max(first) + PASSING
    assert slope < SLOPE, f"{slope / SLOPE:.1f} MiB an hour more"
    target.is_well()
