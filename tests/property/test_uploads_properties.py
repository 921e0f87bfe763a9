"""The serving side under random peers, shares and slots."""

from __future__ import annotations

from random import Random

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from furymesh.core.ids import FileId
from furymesh.core.slots import MAX_SLOTS
from furymesh.core.uploads import MAX_QUEUED, SUGGESTIONS, Job, Uploads

COUNT = 300  # more than MAX_QUEUED, so that the limit is met
EVERYTHING = 2**COUNT - 1
SHARES = [FileId(bytes([n]) * 32) for n in range(2)]

shares = st.sampled_from(SHARES)
peers = st.integers(0, 3)
masks = st.sampled_from([0, 1, 7, 2**20 - 1, EVERYTHING, EVERYTHING - 1, 5 << 100])
chunks = st.integers(0, 24) | st.integers(0, COUNT - 1)


class UploadsMachine(RuleBasedStateMachine):
    """Keeps its own queues and peers' bitmaps beside the real ones."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.have: dict[FileId, int] = {}
        self.peer_have: dict[tuple[FileId, int], int] = {}
        self.queues: dict[tuple[FileId, int], list[int]] = {}
        self.jobs: list[Job] = []
        # How often in a row a share was passed over that could have been served as well.
        self.passed_over = dict.fromkeys(SHARES, 0)

    @initialize(seed=st.integers(0, 99), slots=st.integers(1, 5), have=masks)
    def start(self, seed: int, slots: int, have: int) -> None:
        self.slots = slots
        self.uploads = Uploads(Random(seed), slots=slots)
        for file_id, mask in zip(SHARES, [EVERYTHING, have], strict=True):
            self.have[file_id] = mask
            self.uploads.add_share(file_id, EVERYTHING, mask)

    @rule(file_id=shares, peer=peers)
    def join(self, file_id: FileId, peer: int) -> None:
        if file_id in self.have:
            self.uploads.peer_joined(file_id, peer)
            self.peer_have.setdefault((file_id, peer), 0)
            self.queues.setdefault((file_id, peer), [])

    @rule(file_id=shares, peer=peers)
    def leave(self, file_id: FileId, peer: int) -> None:
        self.uploads.peer_left(file_id, peer)  # never there is as good as gone
        self.peer_have.pop((file_id, peer), None)
        self.queues.pop((file_id, peer), None)

    @rule(file_id=shares)
    def remove(self, file_id: FileId) -> None:
        self.uploads.remove_share(file_id)
        self.have.pop(file_id, None)
        for key in [key for key in self.queues if key[0] == file_id]:
            del self.queues[key], self.peer_have[key]

    @rule(file_id=shares, mask=masks)
    def add(self, file_id: FileId, mask: int) -> None:
        if file_id not in self.have:
            self.have[file_id] = mask
            self.uploads.add_share(file_id, EVERYTHING, mask)

    @rule(file_id=shares, chunk=chunks)
    def gain(self, file_id: FileId, chunk: int) -> None:
        if file_id in self.have:
            self.have[file_id] |= 1 << chunk
            self.uploads.gained(file_id, chunk)

    @rule(file_id=shares, mask=masks)
    def lose(self, file_id: FileId, mask: int) -> None:
        if file_id in self.have:
            self.have[file_id] &= ~mask
            self.uploads.lost(file_id, mask)
            for key, queue in self.queues.items():
                if key[0] == file_id:
                    queue[:] = [chunk for chunk in queue if not mask >> chunk & 1]

    @rule(file_id=shares, peer=peers, mask=masks, gone=st.booleans())
    def announce(self, file_id: FileId, peer: int, mask: int, gone: bool) -> None:
        if (file_id, peer) in self.queues:
            if gone:
                self.peer_have[file_id, peer] &= ~mask
                self.uploads.peer_lost(file_id, peer, mask)
            else:
                self.peer_have[file_id, peer] |= mask
                self.uploads.peer_has(file_id, peer, mask)

    @rule(file_id=shares, peer=peers, first=chunks, count=st.sampled_from([1, 2, 5, MAX_QUEUED]))
    def request(self, file_id: FileId, peer: int, first: int, count: int) -> None:
        queue = self.queues.get((file_id, peer))
        if queue is None:
            return
        have = self.have[file_id]
        others = 0
        for (share, _), mask in self.peer_have.items():
            others |= mask if share == file_id else 0
        for chunk in range(first, min(first + count, COUNT)):
            turned = self.uploads.request(self.now, file_id, peer, chunk)
            if turned is None:
                assert have >> chunk & 1
                if chunk not in queue:
                    queue.append(chunk)
                continue
            assert turned.held == bool(have >> chunk & 1)
            assert turned.full == (turned.held and len(queue) == MAX_QUEUED)
            if turned.held and not turned.full:
                assert have == EVERYTHING, "only who has everything keeps to once-each"
                assert 0 < len(turned.suggest) <= SUGGESTIONS
                for suggestion in turned.suggest:
                    assert not others >> suggestion & 1, "suggested what others have"
            else:
                assert not turned.suggest

    @rule(file_id=shares, peer=peers, chunk=chunks)
    def cancel(self, file_id: FileId, peer: int, chunk: int) -> None:
        queue = self.queues.get((file_id, peer))
        if queue is not None:
            assert self.uploads.cancel(file_id, peer, chunk) == (chunk in queue)
            if chunk in queue:
                queue.remove(chunk)

    @rule()
    def serve(self) -> None:
        self.now += 0.1
        room = len(self.jobs) < self.uploads.slots
        job = self.uploads.next_job()
        if job is None:
            assert not room or not any(self.queues.values())
            return
        assert room, "more jobs than slots"
        assert isinstance(job.peer, int)
        queue = self.queues[job.file_id, job.peer]
        before = {key: list(queue) for key, queue in self.queues.items()}
        assert queue.pop(0) == job.chunk, "a peer's requests are served in order"
        assert self.have[job.file_id] >> job.chunk & 1
        # Nobody who waits has fewer chunks on the way than the chosen one had.
        busy = [j.peer for j in self.jobs]
        waiting = [peer for (_, peer), queue in self.queues.items() if queue]
        assert all(busy.count(job.peer) <= busy.count(peer) for peer in waiting)
        # Of the shares that such peers ask for, one that has no more slots is passed
        # over once, and then it is its turn.
        least = busy.count(job.peer)
        slots = [j.file_id for j in self.jobs]
        for share in SHARES:
            waits = any(
                queue and file_id == share and busy.count(peer) == least
                for (file_id, peer), queue in before.items()
            )
            if share == job.file_id or not waits:
                self.passed_over[share] = 0
            else:
                assert slots.count(job.file_id) <= slots.count(share)
                self.passed_over[share] += slots.count(job.file_id) == slots.count(share)
            assert self.passed_over[share] < len(SHARES)
        self.jobs.append(job)

    @rule(pick=st.integers(0, 9))
    @precondition(lambda self: self.jobs)
    def finish(self, pick: int) -> None:
        self.uploads.finished(self.jobs.pop(pick % len(self.jobs)))

    @invariant()
    def books_agree(self) -> None:
        if not hasattr(self, "uploads"):
            return
        assert self.uploads.active == len(self.jobs)
        assert self.slots <= self.uploads.slots <= MAX_SLOTS
        assert self.uploads.queued == sum(map(len, self.queues.values()))
        assert all(len(queue) <= MAX_QUEUED for queue in self.queues.values())
        self.uploads.check()

    def teardown(self) -> None:
        """Every queued chunk is served in the end."""
        if not hasattr(self, "uploads"):
            return
        while self.jobs or any(self.queues.values()):
            while self.jobs:
                self.finish(0)
            self.serve()
        assert self.uploads.active == self.uploads.queued == 0


UploadsMachine.TestCase.settings = settings(max_examples=100, stateful_step_count=50, deadline=None)
TestUploads = UploadsMachine.TestCase
