from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from furymesh.net.splice import BUFFER, HALF_LIFE, Carried, splice
from furymesh.net.throttle import Budget
from tests.waiting import stays

Socket = trio.socket.SocketType


@asynccontextmanager
async def spliced(
    rate: float | None = None, idle: float = 5.0, total: float = 5.0
) -> AsyncIterator[tuple[Socket, Socket, trio.Event]]:
    """Two ends with a splice between them, and what tells that it is over."""
    (near, one), (other, far) = socket.socketpair(), socket.socketpair()
    for sock in (near, one, other, far):
        sock.setblocking(False)
    ends = [trio.socket.from_stdlib_socket(sock) for sock in (near, far)]
    over = trio.Event()

    async def run() -> None:
        await splice(one, other, budgets=[Budget(rate)], carried=Carried(), idle=idle, total=total)
        over.set()

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run)
            try:
                yield ends[0], ends[1], over
            finally:
                nursery.cancel_scope.cancel()
                for sock in (near, one, other, far):
                    sock.close()


async def everything(end: Socket) -> bytes:
    came = bytearray()
    while part := await end.recv(65536):
        came += part
    return bytes(came)


async def send(end: Socket, data: bytes) -> None:
    while data:
        data = data[await end.send(data) :]


async def test_bytes_go_both_ways_and_the_end_of_one_leaves_the_other_open() -> None:
    there, back = bytes(range(256)) * 4000, b"b" * 700_000
    async with spliced() as (near, far, over):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send, near, there)
            came = bytearray()
            while len(came) < len(there):
                came += await far.recv(100_000)
        assert came == there
        near.shutdown(socket.SHUT_WR)
        assert await far.recv(1) == b""
        assert not over.is_set()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send, far, back)
            came = bytearray()
            while len(came) < len(back):
                came += await near.recv(100_000)
        far.close()
        assert await near.recv(1) == b""
        await over.wait()
        assert came == back


async def test_a_slow_end_slows_down_the_other() -> None:
    async with spliced() as (near, _far, _over):
        sent = 0
        with trio.move_on_after(0.5):
            while True:
                sent += await near.send(bytes(65536))
        room = sum(
            sock.getsockopt(socket.SOL_SOCKET, option)
            for sock in (near, _far)
            for option in (socket.SO_SNDBUF, socket.SO_RCVBUF)
        )
        assert sent <= room + BUFFER


async def test_an_end_that_is_gone_ends_both() -> None:
    async with spliced() as (near, far, over):
        far.close()
        with pytest.raises(OSError, match=r"."):
            await send(near, bytes(64 * 1024 * 1024))
        await over.wait()


@pytest.mark.parametrize(("idle", "total"), [(0.2, 5.0), (5.0, 0.2)])
async def test_it_ends_when_nothing_comes_and_when_its_time_is_over(
    idle: float, total: float
) -> None:
    async with spliced(idle=idle, total=total) as (near, far, over):
        begun = trio.current_time()
        assert await near.recv(1) == b""
        assert await far.recv(1) == b""
        await over.wait()
        assert 0.2 <= trio.current_time() - begun < 3


async def test_it_lives_while_bytes_come() -> None:
    async with spliced(idle=0.3) as (near, far, over):

        async def keep_talking() -> None:
            while True:
                await near.send(b"x")
                assert await far.recv(1) == b"x"

        async with trio.open_nursery() as nursery:
            nursery.start_soon(keep_talking)
            await stays(lambda: not over.is_set(), 1.0)
            nursery.cancel_scope.cancel()


async def test_bytes_count_the_less_the_longer_ago_they_were_carried(
    mock_clock: trio.testing.MockClock,
) -> None:
    once, lately = Carried(), Carried()
    once.add(1000)
    mock_clock.jump(HALF_LIFE)
    assert once.lately() == pytest.approx(500)
    lately.add(400)
    assert lately.lately() < once.lately()
    mock_clock.jump(HALF_LIFE)
    lately.add(100)
    assert lately.lately() == pytest.approx(300)
    assert once.lately() == pytest.approx(250)


async def test_the_rate_holds_for_both_directions_together() -> None:
    async with spliced(rate=1_000_000) as (near, far, _):
        begun = trio.current_time()
        came = 0

        async def receive(end: Socket) -> None:
            nonlocal came
            while came < 600_000:
                came += len(await end.recv(65536))
            nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            for source, sink in ((near, far), (far, near)):
                nursery.start_soon(send, source, bytes(600_000))
                nursery.start_soon(receive, sink)
        assert 0.4 < trio.current_time() - begun < 5
