"""Which chunks are asked of a mirror: each byte is to leave it about once."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from furymesh.core.bitfield import mask_of
from furymesh.core.mirror_picker import LEFT_TO_OWNER, PATIENCE
from furymesh.core.peer_state import MIRROR_REQUESTS
from furymesh.core.scheduler import UNPROVEN_CHUNKS, Action, Cancel, Request, Scheduler
from tests.unit.core.test_scheduler import CHUNK, asked, bring, cancelled, join, make

COUNT = 40
ALL = (1 << COUNT) - 1
MIRROR = 9
ME, BEFORE, AFTER = b"m", b"a", b"z"  # keys; the others' parts lie before and after ours


def fetching(seed: int = 0, have: int = 0) -> Scheduler:
    """A download of 40 chunks that a mirror is used for."""
    geometry = make(COUNT).ledger.geometry
    scheduler = Scheduler(geometry, Random(seed), have=have, me=ME)
    scheduler.verifiable = ALL
    return scheduler


def use_mirror(scheduler: Scheduler, now: float = 0.0) -> list[Action]:
    scheduler.peer_joined(now, MIRROR, mirror=True)
    return scheduler.peer_has(now, MIRROR, ALL)


def meet(scheduler: Scheduler, peer: int, key: bytes, mask: int, now: float = 0.0) -> list[Action]:
    """Another end of the swarm, which has these chunks."""
    scheduler.peer_joined(now, peer, key)
    return scheduler.peer_has(now, peer, mask)


def drain(scheduler: Scheduler, actions: list[Action], now: float, seconds: float) -> list[int]:
    """Bring at once what the mirror is asked for, and nothing else, for so long; in order."""
    order: list[int] = []
    todo = asked(actions, MIRROR)
    end = now + seconds
    while now < end:
        now += 0.1
        while todo:
            chunk = todo.pop(0)
            order.append(chunk)
            todo += asked(bring(scheduler, now, MIRROR, chunk), MIRROR)
        todo += asked(scheduler.tick(now), MIRROR)
    return order


def test_alone_a_mirror_brings_everything_once_with_little_in_flight() -> None:
    scheduler = fetching()
    actions = use_mirror(scheduler)
    assert 1 <= len(asked(actions, MIRROR)) <= UNPROVEN_CHUNKS
    assert sorted(drain(scheduler, actions, 0.0, 1.0)) == list(range(COUNT))
    assert scheduler.ledger.done


def test_ends_that_know_each_other_take_different_parts() -> None:
    taken = Counter[int]()
    for key in (BEFORE, ME, AFTER):
        scheduler = Scheduler(make(COUNT).ledger.geometry, Random(1), me=key)
        scheduler.verifiable = ALL
        for number, other in enumerate({BEFORE, ME, AFTER} - {key}):
            scheduler.peer_joined(0.0, number, other)
            scheduler.peer_has(0.0, number, 1 << COUNT - 1 if other == AFTER else 1)
        taken.update(drain(scheduler, use_mirror(scheduler), 0.0, 0.5)[: COUNT // 3 - 1])
    assert len(taken) == 3 * (COUNT // 3 - 1)


def test_what_a_peer_has_is_not_asked_of_the_mirror() -> None:
    scheduler = fetching()
    meet(scheduler, 1, BEFORE, mask_of(range(10, 20)))
    order = drain(scheduler, use_mirror(scheduler), 0.0, PATIENCE / 2)
    assert not set(order) & set(range(10, 20))


def test_the_part_of_which_most_is_left_is_helped_with_but_its_end_is_left_to_its_owner() -> None:
    scheduler = fetching()
    meet(scheduler, 1, BEFORE, 0b11)  # has brought 2 of its 13
    meet(scheduler, 2, AFTER, mask_of(range(30, COUNT)))  # nearly done with its part
    order = drain(scheduler, use_mirror(scheduler), 0.0, PATIENCE / 2)
    assert set(order[:13]) == set(range(13, 26)), "its own part first"
    assert set(order[13:]) < set(range(2, 13)), "then the most neglected"
    assert len(order[13:]) == 11 - LEFT_TO_OWNER


def test_what_its_owner_does_not_bring_is_fetched_after_a_while() -> None:
    scheduler = fetching()
    meet(scheduler, 1, BEFORE, 0b11)
    order = drain(scheduler, use_mirror(scheduler), 0.0, PATIENCE + 1.0)
    assert sorted(order[:-2]) == list(range(2, COUNT))
    assert sorted(order[-2:]) == [0, 1], "what the peer itself is asked for does not come either"


@pytest.mark.parametrize("mask", [0, ALL], ids=["nothing", "everything"])
def test_who_has_nothing_or_all_is_left_no_part(mask: int) -> None:
    scheduler = fetching()
    scheduler.peer_joined(0.0, 1, BEFORE)
    if mask:
        scheduler.verifiable = 0  # nobody is asked yet
        scheduler.peer_has(0.0, 1, mask)
        scheduler.peer_lost(0.0, 1, mask)
        scheduler.verifiable = ALL
    assert len(drain(scheduler, use_mirror(scheduler), 0.0, 0.5)) == COUNT


def seed_and_mirror(rate: float, seconds: float) -> tuple[Scheduler, list[int]]:
    """A seed that brings `rate` bytes a second, a mirror that is ten times as fast as 1 MB/s.

    Returns what the mirror was asked for within `seconds`.
    """
    scheduler = fetching(seed=3)
    owed = asked(meet(scheduler, 1, BEFORE, ALL), 1)
    mirrored = asked(use_mirror(scheduler), MIRROR)
    order: list[int] = []
    now = since_seed = since_mirror = 0.0
    while now < seconds and not scheduler.ledger.done:
        now += 0.05
        actions = scheduler.tick(now)
        if owed and (now - since_seed) * rate >= CHUNK:
            since_seed = now
            actions += bring(scheduler, now, 1, owed.pop(0))
        if mirrored and (now - since_mirror) * 10e6 >= CHUNK:
            since_mirror = now
            order.append(mirrored[0])
            actions += bring(scheduler, now, MIRROR, mirrored.pop(0))
        for action in actions:
            mine = owed if action.peer == 1 else mirrored
            if isinstance(action, Request):
                mine += action.chunks
            elif isinstance(action, Cancel):
                mine[:] = [chunk for chunk in mine if chunk not in action.chunks]
    return scheduler, order


def test_beside_a_seed_that_is_quick_a_mirror_is_spared() -> None:
    scheduler, order = seed_and_mirror(rate=6e6, seconds=20.0)
    assert scheduler.ledger.done
    assert not order


def test_beside_a_seed_that_is_slow_a_mirror_brings_most() -> None:
    scheduler, order = seed_and_mirror(rate=0.5e6, seconds=10.0)
    assert scheduler.ledger.done
    assert len(order) > COUNT / 2


def test_a_mirror_that_is_slower_than_the_peers_is_tried_and_left_alone() -> None:
    scheduler = fetching()
    meet(scheduler, 1, BEFORE, ALL)
    use_mirror(scheduler)
    seed, mirror = scheduler._peers[1], scheduler._peers[MIRROR]
    seed.pace.rate, mirror.pace.rate = 2e6, 1e6
    scheduler.heard(PATIENCE, 1)
    assert not asked(scheduler.tick(PATIENCE + 0.1), MIRROR)
    mirror.pace.rate = 3e6
    assert asked(scheduler.tick(PATIENCE + 0.2), MIRROR)


def test_a_proven_mirror_owes_no_more_chunks_than_it_has_connections() -> None:
    scheduler = fetching()
    chunk = asked(use_mirror(scheduler), MIRROR)[0]
    mirror = scheduler._peers[MIRROR]
    mirror.proven, mirror.pace.rate = True, 1e12
    scheduler.heard(0.1, MIRROR, 0.5)
    assert len(mirror.owed) == MIRROR_REQUESTS
    assert chunk in mirror.owed


@pytest.mark.parametrize(("now", "duplicated"), [(PATIENCE / 2, False), (PATIENCE + 1.0, True)])
def test_the_end_of_a_download_waits_a_little_for_a_late_peer(now: float, duplicated: bool) -> None:
    scheduler = fetching(have=ALL & ~1)
    assert asked(meet(scheduler, 1, BEFORE, 1), 1) == [0]
    assert not asked(use_mirror(scheduler), MIRROR)
    scheduler.heard(now, 1)  # it lives
    assert bool(asked(scheduler.tick(now), MIRROR)) is duplicated


def test_a_chunk_taken_back_from_a_mirror_can_be_asked_for_at_once() -> None:
    scheduler = fetching(have=ALL & ~1)
    assert asked(use_mirror(scheduler), MIRROR) == [0]
    assert cancelled(scheduler.pause(), MIRROR) == [0]
    assert asked(scheduler.proceed(0.1), MIRROR) == [0]
    assert asked(join(scheduler, 1, 1, 0.2), 1) == []
    scheduler.check()


def test_a_mirror_that_goes_and_comes_back_leaves_nothing_behind() -> None:
    scheduler = fetching()
    meet(scheduler, 1, BEFORE, 0b11)
    use_mirror(scheduler)
    scheduler.peer_left(0.1, MIRROR)
    scheduler.check()
    assert [scheduler.availability(chunk) for chunk in range(3)] == [1, 1, 0]
    assert asked(use_mirror(scheduler, 0.2), MIRROR)
