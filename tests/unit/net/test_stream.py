from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from furymesh.core.errors import LinkClosedError
from furymesh.net.stream import (
    MAX_RETRY,
    ROOM_MARKS,
    TCP_RTO_MAX_MS,
    UNPACED,
    TcpStream,
    _within_host,
)

Pair = tuple[TcpStream, TcpStream]


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        one = socket.create_connection(listener.getsockname())
        other, _ = listener.accept()
    with one, other:
        yield one, other


async def receive(stream: TcpStream, size: int) -> bytes:
    view = memoryview(bytearray(size))
    got = 0
    while got < size:
        more = stream.receive_nowait(view[got:])
        if more is None:
            await stream.wait_readable()
        else:
            got += more
    return bytes(view)


async def test_bytes_cross_both_ways(pair: tuple[socket.socket, socket.socket]) -> None:
    one, other = map(TcpStream, pair)
    data = bytes(range(256)) * 20_000  # more than the buffers of the kernel
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(one.send_all, memoryview(data))
            nursery.start_soon(other.send_all, memoryview(data[::-1]))
            assert await receive(other, len(data)) == data
            assert await receive(one, len(data)) == data[::-1]


@pytest.mark.skipif(sys.platform != "linux", reason="what Linux makes of a low water mark")
async def test_the_receive_buffer_has_room_for_more_than_is_waited_for(
    pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("furymesh.net.stream._within_host", lambda sock: False)
    stream, mark = TcpStream(pair[0]), 64 * 1024
    pair[1].sendall(bytes(mark))
    with trio.fail_after(5):
        await stream.wait_readable(mark)
    assert pair[0].getsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT) == mark
    ceiling = int(Path("/proc/sys/net/ipv4/tcp_rmem").read_text().split()[2])
    room = pair[0].getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
    assert room >= min(ROOM_MARKS * mark, ceiling // 2)


async def test_the_kernel_tries_again_within_seconds(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    TcpStream(pair[0])
    try:
        pause = pair[0].getsockopt(socket.IPPROTO_TCP, TCP_RTO_MAX_MS)
    except OSError:
        pytest.skip("this kernel does not let it be chosen")
    assert pause == MAX_RETRY


async def test_nothing_there_is_none(pair: tuple[socket.socket, socket.socket]) -> None:
    assert TcpStream(pair[0]).receive_nowait(memoryview(bytearray(9))) is None


async def test_end_of_the_other_side_closes_the_link(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    stream = TcpStream(pair[0])
    pair[1].close()
    with trio.fail_after(5):
        await stream.wait_readable()
    with pytest.raises(LinkClosedError, match="the peer closed"):
        stream.receive_nowait(memoryview(bytearray(9)))


async def test_sending_into_a_broken_link(pair: tuple[socket.socket, socket.socket]) -> None:
    stream = TcpStream(pair[0])
    pair[1].close()

    async def send_on() -> None:
        while True:
            await stream.send_all(memoryview(bytes(100_000)))
            await trio.lowlevel.checkpoint()

    with trio.fail_after(5), pytest.raises(LinkClosedError):
        await send_on()


@pytest.mark.parametrize("at_least", [1, 1000])
async def test_closing_wakes_who_waits(
    pair: tuple[socket.socket, socket.socket], at_least: int
) -> None:
    stream = TcpStream(pair[0])
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:

            async def wait() -> None:
                with pytest.raises(LinkClosedError):
                    await stream.wait_readable(at_least)

            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            stream.close()
    stream.close()  # once more is fine
    with pytest.raises(LinkClosedError):
        await stream.wait_readable(at_least + 1)


async def test_waiting_for_many_bytes_ends_with_the_link(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    stream = TcpStream(pair[0])
    pair[1].send(b"few")
    pair[1].close()
    with trio.fail_after(5):
        await stream.wait_readable(1000)
    assert stream.receive_nowait(memoryview(bytearray(9))) == 3


async def test_waiting_bytes_are_counted(pair: tuple[socket.socket, socket.socket]) -> None:
    stream = TcpStream(pair[0])
    assert stream.waiting() == 0
    pair[1].send(b"seven b")
    with trio.fail_after(5):
        await stream.wait_readable()
    assert stream.waiting() == 7
    stream.close()
    assert stream.waiting() == 0


@pytest.mark.skipif(not hasattr(socket, "TCP_CONGESTION"), reason="Linux has a choice")
def test_no_pacing_within_a_host(pair: tuple[socket.socket, socket.socket]) -> None:
    TcpStream(pair[0])
    control = pair[0].getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16)
    assert control.rstrip(b"\0") == UNPACED
    one, other = socket.socketpair()  # no TCP at all: nothing to choose
    with one, other:
        assert not _within_host(one)
