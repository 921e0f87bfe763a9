"""Virtual time, and hosts joined by links of finite rate: everything a swarm feels of a network.

A host sends one packet of chunk bytes at a time, taking its links in turn, so
links share an uplink fairly; packets then wait for the receiver's downlink in
order of arrival. A link has at most a window of bytes on the way, as TCP does,
so a slow receiver holds back only its own link. Control messages take no
room, but none overtakes bytes of its link that were handed over before it.

Nothing here depends on anything but its arguments: same seed, same run.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from itertools import count
from typing import Any


class Clock:
    """Runs callbacks in order of time (seconds); ties in order of scheduling."""

    def __init__(self) -> None:
        self.now = 0.0
        self._queue: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._count = count()

    def at(self, when: float, call: Callable[..., None], *args: Any) -> None:
        heapq.heappush(self._queue, (when, next(self._count), call, args))

    def after(self, delay: float, call: Callable[..., None], *args: Any) -> None:
        heapq.heappush(self._queue, (self.now + delay, next(self._count), call, args))

    def run(self, done: Callable[[], bool], limit: float) -> None:
        """Until `done()`; raises TimeoutError when `limit` seconds have passed or all is quiet."""
        queue, pop = self._queue, heapq.heappop
        while not done():
            if not queue or queue[0][0] > limit:
                raise TimeoutError(f"not done after {self.now:.1f} s")
            self.now, _, call, args = pop(queue)
            call(*args)


class Host:
    """An uplink and a downlink, in bytes a second, and the links that share them."""

    def __init__(self, clock: Clock, up: float, down: float) -> None:
        self.clock = clock
        self.up = up
        self.down = down
        self.sent = 0  # bytes of chunks
        self.frozen = False  # takes nothing in and hands nothing over; the kernel still sends
        self._busy = False
        self._turns: deque[Link] = deque()  # links with something to send and room to send it
        self._down_free = 0.0
        self._held: deque[tuple[Link, Any, int]] = deque()

    def thaw(self) -> None:
        """Go on after having been frozen, with all that came meanwhile."""
        self.frozen = False
        while self._held:
            link, message, size = self._held.popleft()
            link.hand_over(message, size)

    def ready(self, link: Link) -> None:
        if not link.queued:
            link.queued = True
            self._turns.append(link)
            if not self._busy:
                self._send()

    def _send(self) -> None:
        while self._turns:
            link = self._turns.popleft()
            link.queued = False
            packet = link.next_packet()
            if packet is not None:
                self._busy = link.on_wire = True
                message, size = packet
                self.clock.after(size / self.up, self._sent, link, message, size)
                return

    def _sent(self, link: Link, message: Any, size: int) -> None:
        self._busy = link.on_wire = False
        self.sent += size
        self.clock.after(link.latency, link.receiver.arrive, link, message, size)
        if link.outbox:
            link.queued = True
            self._turns.append(link)
        if not self.frozen:
            link.on_room()
        if not self._busy:
            self._send()

    def arrive(self, link: Link, message: Any, size: int) -> None:
        now = self.clock.now
        start = now if now > self._down_free else self._down_free
        self._down_free = link.quiet_at = start + size / self.down
        self.clock.at(self._down_free, self.deliver, link, message, size)

    def deliver(self, link: Link, message: Any, size: int) -> None:
        if self.frozen:
            self._held.append((link, message, size))
        else:
            link.hand_over(message, size)


class Link:
    """One direction between two hosts; `latency` in seconds, `window` in bytes."""

    def __init__(
        self, clock: Clock, sender: Host, receiver: Host, latency: float, window: int
    ) -> None:
        self.clock = clock
        self.sender = sender
        self.receiver = receiver
        self.latency = latency
        self.window = window
        self.outbox: deque[tuple[Any, int]] = deque()
        self.unsent = 0  # bytes handed over and not yet on the wire
        self.queued = False
        self.quiet_at = 0.0  # when all that is in the receiver's queue is delivered
        self.closed = False
        self.on_wire = False  # a packet of it is being sent now
        self.on_message: Callable[[Any], None] = lambda message: None
        self.on_room: Callable[[], None] = lambda: None
        self._in_network = 0

    def send(self, message: Any, size: int = 0) -> None:
        """Hand over a control message, or `size` bytes of a chunk; None: its last ones follow."""
        if self.closed:
            return
        if not size and not self.outbox and not self.on_wire:
            self.clock.after(self.latency, self._control, message)
            return
        self.outbox.append((message, size))
        self.unsent += size
        if self._in_network < self.window:
            self.sender.ready(self)

    def next_packet(self) -> tuple[Any, int] | None:
        """Take the packet to send now; control messages on the way go out at once."""
        while self.outbox:
            message, size = self.outbox[0]
            if size and self._in_network and self._in_network + size > self.window:
                return None
            self.outbox.popleft()
            if size:
                self.unsent -= size
                self._in_network += size
                return message, size
            self.clock.after(self.latency, self._control, message)
        return None

    def _control(self, message: Any) -> None:
        if self.quiet_at > self.clock.now:
            self.clock.at(self.quiet_at, self.receiver.deliver, self, message, 0)
        elif self.receiver.frozen:
            self.receiver.deliver(self, message, 0)
        elif not self.closed:
            self.on_message(message)

    def hand_over(self, message: Any, size: int) -> None:
        """The receiver takes a message in."""
        if size:
            self._in_network -= size
            if self.outbox:
                self.sender.ready(self)
        if message is not None and not self.closed:
            self.on_message(message)
