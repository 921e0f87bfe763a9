"""The connections whose handshake is not done yet, and which of them make way.

Always true: no more than MAX_HANDSHAKES are open, nor more than
MAX_HANDSHAKES_PER_HOST of one machine. One more takes the place of the oldest:
whoever means it is done in three round trips, and whoever dawdles has been here
longest. It is the oldest of the same machine if that is at its limit, else of
the machine that has the most, so that many idle ones do not push out a single
newcomer from elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import trio

from furymesh.net.addresses import same_machine

MAX_HANDSHAKES = 64  # strangers at once; each is a task and about a kilobyte
MAX_HANDSHAKES_PER_HOST = 16  # an IPv4 address or an IPv6 /64 cannot take all the places


class Strangers:
    """The places of one node."""

    def __init__(self) -> None:
        # By machine, those who came first first.
        self._places: dict[str, dict[trio.CancelScope, None]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._places.values()))

    @contextmanager
    def place(self, host: str) -> Iterator[None]:
        """Hold a place for the block, which is cancelled when a newcomer takes it."""
        machine = same_machine(host)
        self._make_room(machine)
        with trio.CancelScope() as scope:
            self._places.setdefault(machine, {})[scope] = None
            try:
                yield
            finally:
                self._leave(machine, scope)

    def _make_room(self, machine: str) -> None:
        if len(self._places.get(machine, ())) < MAX_HANDSHAKES_PER_HOST:
            if len(self) < MAX_HANDSHAKES:
                return
            machine = max(self._places, key=lambda name: len(self._places[name]))
        scope = next(iter(self._places[machine]))
        scope.cancel()
        self._leave(machine, scope)

    def _leave(self, machine: str, scope: trio.CancelScope) -> None:
        """Once: who was pushed out has left already."""
        places = self._places.get(machine, {})
        places.pop(scope, None)
        if not places:
            self._places.pop(machine, None)
