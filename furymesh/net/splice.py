"""Two connections made one: whatever comes on either goes out on the other.

Always true: a direction holds at most one buffer of bytes that it has read and not
yet handed on, and reads no more meanwhile, so a slow end slows down the other.
The end of one direction is passed on and leaves the other open.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import dataclass

import trio

from furymesh.net.throttle import Budget, take_turn, turn_size

BUFFER = 128 * 1024  # bytes a direction: a record of a link


@dataclass(slots=True)
class _Carried:
    bytes: int = 0
    last_at: float = 0.0


async def splice(
    one: socket.socket,
    other: socket.socket,
    *,
    budgets: Sequence[Budget] = (),
    idle: float,
    total: float,
) -> int:
    """Carry bytes both ways until both ends are done; the number of bytes carried.

    Ends after `idle` seconds without a byte and after `total` seconds. The sockets
    are closed when it returns.
    """
    carried = _Carried(last_at=trio.current_time())
    ends = [trio.socket.from_stdlib_socket(sock) for sock in (one, other)]
    try:
        with trio.move_on_after(total) as whole:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_watch, carried, idle, whole)
                async with trio.open_nursery() as both:
                    for source, sink in (ends, ends[::-1]):
                        both.start_soon(_carry, source, sink, budgets, carried, whole)
                nursery.cancel_scope.cancel()
    finally:
        for end in ends:
            end.close()
    return carried.bytes


async def _carry(
    source: trio.socket.SocketType,
    sink: trio.socket.SocketType,
    budgets: Sequence[Budget],
    carried: _Carried,
    whole: trio.CancelScope,
) -> None:
    buffer = memoryview(bytearray(BUFFER))
    try:
        while size := await source.recv_into(buffer[: turn_size(budgets) or BUFFER]):
            carried.bytes += size
            carried.last_at = trio.current_time()
            await take_turn(budgets, size)
            sent = 0
            while sent < size:
                sent += await sink.send(buffer[sent:size])
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        whole.cancel()  # one end is gone; the other is told by its connection's end


async def _watch(carried: _Carried, idle: float, whole: trio.CancelScope) -> None:
    while (left := carried.last_at + idle - trio.current_time()) > 0:
        await trio.sleep(left)
    whole.cancel()
