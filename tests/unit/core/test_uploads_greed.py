"""What a requester says of itself is not all that counts."""

from __future__ import annotations

from random import Random
from time import process_time

from furymesh.core.ids import FileId
from furymesh.core.uploads import Uploads

SHARE = FileId(bytes(32))
EVERYTHING = (1 << 64) - 1


def served(uploads: Uploads, times: int) -> list[object]:
    order: list[object] = []
    for _ in range(times):
        job = uploads.next_job()
        assert job is not None
        order.append(job.peer)
        uploads.finished(job)
    return order


def test_silence_about_chunks_is_no_poverty() -> None:
    uploads = Uploads(Random(0), slots=1)
    uploads.add_share(SHARE, EVERYTHING, EVERYTHING)
    for peer in ("mute", "honest"):
        uploads.peer_joined(SHARE, peer)
    for chunk in range(10):
        uploads.request(0.0, SHARE, "mute", chunk)
    assert served(uploads, 5) == ["mute"] * 5
    uploads.peer_has(SHARE, "honest", 0b111 << 60)
    for chunk in range(20, 22):
        uploads.request(1.0, SHARE, "honest", chunk)
    assert served(uploads, 2) == ["honest"] * 2


def test_cancelling_one_chunk_of_many_is_cheap() -> None:
    count = 2_400_000
    everything = (1 << count) - 1
    uploads = Uploads(Random(0))
    uploads.add_share(SHARE, everything, everything)
    uploads.peer_joined(SHARE, "a")
    best = 1.0
    for chunk in (count - 1, count - 2, count - 3):
        assert uploads.request(0.0, SHARE, "a", chunk) is None
        began = process_time()
        assert uploads.cancel(SHARE, "a", chunk)
        best = min(best, process_time() - began)
    uploads.check()
    assert best < 0.005


def test_a_leaver_with_many_promises_costs_one_pass() -> None:
    count = 200_000
    everything = (1 << count) - 1
    uploads = Uploads(Random(0), slots=1)
    uploads.add_share(SHARE, everything, everything)
    uploads.peer_joined(SHARE, "a")
    for chunk in range(0, count, 20):
        assert uploads.request(0.0, SHARE, "a", chunk) is None
        job = uploads.next_job()
        assert job is not None
        uploads.finished(job)
    began = process_time()
    uploads.peer_left(SHARE, "a")
    assert process_time() - began < 0.02
    uploads.check()
