from __future__ import annotations

from collections import Counter

import pytest
import trio
import trio.testing

from furymesh.net.throttle import CREDIT_SECONDS, MIN_QUANTUM, Budget, ThrottledStream

LATE = 0.05  # seconds by which a busy machine wakes who sleeps, now and then


class Pipe:
    """A stream that takes and gives everything at once."""

    def __init__(self) -> None:
        self.sent: list[int] = []
        self.closed = False
        self.marks: list[int] = []  # what was waited for
        self.stock: int | None = None  # bytes that can be received; None: any number

    async def wait_readable(self, at_least: int = 1) -> None:
        self.marks.append(at_least)
        await trio.lowlevel.checkpoint()

    def receive_nowait(self, view: memoryview) -> int | None:
        if self.stock is None:
            return len(view)
        size = min(self.stock, len(view))
        self.stock -= size
        return size or None

    async def send_all(self, view: memoryview) -> None:
        self.sent.append(len(view))
        await trio.lowlevel.checkpoint()

    def keep_unsent(self, seconds: float, rate: float) -> None:
        """Nothing is ever unsent here."""

    def waiting(self) -> int:
        return 0

    def refused_for(self) -> float:
        return 0.0

    def round_trip(self) -> float:
        return 0.0

    def close(self) -> None:
        self.closed = True


async def send_for(stream: ThrottledStream, seconds: float, size: int = 128 * 1024) -> None:
    with trio.move_on_after(seconds):
        while True:
            await stream.send_all(memoryview(bytes(size)))


async def receive_for(stream: ThrottledStream, seconds: float) -> int:
    """The bytes that a reader gets who is always ready for more."""
    view = memoryview(bytearray(1 << 20))
    got = 0
    with trio.move_on_after(seconds):
        while True:
            size = stream.receive_nowait(view)
            if size is None:
                await stream.wait_readable(1)
            got += size or 0
    return got


def bound(rate: float, seconds: float, links: int = 1) -> float:
    """The most that may pass: the rate, one rest's worth, and a quantum for each link."""
    return rate * (seconds + CREDIT_SECONDS) + links * (Budget(rate).quantum or 0)


# --- how much ---------------------------------------------------------------------------


async def test_no_budget_is_no_limit(autojump_clock: trio.testing.MockClock) -> None:
    pipe = Pipe()
    for budgets in ([], [Budget()]):
        stream = ThrottledStream(pipe, upload=budgets, download=budgets)
        await stream.send_all(memoryview(bytes(10**7)))
        assert stream.receive_nowait(memoryview(bytearray(10**6))) == 10**6
        await stream.wait_readable(70_000)
    assert pipe.sent == [10**7, 10**7]
    assert pipe.marks == [70_000, 70_000]
    assert trio.current_time() == 0


@pytest.mark.parametrize("rate", [1_000, 20_000, 200_000, 5_000_000, 100_000_000])
@pytest.mark.parametrize("links", [1, 3])
async def test_what_is_sent(autojump_clock: trio.testing.MockClock, rate: int, links: int) -> None:
    budget = Budget(rate)
    pipes = [Pipe() for _ in range(links)]
    async with trio.open_nursery() as nursery:
        for pipe in pipes:
            stream = ThrottledStream(pipe, upload=[budget], download=[])
            nursery.start_soon(send_for, stream, 10)
    sent = sum(sum(pipe.sent) for pipe in pipes)
    assert 0.995 * 10 * rate - MIN_QUANTUM <= sent <= bound(rate, 10, links)


@pytest.mark.parametrize("rate", [1_000, 20_000, 200_000, 5_000_000, 100_000_000])
@pytest.mark.parametrize("links", [1, 3])
async def test_what_is_received(
    autojump_clock: trio.testing.MockClock, rate: int, links: int
) -> None:
    budget = Budget(rate)
    got = []

    async def receive(stream: ThrottledStream) -> None:
        got.append(await receive_for(stream, 10))

    async with trio.open_nursery() as nursery:
        for _ in range(links):
            nursery.start_soon(receive, ThrottledStream(Pipe(), upload=[], download=[budget]))
    assert 0.995 * 10 * rate - links * MIN_QUANTUM <= sum(got) <= bound(rate, 10, links)


