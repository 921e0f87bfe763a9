from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio

from furymesh.core.errors import DiskFullError, InternalError, ProtocolError
from furymesh.core.layout import Layout
from furymesh.net.buffers import Slabs
from furymesh.storage.part import PartStore
from furymesh.swarm.arrivals import Arrivals, Outcome, Verdict
from furymesh.swarm.member import Member
from furymesh.wire import messages as m
from tests.unit.swarm.lab import CHUNK, blob, manifest_of
from tests.waiting import until

DATA = blob(6)
MANIFEST = manifest_of(DATA)
GEOMETRY = MANIFEST.header.geometry


class Records:
    """Stands in for resume data."""

    def __init__(self) -> None:
        self.added: list[int] = []

    def add(self, chunk: int) -> None:
        self.added.append(chunk)


class Place:
    """Arrivals over a real part."""

    def __init__(self, tmp_path: Path) -> None:
        layout = Layout.of_file(len(DATA))
        self.part = PartStore.open(tmp_path / "a.part", layout, GEOMETRY, None, create=True)
        self.records = Records()
        self.outcomes: list[Outcome] = []
        records: Any = self.records
        self.arrivals = Arrivals(MANIFEST, self.part, records, Slabs(), self.outcomes.extend)

    async def settle(self, count: int) -> list[Outcome]:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.arrivals.run)
            await until(lambda: len(self.outcomes) >= count)
            nursery.cancel_scope.cancel()
        return self.outcomes


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


class Link:
    """Stands in for a link."""

    diverted = 0

    def divert(self) -> None:
        self.diverted += 1


def member(number: int = 1, link: Link | None = None) -> Member:
    stand_in: Any = link or Link()
    return Member(stand_in, number)


def bring(place: Place, who: Member, chunk: int, data: bytes = DATA) -> None:
    """A whole chunk arrives in two pieces."""
    length = GEOMETRY.length(chunk)
    for start, end in ((0, length // 2), (length // 2, length)):
        message = m.Data(1, chunk, start, end - start)
        view = place.arrivals.sink(who, message)
        assert view is not None
        view[:] = data[chunk * CHUNK + start : chunk * CHUNK + end]
        assert place.arrivals.filled(who, message)
    place.arrivals.complete(who)


async def test_good_chunks_are_written_and_then_recorded(place: Place) -> None:
    for chunk in (5, 0, 3):
        bring(place, member(), chunk)
    outcomes = await place.settle(3)
    assert {outcome.verdict for outcome in outcomes} == {Verdict.GOOD}
    assert sorted(place.records.added) == [0, 3, 5]
    for chunk in (0, 3, 5):
        view = memoryview(bytearray(CHUNK))
        size = place.part.read_chunk_into(chunk, view)
        assert MANIFEST.matches(chunk, view[:size])


async def test_bad_chunk_is_neither_written_nor_recorded(place: Place) -> None:
    bring(place, member(), 2, bytes(len(DATA)))
    (outcome,) = await place.settle(1)
    assert outcome.verdict is Verdict.BAD
    assert place.records.added == []


async def test_failure_of_the_disk_is_not_the_peers(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(chunk: int, view: memoryview) -> None:
        raise DiskFullError("no room")

    monkeypatch.setattr(place.part, "write_chunk", full)
    bring(place, member(), 2)
    (outcome,) = await place.settle(1)
    assert outcome.verdict is Verdict.FAILED
    assert isinstance(outcome.error, DiskFullError)
    assert place.records.added == []


def test_pieces_must_continue_their_chunk(place: Place) -> None:
    who = member()
    with pytest.raises(ProtocolError, match="beginning"):
        place.arrivals.sink(who, m.Data(1, 0, 100, 100))
    first = m.Data(1, 0, 0, 100)
    assert place.arrivals.sink(who, first) is not None
    place.arrivals.filled(who, first)
    for wrong in (m.Data(1, 1, 100, 9), m.Data(1, 0, 0, 9), m.Data(1, 0, 100, CHUNK)):
        with pytest.raises(ProtocolError, match="continue"):
            place.arrivals.sink(who, wrong)


def test_first_piece_longer_than_the_chunk_is_refused(place: Place) -> None:
    last = GEOMETRY.chunk_count - 1
    with pytest.raises(ProtocolError):
        place.arrivals.sink(member(), m.Data(1, last, 0, CHUNK))


@pytest.mark.parametrize("way", ["cancelled", "gone"])
def test_link_in_the_middle_of_a_piece_is_diverted_before_its_slab_is_lent_again(
    place: Place, way: str
) -> None:
    link = Link()
    who = member(link=link)
    piece = m.Data(1, 0, 0, 100)
    place.arrivals.sink(who, piece)
    assert link.diverted == 0
    assert (place.arrivals.cancel(who, 0) if way == "cancelled" else place.arrivals.left(who)) == 0
    assert link.diverted == 1
    assert not place.arrivals.filled(who, piece)


def test_link_that_brings_something_else_is_left_alone(place: Place) -> None:
    link = Link()
    who = member(link=link)
    piece = m.Data(1, 0, 0, 100)
    place.arrivals.sink(who, piece)
    place.arrivals.filled(who, piece)
    assert place.arrivals.cancel(who, 1) == 0
    assert place.arrivals.arriving(who) == 0
    assert place.arrivals.cancel(who, 0) == 100
    assert link.diverted == 0


def test_leaving_gives_everything_back(place: Place) -> None:
    who = member()
    for chunk in range(100):
        piece = m.Data(1, chunk % 5, 0, 100)
        assert place.arrivals.sink(who, piece) is not None, "a slab was lost"
        place.arrivals.filled(who, piece)
        assert place.arrivals.left(who) == 100
    assert place.arrivals.left(who) == 0


async def test_bug_in_settling_ends_the_download_and_not_the_process(tmp_path: Path) -> None:
    place = Place(tmp_path)

    def fail(outcomes: list[Outcome]) -> None:
        raise KeyError("settled twice")

    records: Any = place.records
    place.arrivals = Arrivals(MANIFEST, place.part, records, Slabs(), fail)
    bring(place, member(), 0)
    with trio.fail_after(5), pytest.raises(InternalError, match="settled twice"):
        await place.arrivals.run()
