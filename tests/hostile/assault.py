"""Hostile frames, one after the other, in every state that a link can be in."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from random import Random

import trio

from furymesh.core.errors import FuryMeshError, LinkClosedError
from furymesh.core.ids import FileId
from furymesh.core.link import Address
from furymesh.wire import messages as m
from tests.hostile.attacker import Wire, wire, witness
from tests.hostile.frames import KINDS, hostile

SEED = 7
WORKERS = 8
ATTEMPTS = 5  # to get into a state: a stranger may have to make way for another
SILENCE_SECONDS = 0.05  # chunk bytes are due: neither an answer nor an end will come


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


@asynccontextmanager
async def in_state(name: str, scene: Scene) -> AsyncIterator[tuple[Wire, int]]:
    """A new link of a new node in one of STATES, and our number for the share, if any."""
    async with AsyncExitStack() as stack:
        for attempt in range(ATTEMPTS):
            try:
                link = await stack.enter_async_context(
                    wire(scene.address, hello=name != "before hello")
                )
                number = await STATES[name](link, scene)
                break
            except LinkClosedError:
                if attempt == ATTEMPTS - 1:
                    raise
        yield link, number


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


async def attack(scene: Scene, cases: list[tuple[str, str, int]]) -> Counter[str]:
    """Run cases, WORKERS at a time; how many links took it in which way."""
    outcomes: Counter[str] = Counter()
    left = iter(cases)

    async def work() -> None:
        for state, kind, seed in left:
            try:
                outcome = await one_case(scene, state, kind, seed)
            except (trio.TooSlowError, FuryMeshError, AssertionError) as error:
                raise AssertionError(f"{state=} {kind=} {seed=} (SEED {SEED}): {error!r}") from None
            outcomes[outcome] += 1

    async with witness(scene.address, scene.complete), trio.open_nursery() as nursery:
        for _ in range(WORKERS):
            nursery.start_soon(work)
    return outcomes


def every_case(count: int) -> list[tuple[str, str, int]]:
    return [(state, kind, seed) for state in STATES for kind in KINDS for seed in range(count)]
