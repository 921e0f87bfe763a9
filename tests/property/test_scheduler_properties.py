"""The scheduler under random events in every legal order."""

from __future__ import annotations

from random import Random

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from furymesh.core.bitfield import chunks_of
from furymesh.core.debts import MAX_OWNERS
from furymesh.core.geometry import Geometry
from furymesh.core.scheduler import TICK, Action, Request, Scheduler

KIB = 1024
COUNT = 12
PIECE = 8 * KIB
MIRROR = 4  # the number of a peer that is one
HONEST = 99  # the number of the peer, or mirror, that saves every download
PATIENCE = 60.0  # virtual seconds in which one honest peer must bring everything

masks = st.integers(0, 2**COUNT - 1)
numbers = st.integers(0, 4)


class SchedulerMachine(RuleBasedStateMachine):
    """Keeps its own books of who was asked for what, and plays the peers and the disk."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.geometry = Geometry((COUNT - 1) * 16 * KIB + 100, 16 * KIB)
        self.have: dict[int, int] = {}
        # What was asked of each peer and has not been answered: bytes received.
        self.asked: dict[int, dict[int, int]] = {}
        # Chunks taken back, whose old bytes may still come, and when.
        self.stale: dict[int, dict[int, float]] = {}
        self.verifying: list[int] = []
        self.paused = False

    @initialize(
        seed=st.integers(0, 99),
        have=masks,
        known=masks,
        senders=st.integers(1, 6),
        saviour=st.booleans(),
    )
    def start(self, seed: int, have: int, known: int, senders: int, saviour: bool) -> None:
        self.senders = senders
        self.mirrors = {MIRROR, HONEST} if saviour else {MIRROR}
        self.scheduler = Scheduler(
            self.geometry, Random(seed), have=have, max_senders=senders, me=b"\2"
        )
        self.scheduler.verifiable = known

    def apply(self, actions: list[Action]) -> None:
        for action in actions:
            asked = self.asked[action.peer]
            if not isinstance(action, Request):
                for chunk in action.chunks:
                    del asked[chunk]
                    self.grow_stale(action.peer, chunk)
                continue
            assert not self.paused
            for chunk in action.chunks:
                assert self.have[action.peer] >> chunk & 1, "asked for what the peer lacks"
                assert self.scheduler.verifiable >> chunk & 1, "no digest to check it with"
                assert chunk not in asked, "asked twice"
                assert chunk not in self.stale[action.peer], "old bytes may still come"
                assert chunk not in self.verifying
                asked[chunk] = 0

    def grow_stale(self, peer: int, chunk: int) -> None:
        """A chunk is taken back; a request to a mirror ends at once."""
        if peer not in self.mirrors:
            self.stale[peer][chunk] = self.now

    # --- events -------------------------------------------------------------------

    @rule(peer=numbers, mask=masks)
    def join(self, peer: int, mask: int) -> None:
        if peer not in self.have:
            self.have[peer] = 0
            self.asked[peer], self.stale[peer] = {}, {}
            mirror = peer in self.mirrors
            self.scheduler.peer_joined(self.now, peer, bytes([peer]), mirror=mirror)
        self.have[peer] |= mask
        self.apply(self.scheduler.peer_has(self.now, peer, mask))

    @rule(peer=numbers)
    def leave(self, peer: int) -> None:
        if peer in self.have:
            del self.have[peer], self.asked[peer], self.stale[peer]
            self.apply(self.scheduler.peer_left(self.now, peer))

    @rule(peer=numbers, mask=masks)
    def lose(self, peer: int, mask: int) -> None:
        if peer in self.have:
            self.have[peer] &= ~mask
            for chunk in [chunk for chunk in self.asked[peer] if mask >> chunk & 1]:
                del self.asked[peer][chunk]
                self.grow_stale(peer, chunk)
            self.apply(self.scheduler.peer_lost(self.now, peer, mask))

    @rule(mask=masks)
    def learn_digests(self, mask: int) -> None:
        self.apply(self.scheduler.verifiable_grew(self.now, mask))

    @rule(peer=numbers, pieces=st.integers(1, 6), pick=st.integers(0, 3))
    def data(self, peer: int, pieces: int, pick: int) -> None:
        for _ in range(pieces):
            asked = self.asked.get(peer)
            if asked:
                self.piece(peer, list(asked)[pick % len(asked)])

    def piece(self, peer: int, chunk: int) -> None:
        """One more piece of a chunk; the last one sends it to be verified."""
        asked = self.asked[peer]
        length = self.geometry.length(chunk)
        size = min(PIECE, length - asked[chunk])
        asked[chunk] += size
        if asked[chunk] == length:
            del asked[chunk]
            self.verifying.append(chunk)
        self.apply(self.scheduler.data(self.now, peer, chunk, size))

    @rule(good=st.booleans())
    @precondition(lambda self: self.verifying)
    def verified(self, good: bool) -> None:
        chunk = self.verifying.pop(0)
        settle = self.scheduler.stored if good else self.scheduler.bad
        self.apply(settle(self.now, chunk))

    @rule(chunk=st.integers(0, COUNT - 1))
    def disk_forgot(self, chunk: int) -> None:
        if self.scheduler.ledger.have >> chunk & 1:
            self.apply(self.scheduler.lost(self.now, 1 << chunk))

    @rule(peer=numbers, mask=masks, held=st.booleans(), suggest=st.lists(st.integers(0, 2 * COUNT)))
    def reject(self, peer: int, mask: int, held: bool, suggest: list[int]) -> None:
        if peer in self.have:
            chunks = [*chunks_of(mask), COUNT + 5]  # a peer may name anything
            for chunk in chunks:
                self.asked[peer].pop(chunk, None)
            if not held:
                self.have[peer] &= ~mask
            self.apply(self.scheduler.rejected(self.now, peer, chunks, held=held, suggest=suggest))

    @rule(peer=numbers, round_trip=st.none() | st.floats(0.0001, 0.5))
    def pong(self, peer: int, round_trip: float | None) -> None:
        if peer in self.have:
            if round_trip is not None:
                sent = self.now - round_trip
                self.stale[peer] = {c: t for c, t in self.stale[peer].items() if t > sent}
            self.apply(self.scheduler.heard(self.now, peer, round_trip))

    @rule(peer=numbers, full=st.booleans())
    def slabs(self, peer: int, full: bool) -> None:
        if peer in self.have:
            (self.scheduler.held_up if full else self.scheduler.let_go)(self.now, peer)

    @rule(peer=numbers)
    def stir(self, peer: int) -> None:
        if peer in self.have:
            self.scheduler.stirred(self.now, peer)

    @rule(seconds=st.sampled_from([0.001, TICK, 0.3, 1.0, 3.0, 20.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.apply(self.scheduler.tick(self.now))

    @rule()
    def disk_full(self) -> None:
        actions = self.scheduler.pause()
        self.paused = True
        self.apply(actions)

    @rule()
    def room_again(self) -> None:
        self.paused = False
        self.apply(self.scheduler.proceed(self.now))

    # --- what must hold -----------------------------------------------------------

    @invariant()
    def books_agree(self) -> None:
        if not hasattr(self, "scheduler"):
            return
        self.scheduler.check()
        owners = [0] * COUNT
        for peer, asked in self.asked.items():
            for chunk in range(COUNT):
                assert self.scheduler.owes(peer, chunk) == (chunk in asked)
                owners[chunk] += chunk in asked
        assert max(owners) <= MAX_OWNERS
        assert sum(map(bool, self.asked.values())) <= self.senders
        for chunk in range(COUNT):
            holders = sum(
                mask >> chunk & 1 for peer, mask in self.have.items() if peer not in self.mirrors
            )
            assert self.scheduler.availability(chunk) == holders

    def teardown(self) -> None:
        """One honest peer is enough, whatever the others did or still owe."""
        if not hasattr(self, "scheduler"):
            return
        self.room_again()
        for peer in self.have:
            self.slabs(peer, full=False)
        self.learn_digests(self.geometry.all_chunks)
        self.join(HONEST, self.geometry.all_chunks)
        deadline = self.now + PATIENCE
        while not self.scheduler.ledger.done:
            assert self.now < deadline, "the download hangs"
            for _ in range(2):
                if self.asked[HONEST]:
                    self.piece(HONEST, next(iter(self.asked[HONEST])))
            while self.verifying:
                self.verified(good=True)
            self.pong(HONEST, 0.01)
            self.books_agree()
            self.wait(TICK)
        assert self.scheduler.ledger.have == self.geometry.all_chunks


SchedulerMachine.TestCase.settings = settings(
    max_examples=100, stateful_step_count=50, deadline=None
)
TestScheduler = SchedulerMachine.TestCase