async def test_a_budget_is_reached_while_all_of_it_is_spent(
    autojump_clock: trio.testing.MockClock,
) -> None:
    budget = Budget(20_000)
    assert not Budget().reached
    autojump_clock.jump(1)
    assert not budget.reached
    for _ in range(20):
        await trio.sleep_until(budget.spend(5_000))
        assert budget.reached
    autojump_clock.jump(1)
    assert not budget.reached


@pytest.mark.parametrize("rate", [200_000, 5_000_000, 100_000_000])
async def test_waking_late_costs_nothing(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch, rate: int
) -> None:
    on_time = trio.sleep_until

    async def late(deadline: float) -> None:
        await on_time(deadline + LATE)

    monkeypatch.setattr("furymesh.net.throttle.trio.sleep_until", late)
    pipe = Pipe()
    stream = ThrottledStream(pipe, upload=[Budget(rate)], download=[Budget(rate)])
    await send_for(stream, 10)
    assert sum(pipe.sent) == pytest.approx(10 * rate, rel=0.015)
    assert await receive_for(stream, 10) == pytest.approx(10 * rate, rel=0.015)


async def test_a_long_rest_is_not_made_up_for(autojump_clock: trio.testing.MockClock) -> None:
    pipe = Pipe()
    stream = ThrottledStream(pipe, upload=[Budget(10**6)], download=[Budget(10**6)])
    for _ in range(3):
        autojump_clock.jump(3600)
        pipe.sent.clear()
        await send_for(stream, 0.5)
        assert sum(pipe.sent) <= bound(10**6, 0.5)
        assert await receive_for(stream, 0.5) <= bound(10**6, 0.5)


async def test_a_rate_that_changes_holds_from_then_on(
    autojump_clock: trio.testing.MockClock,
) -> None:
    pipe, budget = Pipe(), Budget(10**6)
    stream = ThrottledStream(pipe, upload=[budget], download=[])
    await send_for(stream, 1)
    pipe.sent.clear()
    budget.rate = 10**5
    await send_for(stream, 10)
    assert sum(pipe.sent) == pytest.approx(10**6, rel=0.02)
    budget.rate = None
    begun = trio.current_time()
    await stream.send_all(memoryview(bytes(10**8)))
    assert trio.current_time() == begun


# --- in which parts ---------------------------------------------------------------------


@pytest.mark.parametrize("rate", [1_000, 10**5, 10**7])
async def test_parts_are_small(autojump_clock: trio.testing.MockClock, rate: int) -> None:
    """So nobody is silent for long, and control messages do not wait for long."""
    pipe = Pipe()
    await send_for(ThrottledStream(pipe, upload=[Budget(rate)], download=[]), 10)
    assert max(pipe.sent) <= max(MIN_QUANTUM, rate * 0.005)


@pytest.mark.parametrize(("rate", "size"), [(1_000, MIN_QUANTUM), (20_000, 5_000), (None, None)])
def test_records_are_short_at_a_low_rate(rate: int | None, size: int | None) -> None:
    assert Budget(rate).record == (None if size is None else pytest.approx(size))


async def test_links_get_equal_parts(autojump_clock: trio.testing.MockClock) -> None:
    """Also those that send little at a time, if it is not less than a part."""
    budget = Budget(10**6)
    pipes = [Pipe() for _ in range(5)]
    async with trio.open_nursery() as nursery:
        for pipe, size in zip(pipes, (4096, 8192, 10**5, 10**6, 10**6), strict=True):
            stream = ThrottledStream(pipe, upload=[budget], download=[])
            nursery.start_soon(send_for, stream, 10, size)
    for pipe in pipes:
        assert sum(pipe.sent) == pytest.approx(2 * 10**6, rel=0.03)


