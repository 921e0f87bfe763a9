"""How one peer is judged; what follows from it is in test_scheduler.py."""

from __future__ import annotations

import pytest

from furymesh.core.pacing import Pace
from furymesh.core.peer_state import STALL_SECONDS, Owed, PeerState

HELD_AT = 1.0
FREE_AT = 60.0


@pytest.fixture
def peer() -> PeerState:
    """It was asked for chunk 3 at once and brought a part of it before HELD_AT."""
    peer = PeerState(1, Pace(0.0), owed={3: Owed(0.0, 1.0)}, owed_bytes=1000)
    peer.delivered(0.5, 3, 100)
    return peer


def test_the_time_in_which_we_have_no_room_counts_from_the_first_word_of_it(
    peer: PeerState,
) -> None:
    peer.hold(HELD_AT)
    peer.hold(FREE_AT - 1)  # it would send more, and there still is no room
    peer.go_on(FREE_AT)
    assert peer.owed[3].began == 0.5 + (FREE_AT - HELD_AT)
    assert peer.owed[3].untouched(FREE_AT) == 0.0
    assert not peer.silent(FREE_AT + STALL_SECONDS)


def test_room_that_was_never_missing_excuses_nothing(peer: PeerState) -> None:
    peer.go_on(FREE_AT)
    assert peer.owed[3].began == 0.5
    assert peer.owed[3].untouched(FREE_AT) == FREE_AT - 0.5
    assert peer.silent(FREE_AT)


def test_a_wait_is_taken_out_once(peer: PeerState) -> None:
    peer.hold(HELD_AT)
    peer.go_on(FREE_AT)
    began = peer.owed[3].began
    peer.go_on(FREE_AT + 10.0)
    assert peer.owed[3].began == began
    assert peer.silent(FREE_AT + 10.0)
