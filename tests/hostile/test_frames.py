"""Frames that no honest peer sends, in every state of a link: only that link ends."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pytest
import trio

from furymesh.core.errors import FuryMeshError
from furymesh.core.ids import FileId
from furymesh.core.link import Address
from furymesh.wire import messages as m
from tests.e2e.mesh import Mesh, write_blob
from tests.hostile.attacker import ANSWER_SECONDS, Wire, new_endpoint, wire, witness
from tests.hostile.conftest import CHUNK, Target
from tests.hostile.frames import KINDS, hostile

SEED = 7
SHORT_CASES = 2  # per message type and state
LONG_CASES = 1000
WORKERS = 8
SILENCE_SECONDS = 0.05  # chunk bytes are due: neither an answer nor an end will come
UNFINISHED = 24 * 1024 * 1024  # bytes of a download that no test lives to see the end of


@dataclass(frozen=True, slots=True)
class Scene:
    """The node under attack: it has one share, and is in the middle of fetching another."""

    address: Address
    complete: FileId
    unfinished: FileId


Prepare = Callable[[Wire, Scene], Awaitable[int]]


async def _nothing(link: Wire, scene: Scene) -> int:
    return 1


async def _refused(link: Wire, scene: Scene) -> int:
    join = link.link.session.join(scene.complete)
    await link.say(m.Join(join.share, join.tag, bytes(32)))
    await link.await_message(m.Refuse)
    return join.share


async def _live(link: Wire, scene: Scene) -> int:
    return await link.join(scene.complete)


async def _live_with_a_downloader(link: Wire, scene: Scene) -> int:
    return await link.join(scene.unfinished)


async def _asking(link: Wire, scene: Scene) -> int:
    """Live with a downloader that was told of every chunk, and asks for some."""
    number = await link.join(scene.unfinished)
    await link.say(m.Bitmap(number, 0, b"", True))
    return number


async def _left(link: Wire, scene: Scene) -> int:
    number = await link.join(scene.complete)
    await link.say(m.Leave(number, m.Reason.DONE))
    await link.await_message(m.Leave)
    return number


async def _gone(link: Wire, scene: Scene) -> int:
    await link.say(m.Goodbye(m.Reason.DONE, ""))
    return 1


STATES: dict[str, Prepare] = {
    "before hello": _nothing,
    "open": _nothing,
    "refused": _refused,
    "live": _live,
    "downloader": _live_with_a_downloader,
    "asking": _asking,
    "left": _left,
    "goodbye": _gone,
}


@pytest.fixture
def scene(mesh: Mesh, target: Target) -> Scene:
    other = write_blob(mesh.root / "other.bin", UNFINISHED, seed=2)
    shared = mesh.share("slow", other, chunk_size=CHUNK)
    slow = mesh.node("slow", "--max-upload", "30k")
    link = shared.link.text
    handed = mesh.run("target", "get", link, "--detach", "--peer", slow.address)
    assert handed.code == 0, handed.err
    part = mesh.files("target")
    trio.run(_until_fetching, part)
    return Scene(target.address, target.file_id, shared.file_id)


async def _until_fetching(place: Path) -> None:
    with trio.fail_after(ANSWER_SECONDS):
        while not list(place.glob("*.part")):
            await trio.sleep(0.02)


@asynccontextmanager
async def in_state(name: str, scene: Scene) -> AsyncIterator[tuple[Wire, int]]:
    """A new link of a new node in one of STATES, and our number for the share, if any."""
    async with wire(scene.address, new_endpoint(), hello=name != "before hello") as link:
        yield link, await STATES[name](link, scene)


async def one_case(scene: Scene, state: str, kind: str, seed: int) -> str:
    """Send one frame; how the link took it."""
    rng = Random(f"{SEED} {state} {kind} {seed}")
    async with in_state(state, scene) as (link, number):
        try:
            await link.send(hostile(rng, kind, number))
            if kind == "data":
                with trio.move_on_after(SILENCE_SECONDS):
                    while True:
                        await link.hear()
                return "waits for chunk bytes"
            return "lives" if await link.answers() else "closed"
        except FuryMeshError:
            return "closed"


async def attack(scene: Scene, cases: list[tuple[str, str, int]]) -> dict[str, int]:
    """Run cases, WORKERS at a time; how many links took it in which way."""
    outcomes: dict[str, int] = {}
    left = iter(cases)

    async def work() -> None:
        for state, kind, seed in left:
            try:
                outcome = await one_case(scene, state, kind, seed)
            except (trio.TooSlowError, FuryMeshError, AssertionError) as error:
                raise AssertionError(f"{state=} {kind=} {seed=} (SEED {SEED}): {error!r}") from None
            outcomes[outcome] = outcomes.get(outcome, 0) + 1

    async with witness(scene.address, scene.complete), trio.open_nursery() as nursery:
        for _ in range(WORKERS):
            nursery.start_soon(work)
    return outcomes


def every_case(count: int) -> list[tuple[str, str, int]]:
    return [(state, kind, seed) for state in STATES for kind in KINDS for seed in range(count)]


def test_hostile_frames_end_one_link_at_most(scene: Scene, target: Target) -> None:
    outcomes = trio.run(attack, scene, every_case(SHORT_CASES))
    assert outcomes["closed"] > outcomes["lives"] > 0, outcomes
    target.is_well()


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_thousand_hostile_frames_per_type_and_state(
    scene: Scene, target: Target, record_property: Callable[[str, object], None]
) -> None:
    cases = every_case(LONG_CASES)
    outcomes = trio.run(attack, scene, cases)
    target.is_well()
    record_property("row", 7)
    record_property("seed", SEED)
    record_property("cases", len(cases))
    closed = outcomes.get("closed", 0)
    record_property("result", f"node up throughout, only the sender's link closed ({closed} did)")
