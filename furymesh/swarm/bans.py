"""Which nodes are banned, and which addresses because of them.

Always true: at most MAX_BANS nodes are banned, the latest; an address is banned
exactly while MAX_BANNED_HERE or more nodes are that sent bad chunks from there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

from furymesh.core.ids import NodeId
from furymesh.storage.bans import MAX_BANS, Ban

MAX_BANNED_HERE = 2  # nodes banned at one address before the address is


class Bans:
    """The bans of one process; `keep` is told of each new one."""

    def __init__(self) -> None:
        self.keep: Callable[[Ban], None] = lambda ban: None
        self._machines: dict[NodeId, str] = {}  # where from, oldest ban first
        self._here: Counter[str] = Counter()  # nodes banned, by machine

    @property
    def nodes(self) -> frozenset[NodeId]:
        return frozenset(self._machines)

    def restore(self, bans: Iterable[Ban]) -> None:
        """Take up the bans of earlier processes, oldest first."""
        for ban in bans:
            self._note(ban)

    def add(self, node_id: NodeId, machine: str) -> None:
        """Ban a node, and its address if it is the second there.

        `machine` stands for the address, see `same_machine`; it is empty where
        an address says nothing of who is behind it.
        """
        ban = Ban(node_id, machine)
        self._note(ban)
        self.keep(ban)

    def holds(self, node_id: NodeId, machine: str = "") -> bool:
        """Whether this node is banned, or this address."""
        return node_id in self._machines or self._here[machine] >= MAX_BANNED_HERE

    def _note(self, ban: Ban) -> None:
        self._forget(ban.node_id)
        self._machines[ban.node_id] = ban.machine
        if ban.machine:
            self._here[ban.machine] += 1
        if len(self._machines) > MAX_BANS:
            self._forget(next(iter(self._machines)))

    def _forget(self, node_id: NodeId) -> None:
        machine = self._machines.pop(node_id, "")
        if machine:
            self._here[machine] -= 1
            if not self._here[machine]:
                del self._here[machine]
