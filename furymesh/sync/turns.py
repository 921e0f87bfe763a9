"""Whose turn it is at a server: first come, first served.

Always true: no more than `sessions` hold a turn; the others wait in the order in
which they came, and everybody's place is known; who leaves, for whatever reason,
makes room in that moment. Decides only; whoever calls tells the clients.
"""

from __future__ import annotations

from typing import Generic, TypeVar

T = TypeVar("T")


class Turns(Generic[T]):
    """Places of those who were let in. What they are is the caller's business."""

    def __init__(self, sessions: int) -> None:
        self._sessions = sessions
        self._order: list[T] = []  # those that have a turn come first

    def __len__(self) -> int:
        return len(self._order)

    @property
    def has_queue(self) -> bool:
        """Whether somebody waits."""
        return len(self) > self._sessions

    def place(self, who: T) -> int:
        """0 for a turn, else how many turns must end before it comes, 1 for next."""
        return max(self._order.index(who) - self._sessions + 1, 0)

    def enter(self, who: T) -> int:
        """Come last; returns the place."""
        self._order.append(who)
        return self.place(who)

    def replace(self, before: T, now: T) -> int:
        """Take the place of another, which is gone; returns it."""
        self._order[self._order.index(before)] = now
        return self.place(now)

    def leave(self, who: T) -> list[T]:
        """Go; returns those whose place has changed by it. Nothing if already gone."""
        if who not in self._order:
            return []
        at = self._order.index(who)
        del self._order[at]
        return self._order[max(at, self._sessions - 1) :]
