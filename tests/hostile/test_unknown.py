"""Who lacks a file id learns nothing of it: by tag, guess or replay, nor by the time taken."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from random import Random

import pytest
import trio

from furymesh.core.ids import discovery_tag
from furymesh.core.link import Address
from furymesh.net.secure_link import SecureLink
from furymesh.wire import messages as m
from furymesh.wire.codec import encode
from tests.hostile.attacker import Wire, listening, new_endpoint, wire
from tests.hostile.conftest import Target
from tests.waiting import until

SEED = 21
JOINS_PER_LINK = 200  # below the number that ends a link
SHORT_LINKS = 5
LONG_LINKS = 60
# Seconds by which the answers may differ at the median. When a proof is computed only
# where there is something to prove, they differ by three microseconds.
SAME_TIME = 1e-6
Record = Callable[[str, object], None]
# A question is what a stranger sends as the tag and the proof of a Join.
Question = tuple[bytes, bytes]


@asynccontextmanager
async def eavesdropper() -> AsyncIterator[tuple[Address, list[m.Join]]]:
    """A peer that knows nothing, and what the others ask it for."""
    heard: list[m.Join] = []

    async def take(link: SecureLink) -> None:
        message = await Wire(link, link._stream).hear()  # type: ignore[arg-type]
        assert isinstance(message, m.Join)
        heard.append(message)
        link.close()

    async with listening(new_endpoint(), take) as address:
        yield address, heard


async def overheard(target: Target) -> m.Join:
    """A Join that somebody entitled sent to a peer which is not."""
    async with eavesdropper() as (address, heard), wire(address) as honest:
        await honest.say(honest.link.session.join(target.file_id))
        await until(lambda: heard)
    return heard[0]


async def answers(link: Wire, asked: list[Question]) -> list[float]:
    """After how many seconds each question is answered; the answer is always the same."""
    out = []
    for number, (tag, proof) in enumerate(asked, start=1):
        begun = time.perf_counter()
        await link.say(m.Join(number, tag, proof))
        raw = await link.record()
        took = time.perf_counter() - begun
        assert raw == encode(m.Refuse(number, m.Reason.NOT_FOUND)), raw
        out.append(took)
    return out


def questions(target: Target, replayed: m.Join, rng: Random) -> dict[str, Callable[[], Question]]:
    """The ways to ask; the last is for content that exists nowhere."""
    tag = discovery_tag(target.file_id)
    return {
        "tag": lambda: (tag, rng.randbytes(32)),
        "replay": lambda: (replayed.tag, replayed.proof),
        "guess": lambda: (tag, bytes(32)),
        "unknown": lambda: (rng.randbytes(32), rng.randbytes(32)),
    }


async def time_answers(target: Target, links: int) -> dict[str, list[float]]:
    """The times of all answers by the way of asking, asked in random turns."""
    rng = Random(SEED)
    ways = questions(target, await overheard(target), rng)
    times: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(links):
        turns = rng.choices(list(ways), k=JOINS_PER_LINK)
        async with wire(target.address) as link:
            said = await answers(link, [ways[way]() for way in turns])
        for way, took in zip(turns, said, strict=True):
            times[way].append(took)
    return times


def median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]


def apart(times: dict[str, list[float]]) -> dict[str, float]:
    """By how much the typical answer differs from that for unknown content, in seconds."""
    unknown = median(times["unknown"])
    return {way: abs(median(taken) - unknown) for way, taken in times.items()}


def test_stranger_gets_the_answer_for_unknown_content(target: Target) -> None:
    times = trio.run(time_answers, target, SHORT_LINKS)
    assert all(len(taken) > JOINS_PER_LINK for taken in times.values())


def test_who_joined_by_guess_can_say_nothing_about_the_share(target: Target) -> None:
    """What follows a refused Join is skipped, in the same way for all shares."""

    async def skipped(tag: bytes) -> list[m.Message]:
        async with wire(target.address) as link:
            await link.say(m.Join(1, tag, bytes(32)))
            first = await link.hear()
            for message in (
                m.GetManifest(1, True, (0,)),
                m.Request(1, (0,)),
                m.Bitmap(1, 0, b"", True),
            ):
                await link.say(message)
            await link.say(m.Ping(5))
            return [first, await link.hear()]

    known = trio.run(skipped, discovery_tag(target.file_id))
    assert known == trio.run(skipped, bytes(32))
    assert known == [m.Refuse(1, m.Reason.NOT_FOUND), m.Pong(5)]


@pytest.mark.slow
def test_answers_take_the_same_time(target: Target, record_property: Record) -> None:
    times = trio.run(time_answers, target, LONG_LINKS)
    differences = apart(times)
    assert max(differences.values()) < SAME_TIME, (SEED, differences)
    record_property("row", 21)
    record_property("seed", SEED)
    record_property("cases", sum(map(len, times.values())))
    most = max(differences.values()) * 1e6
    record_property("result", f"same answer, and medians within {most:.1f} µs")
