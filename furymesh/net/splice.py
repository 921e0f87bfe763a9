"""Two connections made one: whatever comes on either goes out on the other.

Always true: a direction holds at most one buffer of bytes that it has read and not
yet handed on, and reads no more meanwhile, so a slow end slows down the other.
The end of one direction is passed on and leaves the other open.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import dataclass, field

import trio

from furymesh.net.throttle import Budget, take_turn, turn_size

BUFFER = 128 * 1024  # bytes a direction: a record of a link
HALF_LIFE = 30.0  # seconds after which bytes that were carried count half


@dataclass(slots=True)
class Carried:
    """What a splice carried so far."""

    last_at: float = field(default_factory=trio.current_time)  # or when it began
    _lately: float = 0.0  # as of then

    def add(self, size: int) -> None:
        """So many bytes came."""
        self._lately = self.lately() + size
        self.last_at = trio.current_time()

    def lately(self) -> float:
        """Bytes, of which each counts the less the longer ago it came."""
        return float(self._lately * 0.5 ** ((trio.current_time() - self.last_at) / HALF_LIFE))


async def splice(
    one: socket.socket,
    other: socket.socket,
    *,
    budgets: Sequence[Budget] = (),
    carried: Carried,
    idle: float,
    total: float,
) -> None:
    """Carry bytes both ways until both ends are done, and count them in `carried`.

    Ends after `idle` seconds without a byte and after `total` seconds. The sockets
    are closed when it returns.
    """
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


async def _carry(
    source: trio.socket.SocketType,
    sink: trio.socket.SocketType,
    budgets: Sequence[Budget],
    carried: Carried,
    whole: trio.CancelScope,
) -> None:
    buffer = memoryview(bytearray(BUFFER))
    try:
        while size := await source.recv_into(buffer[: turn_size(budgets) or BUFFER]):
            carried.add(size)
            await take_turn(budgets, size)
            sent = 0
            while sent < size:
                sent += await sink.send(buffer[sent:size])
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        whole.cancel()  # one end is gone; the other is told by its connection's end


async def _watch(carried: Carried, idle: float, whole: trio.CancelScope) -> None:
    while (left := carried.last_at + idle - trio.current_time()) > 0:
        await trio.sleep(left)
    whole.cancel()
