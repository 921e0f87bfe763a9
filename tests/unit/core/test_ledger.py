"""The four states of a chunk: every legal move, and every other one refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from furymesh.core.errors import IllegalStateError
from furymesh.core.geometry import Geometry
from furymesh.core.ledger import ChunkState, Ledger

KIB = 1024
GEOMETRY = Geometry(4 * 16 * KIB, 16 * KIB)
MOVES: dict[str, tuple[ChunkState, ChunkState]] = {
    "request": (ChunkState.MISSING, ChunkState.IN_FLIGHT),
    "release": (ChunkState.IN_FLIGHT, ChunkState.MISSING),
    "store": (ChunkState.IN_FLIGHT, ChunkState.HAVE),
    "lose": (ChunkState.HAVE, ChunkState.MISSING),
}


def ledger_in_every_state() -> dict[ChunkState, int]:
    return {state: chunk for chunk, state in enumerate(ChunkState)}


@pytest.fixture
def ledger() -> Ledger:
    """Chunk 0 is missing, 1 in flight, 2 here, 3 skipped: the order of ChunkState."""
    ledger = Ledger(GEOMETRY, have=0b0100, skipped=0b1000)
    ledger.request(1)
    return ledger


@pytest.mark.parametrize("move", MOVES)
@pytest.mark.parametrize("start", ChunkState)
def test_a_move_starts_where_it_must(ledger: Ledger, move: str, start: ChunkState) -> None:
    chunk = ledger_in_every_state()[start]
    assert ledger.state(chunk) is start
    legal, end = MOVES[move]
    act: Callable[[int], None] = getattr(ledger, move)
    if start is legal:
        act(chunk)
        assert ledger.state(chunk) is end
    else:
        with pytest.raises(IllegalStateError, match=f"chunk {chunk} is {start.name}"):
            act(chunk)
        assert ledger.state(chunk) is start


def test_masks_are_disjoint_and_complete(ledger: Ledger) -> None:
    assert (ledger.missing, ledger.in_flight, ledger.have) == (0b0001, 0b0010, 0b0100)
    assert not ledger.done
    ledger.store(1)
    ledger.request(0)
    ledger.store(0)
    assert ledger.done, "skipped chunks are not waited for"


@pytest.mark.parametrize(("have", "skipped"), [(0b11, 0b10), (0b10000, 0), (0, 0b10000)])
def test_impossible_beginnings(have: int, skipped: int) -> None:
    with pytest.raises(IllegalStateError):
        Ledger(GEOMETRY, have, skipped)


def test_nothing_to_fetch_is_done() -> None:
    assert Ledger(Geometry(0, 16 * KIB)).done