async def test_readers_get_equal_parts(autojump_clock: trio.testing.MockClock) -> None:
    budget = Budget(10**6)
    got: Counter[int] = Counter()

    async def receive(number: int) -> None:
        stream = ThrottledStream(Pipe(), upload=[], download=[budget])
        got[number] = await receive_for(stream, 10)

    async with trio.open_nursery() as nursery:
        for number in range(4):
            nursery.start_soon(receive, number)
    for size in got.values():
        assert size == pytest.approx(10**6 / 4 * 10, rel=0.03)


async def test_a_reader_that_gets_little_pays_for_little(
    autojump_clock: trio.testing.MockClock,
) -> None:
    budget = Budget(10**6)
    drip = Pipe()
    thin = ThrottledStream(drip, upload=[], download=[budget])
    got = []

    async def trickle() -> None:
        view = memoryview(bytearray(1 << 20))
        while True:
            drip.stock = 100
            await thin.wait_readable()
            assert thin.receive_nowait(view) == 100

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trickle)
        thick = ThrottledStream(Pipe(), upload=[], download=[budget])
        got.append(await receive_for(thick, 10))
        nursery.cancel_scope.cancel()
    assert got[0] > 0.9 * 10**7


async def test_who_does_not_wait_receives_nothing(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A reader that finds its buffer full goes straight on."""
    stream = ThrottledStream(Pipe(), upload=[], download=[Budget(10**6)])
    view = memoryview(bytearray(1000))
    assert stream.receive_nowait(view) is None
    await stream.wait_readable()
    assert stream.receive_nowait(view) == 1000
    assert stream.receive_nowait(view) is None


async def test_nothing_to_receive_costs_nothing(autojump_clock: trio.testing.MockClock) -> None:
    pipe = Pipe()
    pipe.stock = 0
    stream = ThrottledStream(pipe, upload=[], download=[Budget(1000)])
    view = memoryview(bytearray(1000))
    for _ in range(100):
        await stream.wait_readable()
        assert stream.receive_nowait(view) is None
    assert trio.current_time() == 0


# --- several budgets --------------------------------------------------------------------


@pytest.mark.parametrize("rates", [(10**6, 10**5), (10**5, 10**6)])
async def test_tightest_budget_rules(
    autojump_clock: trio.testing.MockClock, rates: tuple[int, int]
) -> None:
    pipe = Pipe()
    budgets = [Budget(rate) for rate in rates]
    stream = ThrottledStream(pipe, upload=budgets, download=[Budget(rate) for rate in rates])
    await send_for(stream, 10)
    assert sum(pipe.sent) == pytest.approx(10**6, rel=0.02)
    assert await receive_for(stream, 10) == pytest.approx(10**6, rel=0.02)


async def test_what_one_may_not_use_others_may(autojump_clock: trio.testing.MockClock) -> None:
    """A download with a limit of its own leaves the rest of the node's to another."""
    node, download = Budget(10**6), Budget(10**5)
    held = ThrottledStream(Pipe(), upload=[], download=[node])
    held.charge(download)
    free = ThrottledStream(Pipe(), upload=[], download=[node])
    got: dict[str, int] = {}

    async def receive(name: str, stream: ThrottledStream) -> None:
        got[name] = await receive_for(stream, 10)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive, "held", held)
        nursery.start_soon(receive, "free", free)
    assert got["held"] == pytest.approx(10**6, rel=0.02)
    assert got["free"] == pytest.approx(9 * 10**6, rel=0.02)


async def test_content_is_charged_while_it_comes(autojump_clock: trio.testing.MockClock) -> None:
    stream = ThrottledStream(Pipe(), upload=[], download=[Budget()])
    stream.charge(Budget(10**5))
    assert await receive_for(stream, 10) == pytest.approx(10**6, rel=0.02)
    stream.charge(None)
    assert stream.receive_nowait(memoryview(bytearray(10**6))) == 10**6


async def test_close_goes_through() -> None:
    pipe = Pipe()
    ThrottledStream(pipe, upload=[], download=[]).close()
    assert pipe.closed
