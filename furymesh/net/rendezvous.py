"""Who can be reached through a relay, and who is told of whom there.

Always true: only a node whose rendezvous link lives is here, and no machine has more
places, tags or introductions than the limits below give it, whatever it calls its nodes.
Where an address tells nothing of a machine, each node counts as one.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from random import Random

import trio

from furymesh.core.errors import LinkClosedError
from furymesh.core.gate import Gate
from furymesh.core.ids import Process
from furymesh.net.addresses import packed_ip
from furymesh.net.handler import Shareless
from furymesh.net.secure_link import SecureLink
from furymesh.wire import messages as m

MAX_HOSTED = 1000  # rendezvous links: each a socket, some tasks and its tags
MAX_HOSTED_PER_NODE = 4  # processes of one node
MAX_HOSTED_PER_MACHINE = 64  # behind one address may be a whole company
MAX_TAGGED = 64 * 1024  # tags of all of them: half a kilobyte each
MAX_TAGGED_PER_MACHINE = 4096  # 64 for each of as many nodes; a sixteenth of all
# Rendezvous messages a second, twice as many at once: each may take a millisecond. A full
# house names its tags once a minute, and after a restart of the relay all at once.
NAMED_BY_ONE = 32
NAMED = 128
# Others that it is told of for that, and they of it: each takes some 30 microseconds.
INTRODUCED_TO_ONE = 250
INTRODUCED = 2000
INTRODUCTIONS = 30  # for one tag at a time: enough for the links that a node needs


@dataclass(slots=True, eq=False)
class Hosted(Shareless):
    """A node with a rendezvous link, and the handler of that link."""

    rendezvous: Rendezvous
    link: SecureLink
    party: str  # of the link
    tags: frozenset[bytes] = frozenset()

    def message(self, link: SecureLink, message: m.Message) -> None:
        match message:
            case m.Ping():
                link.pong(message.nonce)
            case m.Rendezvous():
                self.rendezvous.named(self, message.tags)


class Rendezvous:
    """The rendezvous links of a relay."""

    def __init__(self, rng: Random, max_hosted: int = MAX_HOSTED) -> None:
        self._rng = rng
        self._max_hosted = max_hosted
        self._hosted: dict[Process, Hosted] = {}
        self._tagged: dict[bytes, dict[Hosted, None]] = {}
        self._naming = Gate(NAMED_BY_ONE, NAMED)
        self._introducing = Gate(INTRODUCED_TO_ONE, INTRODUCED)

    def __len__(self) -> int:
        return len(self._hosted)

    def link_to(self, process: Process) -> SecureLink | None:
        """The rendezvous link of a process; None if it is not here."""
        hosted = self._hosted.get(process)
        return hosted.link if hosted else None

    # --- coming and going -------------------------------------------------------------

    def enter(self, link: SecureLink) -> Hosted | None:
        """Give a link a place, that of an earlier link of the same process if there is one.

        None if there is no place for it.
        """
        hosted = Hosted(self, link, link.party)
        before = self._hosted.get(link.process)
        if before is None and not self._has_place(hosted):
            return None
        if before is not None:
            before.link.close(LinkClosedError("the same process has linked anew"))
            self.leave(before)
        self._hosted[link.process] = hosted
        return hosted

    def leave(self, hosted: Hosted) -> None:
        """Its link has ended."""
        self._retag(hosted, frozenset())
        if self._hosted.get(hosted.link.process) is hosted:
            del self._hosted[hosted.link.process]

    def _has_place(self, newcomer: Hosted) -> bool:
        """Whether there is a place for a link; a full house makes way for who has fewer."""
        of_node = sum(node_id == newcomer.link.node_id for node_id, _ in self._hosted)
        held = Counter(hosted.party for hosted in self._hosted.values())
        if of_node >= MAX_HOSTED_PER_NODE or held[newcomer.party] >= MAX_HOSTED_PER_MACHINE:
            return False
        if len(self._hosted) < self._max_hosted:
            return True
        [(party, most)] = held.most_common(1)
        if most <= held[newcomer.party] + 1:
            return False
        latest = next(h for h in reversed(self._hosted.values()) if h.party == party)
        latest.link.goodbye(m.Reason.BUSY, "its place was wanted")
        self.leave(latest)
        return True

    # --- tags -------------------------------------------------------------------------

    def named(self, hosted: Hosted, named: tuple[bytes, ...]) -> None:
        """A node takes part in these shares now: introduce it to others that do, and them to it."""
        if self._hosted.get(hosted.link.process) is not hosted:
            return  # another link of the same process has taken its place
        now = trio.current_time()
        if not self._naming.admits(hosted.party, now):
            hosted.link.goodbye(m.Reason.BUSY, "too many Rendezvous messages")
            return
        kept = sorted(set(named), key=lambda tag: tag not in hosted.tags)
        tags = frozenset(kept[: self._room(hosted)])
        fresh = tags - hosted.tags
        self._retag(hosted, tags)
        for tag in sorted(tags, key=lambda tag: (tag not in fresh, self._rng.random())):
            others = [other for other in self._tagged[tag] if other is not hosted]
            for other in self._rng.sample(others, min(len(others), INTRODUCTIONS)):
                if not self._introducing.admits(hosted.party, now):
                    return
                hosted.link.send(_introduction(tag, other.link), answer=True)
                if tag in fresh:
                    other.link.send(_introduction(tag, hosted.link))

    def _room(self, hosted: Hosted) -> int:
        """How many tags it may have."""
        others = [other for other in self._hosted.values() if other is not hosted]
        mates = [other for other in others if other.party == hosted.party]
        left = MAX_TAGGED - sum(len(other.tags) for other in others)
        return max(min(left, MAX_TAGGED_PER_MACHINE - sum(len(mate.tags) for mate in mates)), 0)

    def _retag(self, hosted: Hosted, tags: frozenset[bytes]) -> None:
        for tag in hosted.tags - tags:
            del self._tagged[tag][hosted]
            if not self._tagged[tag]:
                del self._tagged[tag]
        for tag in tags - hosted.tags:
            self._tagged.setdefault(tag, {})[hosted] = None
        hosted.tags = tags


def _introduction(tag: bytes, link: SecureLink) -> m.Introduction:
    """The process at the other end of a rendezvous link, as others may find it."""
    host, port = link.remote
    return m.Introduction(tag, link.node_id, link.instance, packed_ip(host), port)
