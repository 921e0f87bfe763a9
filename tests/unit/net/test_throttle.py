from __future__ import annotations

import pytest
import trio
import trio.testing

from furymesh.net.throttle import MIN_BURST, Budget, ThrottledStream


class Pipe:
    """A stream that takes and gives everything at once."""

    def __init__(self) -> None:
        self.sent: list[int] = []
        self.closed = False

    async def wait_readable(self, at_least: int = 1) -> None:
        await trio.lowlevel.checkpoint()

    def receive_nowait(self, view: memoryview) -> int | None:
        return len(view)

    async def send_all(self, view: memoryview) -> None:
        self.sent.append(len(view))
        await trio.lowlevel.checkpoint()

    def keep_unsent(self, size: int) -> None:
        """Nothing is ever unsent here."""

    def waiting(self) -> int:
        return 0

    def refused_for(self) -> float:
        return 0.0

    def close(self) -> None:
        self.closed = True


async def seconds_to_send(stream: ThrottledStream, size: int) -> float:
    begun = trio.current_time()
    await stream.send_all(memoryview(bytes(size)))
    await stream.send_all(memoryview(b"x"))  # has to wait for what was spent
    return trio.current_time() - begun


async def test_no_budget_is_no_limit(autojump_clock: trio.testing.MockClock) -> None:
    stream = ThrottledStream(Pipe(), upload=[], download=[Budget()])
    assert await seconds_to_send(stream, 10**7) == 0
    assert stream.receive_nowait(memoryview(bytearray(10**6))) == 10**6


@pytest.mark.parametrize("rate", [50_000, 1_000_000, 20_000_000])
async def test_rate_holds(autojump_clock: trio.testing.MockClock, rate: int) -> None:
    stream = ThrottledStream(Pipe(), upload=[Budget(rate)], download=[])
    assert await seconds_to_send(stream, 3 * rate) == pytest.approx(3, rel=0.01)


async def test_bursts_are_small(autojump_clock: trio.testing.MockClock) -> None:
    pipe = Pipe()
    await ThrottledStream(pipe, upload=[Budget(10**6)], download=[]).send_all(
        memoryview(bytes(10**6))
    )
    assert max(pipe.sent) <= 10**6 * 0.05
    slow = Pipe()
    await ThrottledStream(slow, upload=[Budget(1000)], download=[]).send_all(
        memoryview(bytes(2 * MIN_BURST))
    )
    assert slow.sent == [MIN_BURST, MIN_BURST]


async def test_streams_share_a_budget(autojump_clock: trio.testing.MockClock) -> None:
    budget = Budget(10**6)
    begun = trio.current_time()
    async with trio.open_nursery() as nursery:
        for _ in range(4):
            stream = ThrottledStream(Pipe(), upload=[budget], download=[])
            nursery.start_soon(stream.send_all, memoryview(bytes(10**6)))
    assert trio.current_time() - begun == pytest.approx(4, rel=0.1)


async def test_tightest_budget_rules(autojump_clock: trio.testing.MockClock) -> None:
    stream = ThrottledStream(Pipe(), upload=[Budget(10**6), Budget(10**5)], download=[])
    assert await seconds_to_send(stream, 10**6) == pytest.approx(10, rel=0.05)


async def test_receiving_waits_for_what_was_spent(autojump_clock: trio.testing.MockClock) -> None:
    stream = ThrottledStream(Pipe(), upload=[], download=[Budget(10**6)])
    begun = trio.current_time()
    got = 0
    while got < 10**6:
        await stream.wait_readable(10**9)
        got += stream.receive_nowait(memoryview(bytearray(10**6))) or 0
    await stream.wait_readable()
    assert trio.current_time() - begun == pytest.approx(1, rel=0.1)


async def test_who_does_not_wait_receives_nothing(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A reader that finds its buffer full goes straight on."""
    stream = ThrottledStream(Pipe(), upload=[], download=[Budget(10**6)])
    view = memoryview(bytearray(1000))
    assert stream.receive_nowait(view) == 1000
    assert stream.receive_nowait(view) is None
    await stream.wait_readable()
    assert stream.receive_nowait(view) == 1000


async def test_close_goes_through() -> None:
    pipe = Pipe()
    ThrottledStream(pipe, upload=[], download=[]).close()
    assert pipe.closed
