"""What is served next, and what is turned down."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest

from furymesh.core.errors import IllegalStateError
from furymesh.core.ids import FileId
from furymesh.core.slots import MAX_SLOTS
from furymesh.core.uploads import MAX_QUEUED, WEALTH_STEP, Job, Turned, Uploads

SHARE = FileId(bytes(32))
OTHER = FileId(bytes([1]) * 32)
ALL = 0b1111


def make(*peers: str, everything: int = ALL, have: int = ALL, slots: int = 2) -> Uploads:
    uploads = Uploads(Random(0), slots=slots)
    uploads.add_share(SHARE, everything, have)
    for peer in peers:
        uploads.peer_joined(SHARE, peer)
    return uploads


def turned_down(uploads: Uploads, peer: str, chunk: int) -> Turned:
    turned = uploads.request(0.0, SHARE, peer, chunk)
    assert turned is not None
    return turned


def test_a_share_that_is_added_again_keeps_the_requests_for_what_is_still_here() -> None:
    uploads = make("a")
    for chunk in (1, 2):
        assert uploads.request(0.0, SHARE, "a", chunk) is None
    uploads.add_share(SHARE, ALL, 0b0100)
    uploads.check()
    assert uploads.next_job() == Job("a", SHARE, 2)
    assert uploads.next_job() is None


def test_a_request_becomes_a_job_and_frees_its_slot() -> None:
    uploads = make("a")
    assert uploads.request(0.0, SHARE, "a", 2) is None
    assert uploads.queued == 1
    job = uploads.next_job()
    assert job == Job("a", SHARE, 2)
    assert (uploads.queued, uploads.active) == (0, 1)
    uploads.finished(job)
    assert uploads.active == 0
    assert uploads.next_job() is None


def test_slots_are_not_exceeded_and_spread_over_peers() -> None:
    uploads = make("a", "b")
    for chunk in (0, 1):
        uploads.request(0.0, SHARE, "a", chunk)
    uploads.request(1.0, SHARE, "b", 2)
    jobs = [uploads.next_job(), uploads.next_job()]
    assert {job.peer for job in jobs if job} == {"a", "b"}
    assert uploads.next_job() is None


def test_who_holds_least_is_served_first() -> None:
    everything = (1 << 64) - 1
    uploads = make("a", "b", everything=everything, have=everything, slots=1)
    uploads.peer_has(SHARE, "a", (1 << WEALTH_STEP) - 1 << 32)
    uploads.request(0.0, SHARE, "a", 0)
    uploads.request(1.0, SHARE, "b", 1)
    job = uploads.next_job()
    assert job is not None
    assert job.peer == "b"


def test_among_the_equally_poor_who_waits_longest_is_served_first() -> None:
    uploads = make("a", "b", slots=1)
    uploads.peer_has(SHARE, "a", 0b1000)
    uploads.request(0.0, SHARE, "a", 0)
    uploads.request(1.0, SHARE, "b", 1)
    job = uploads.next_job()
    assert job is not None
    assert job.peer == "a", "a chunk more or less is no difference"


def test_who_refuses_what_it_is_sent_is_passed_over_and_keeps_its_place() -> None:
    uploads = make("a", "b")
    uploads.request(0.0, SHARE, "a", 0)
    assert uploads.next_job(refusing={"a"}) is None
    uploads.request(1.0, SHARE, "b", 1)
    assert uploads.next_job(refusing={"a"}) == Job("b", SHARE, 1)
    assert uploads.next_job() == Job("a", SHARE, 0)
    uploads.check()


def busy_shares(slots: int, crowd: int) -> Uploads:
    """A crowd asks for one share, and one rich peer for another, all for many chunks."""
    everything = (1 << 200) - 1
    names = [f"crowd {n}" for n in range(crowd)]
    uploads = make(*names, everything=everything, have=everything, slots=slots)
    uploads.add_share(OTHER, everything, everything)
    uploads.peer_joined(OTHER, "loner")
    uploads.peer_has(OTHER, "loner", everything >> 100 << 100)
    for chunk in range(100):
        assert uploads.request(0.0, OTHER, "loner", chunk) is None
        assert uploads.request(0.0, SHARE, names[chunk % crowd], chunk) is None
    return uploads


@pytest.mark.parametrize("slots", [1, 2, 4])
def test_a_crowd_around_one_share_leaves_another_its_turns(slots: int) -> None:
    uploads = busy_shares(slots, crowd=20)
    served = {SHARE: 0, OTHER: 0}
    jobs: list[Job] = []
    for _ in range(60):
        while job := uploads.next_job():
            jobs.append(job)
        served[jobs[0].file_id] += 1
        uploads.finished(jobs.pop(0))
    # A peer has one slot at a time while others have none: a quarter of four.
    assert served[OTHER] >= 60 // max(slots, 2)
    assert served[SHARE] >= 60 // 2 - 1
    uploads.check()


def test_a_share_that_rested_has_no_turns_to_make_up_for() -> None:
    uploads = busy_shares(1, crowd=2)
    for chunk in range(100):
        uploads.cancel(OTHER, "loner", chunk)
    for _ in range(30):
        job = uploads.next_job()
        assert job is not None
        uploads.finished(job)
    for chunk in range(4):
        uploads.request(1.0, OTHER, "loner", chunk)
    order = []
    for _ in range(6):
        job = uploads.next_job()
        assert job is not None
        order.append(job.file_id)
        uploads.finished(job)
    assert order == [OTHER, SHARE] * 3


def test_what_is_not_here_is_turned_down() -> None:
    uploads = make("a", have=0b0011)
    assert turned_down(uploads, "a", 3) == Turned(3, held=False)
    uploads.gained(SHARE, 3)
    assert uploads.request(0.0, SHARE, "a", 3) is None


def test_a_queue_is_bounded() -> None:
    everything = (1 << MAX_QUEUED + 1) - 1
    uploads = make("a", everything=everything, have=everything)
    for chunk in range(MAX_QUEUED):
        assert uploads.request(0.0, SHARE, "a", chunk) is None
    assert turned_down(uploads, "a", MAX_QUEUED).full
    assert uploads.request(0.0, SHARE, "a", 0) is None, "queued already, so nothing is added"
    assert uploads.queued == MAX_QUEUED


def test_the_origin_gives_each_chunk_once_before_any_twice() -> None:
    uploads = make("a", "b")
    for chunk in (0, 1):
        assert uploads.request(0.0, SHARE, "a", chunk) is None
    turned = turned_down(uploads, "b", 0)
    assert turned.held
    assert set(turned.suggest) == {2, 3}
    assert uploads.request(0.0, SHARE, "a", 0) is None, "its own promise is kept"
    assert uploads.request(0.0, SHARE, "b", 2) is None
    assert uploads.request(0.0, SHARE, "b", 3) is None
    assert uploads.request(0.0, SHARE, "b", 0) is None, "nothing is fresh for b any more"


def test_a_node_that_lacks_chunks_gives_what_it_has() -> None:
    uploads = make("a", "b", have=0b0111)
    assert uploads.request(0.0, SHARE, "a", 0) is None
    assert uploads.request(0.0, SHARE, "b", 0) is None


@pytest.mark.parametrize("ending", ["cancelled", "cancelled in its slot", "left"])
def test_a_promise_that_came_to_nothing_is_fresh_again(ending: str) -> None:
    uploads = make("a", "b")
    uploads.request(0.0, SHARE, "a", 0)
    assert turned_down(uploads, "b", 0).suggest
    if ending == "cancelled":
        assert uploads.cancel(SHARE, "a", 0)
    elif ending == "cancelled in its slot":
        assert uploads.next_job() is not None
        assert not uploads.cancel(SHARE, "a", 0)
    else:
        job = uploads.next_job()
        uploads.peer_left(SHARE, "a")
        assert job is not None
        uploads.finished(job)
    assert uploads.request(0.0, SHARE, "b", 0) is None
    uploads.check()


def test_what_a_receiver_announced_goes_with_it() -> None:
    uploads = make("a", "b")
    uploads.request(0.0, SHARE, "a", 0)
    uploads.peer_has(SHARE, "a", 0b0001)
    assert turned_down(uploads, "b", 0).suggest
    uploads.peer_left(SHARE, "a")
    assert uploads.request(0.0, SHARE, "b", 0) is None


def test_chunks_that_a_peer_lost_are_fresh_again() -> None:
    uploads = make("a", "b")
    uploads.peer_has(SHARE, "a", 0b0001)
    assert turned_down(uploads, "b", 0).suggest
    uploads.peer_lost(SHARE, "a", 0b0001)
    assert uploads.request(0.0, SHARE, "b", 0) is None


def test_lost_chunks_leave_the_queues() -> None:
    uploads = make("a")
    uploads.request(0.0, SHARE, "a", 0)
    uploads.request(0.0, SHARE, "a", 1)
    uploads.lost(SHARE, 0b0001)
    assert uploads.queued == 1
    assert not turned_down(uploads, "a", 0).held
    uploads.gained(SHARE, 0)
    assert uploads.request(0.0, SHARE, "a", 0) is None
    uploads.check()


def test_a_peer_in_two_shares_has_one_turn() -> None:
    uploads = make("a", "b", slots=2)
    uploads.add_share(OTHER, ALL, ALL)
    uploads.peer_joined(OTHER, "a")
    uploads.request(0.0, SHARE, "a", 0)
    uploads.request(0.0, OTHER, "a", 0)
    uploads.request(5.0, SHARE, "b", 1)
    jobs = [job for job in (uploads.next_job(), uploads.next_job()) if job]
    assert sorted(str(job.peer) for job in jobs) == ["a", "b"]
    uploads.peer_left(SHARE, "a")
    assert uploads.queued == 1, "its queue in the other share stays"
    for job in jobs:
        uploads.finished(job)
    last = uploads.next_job()
    assert last is not None
    assert last.peer == "a"


def test_a_removed_share_is_served_no_more() -> None:
    uploads = make("a")
    uploads.request(0.0, SHARE, "a", 0)
    job = uploads.next_job()
    uploads.request(0.0, SHARE, "a", 1)
    uploads.remove_share(SHARE)
    assert job is not None
    uploads.finished(job)
    assert uploads.next_job() is None
    uploads.peer_left(SHARE, "a")
    assert (uploads.queued, uploads.active) == (0, 0)


def a_slot_too_many(uploads: Uploads) -> None:
    uploads._active += 1


def promised_without_a_mask(uploads: Uploads) -> None:
    uploads._shares[SHARE].handed_mask = 0


def promised_and_not_here(uploads: Uploads) -> None:
    uploads._shares[SHARE].have &= ~0b1


def promised_to_one_that_has_it(uploads: Uploads) -> None:
    uploads._shares[SHARE].requesters["a"].have |= 0b1


def promised_to_one_that_left(uploads: Uploads) -> None:
    del uploads._shares[SHARE].requesters["a"]


def queued_and_not_waiting(uploads: Uploads) -> None:
    uploads._shares[SHARE].waiting.clear()


def waiting_for_nothing(uploads: Uploads) -> None:
    share = uploads._shares[SHARE]
    share.waiting["b"] = share.requesters["b"]


def one_chunk_too_many(uploads: Uploads) -> None:
    uploads._shares[SHARE].requesters["b"].announced += 1


def announced_by_nobody(uploads: Uploads) -> None:
    uploads._shares[SHARE].announced |= 0b1000


@pytest.mark.parametrize(
    ("damage", "what"),
    [
        (a_slot_too_many, "slots"),
        (promised_without_a_mask, "handed chunks"),
        (promised_and_not_here, "handed chunks"),
        (promised_to_one_that_has_it, "chunk 0 is handed"),
        (promised_to_one_that_left, "chunk 0 is handed"),
        (queued_and_not_waiting, "a waits"),
        (waiting_for_nothing, "b waits"),
        (one_chunk_too_many, "chunks of b"),
        (announced_by_nobody, "what peers announced"),
    ],
)
def test_broken_books_are_noticed(damage: Callable[[Uploads], None], what: str) -> None:
    uploads = make("a", "b")
    uploads.request(0.0, SHARE, "a", 0)
    uploads.peer_has(SHARE, "b", 0b0100)
    uploads.check()
    damage(uploads)
    with pytest.raises(IllegalStateError, match=what):
        uploads.check()


def serve(uploads: Uploads, seconds: float, rate: float, per_slot: float) -> None:
    """Serve a hungry peer: `rate` jobs a second in all, at most `per_slot` in each slot."""
    now, jobs, done = 0.0, list[Job](), 0.0
    while now < seconds:
        while job := uploads.next_job():
            jobs.append(job)
        for chunk in range(64):
            uploads.request(now, SHARE, "a", chunk)
        now += 0.01
        done += 0.01 * min(rate, per_slot * len(jobs))
        while done >= 1 and jobs:
            done -= 1
            uploads.finished(jobs.pop(0))


@pytest.mark.parametrize(("per_slot", "least", "most"), [(1000, 2, 4), (10, 18, MAX_SLOTS)])
def test_there_are_more_slots_only_where_more_bring_more(
    per_slot: float, least: int, most: int
) -> None:
    everything = (1 << 64) - 1
    uploads = make("a", everything=everything, have=everything)
    serve(uploads, 60.0, 200.0, per_slot)
    assert least <= uploads.slots <= most
