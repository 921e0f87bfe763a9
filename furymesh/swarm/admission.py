"""Which links a node keeps: who is let in, who makes way, who is banned.

Always true:

* of two links to one process, a direct one stays rather than one through a relay;
  else the one dialled by the smaller (node id, instance), so both ends keep the
  same one; of two dialled from the same end the older; but none that is dead;
* one node, or one machine, cannot take the places of all others;
* a stranger, who has not proven that it knows any share, holds a place only until
  a newcomer wants it; some places are for nodes that proved it before, alone;
* what this node dials has a place before any link that it accepted, but for those
  that a download here fetches from;
* a banned node has no link, and no node at a banned address has.

Links and shares are the swarm's, and only read here: a link that must go is told
so, and the swarm lets go of it when it has ended.
"""

from __future__ import annotations

from collections.abc import Mapping

import trio

from furymesh.core.errors import LinkClosedError
from furymesh.core.ids import FileId, NodeId, Process
from furymesh.net.connect import Endpoint
from furymesh.net.handler import Shareless
from furymesh.net.secure_link import SecureLink
from furymesh.swarm.bans import Bans
from furymesh.swarm.share import Share
from furymesh.wire import messages as m

MAX_LINKS = 200  # more would only share the same uplink
MAX_PER_NODE = 4  # processes of one node at a time
MAX_PER_MACHINE = 32  # links accepted from one address, behind which many nodes may be
RESERVED = 8  # one place of so many is for known nodes: a flood of new ones leaves it free
MAX_KNOWN = 1024  # nodes remembered as known, the latest; five times what may be linked
PROBE_SECONDS = 2.0  # for an old link to show that it lives when the same peer dials again
REFUSAL_SECONDS = 1.0  # for a refused link to get the reason out


class Admission:
    """Decides over the links of a node."""

    def __init__(
        self,
        endpoint: Endpoint,
        links: Mapping[Process, SecureLink],
        shares: Mapping[FileId, Share],
        max_links: int,
    ) -> None:
        self.max_links = max_links
        self.dialling = 0  # links that may be added soon
        self.bans = Bans()
        self._endpoint = endpoint
        self._links = links
        self._shares = shares
        self._probed: set[Process] = set()
        self._known: dict[NodeId, None] = {}  # proved that they know a share, oldest first

    # --- new links ------------------------------------------------------------------

    async def refusal(self, link: SecureLink) -> m.Reason | None:
        """Why a new link must go; None if it may stay, and takes the place of an older one.

        Holds until the caller's next checkpoint.
        """
        me, them = self._endpoint.process, link.process
        if me == them:
            return m.Reason.DUPLICATE
        if self.is_banned(link):
            return m.Reason.FORBIDDEN
        other = self._links.get(them)
        if other is None:
            return self._full(link)
        if link.relayed is not other.relayed:
            better = other.relayed
        else:
            better = link.initiator != other.initiator and link.initiator == (me < them)
        if better:
            other.goodbye(m.Reason.DUPLICATE)
            return None
        # That there is a new one may mean that the old one is dead and does not know it.
        if them in self._probed or await self._lives(other, them):
            return m.Reason.DUPLICATE
        if self.is_banned(link):
            return m.Reason.FORBIDDEN
        now = self._links.get(them)
        if now is None:  # it ended by itself, and others may have come meanwhile
            return self._full(link)
        if now is not other:
            return m.Reason.DUPLICATE
        other.close(LinkClosedError("the peer was silent and has linked anew"))
        return None

    async def _lives(self, link: SecureLink, process: Process) -> bool:
        """Whether anything comes on a link within PROBE_SECONDS of asking for it."""
        asked_at = trio.current_time()
        deadline = asked_at + PROBE_SECONDS
        self._probed.add(process)
        try:
            link.send(m.Ping(0))
            while self._links.get(process) is link and trio.current_time() < deadline:
                await trio.sleep(PROBE_SECONDS / 40)
                if link.heard_at > asked_at:
                    return not link.leaving
            return False
        finally:
            self._probed.discard(process)

    # --- places ---------------------------------------------------------------------

    def _full(self, link: SecureLink) -> m.Reason | None:
        """BUSY if one more link is too many; what we dial always fits, up to a node's few."""
        if sum(node_id == link.node_id for node_id, _ in self._links) >= MAX_PER_NODE:
            return m.Reason.BUSY
        if link.initiator or self._make_way(link):
            return None
        return m.Reason.BUSY

    def _make_way(self, newcomer: SecureLink) -> bool:
        """Find a place for a link that was accepted; the oldest stranger may have to go."""
        staying = [other for other in self._links.values() if not other.leaving]
        machine = newcomer.machine
        accepted = [other for other in staying if not other.initiator]
        crowd = [other for other in accepted if machine and other.machine == machine]
        if len(crowd) < MAX_PER_MACHINE:
            reserved = 0 if self._is_known(newcomer) else self.max_links // RESERVED
            if len(staying) < self.max_links - reserved:
                return True
            crowd = accepted
        stranger = next(filter(self._is_stranger, crowd), None)
        if stranger is not None:
            stranger.close(LinkClosedError("its place was wanted, and no share is in common"))
        return stranger is not None

    def _is_stranger(self, link: SecureLink) -> bool:
        """Whether no share is live on a link."""
        return not any(link in share.members for share in self._shares.values())

    def _is_known(self, link: SecureLink) -> bool:
        return link.node_id in self._known or link.node_id in (self._endpoint.allow or ())

    def proved(self, link: SecureLink) -> None:
        """The node at the other end knows a share of ours."""
        self._known.pop(link.node_id, None)
        self._known[link.node_id] = None
        if len(self._known) > MAX_KNOWN:
            del self._known[next(iter(self._known))]

    def may_dial(self) -> bool:
        """Whether there is a place for one more dialled link, or a link that can give way."""
        taken = sum(not self._can_go(link) for link in self._links.values())
        return taken + self.dialling < self.max_links

    def make_room(self, link: SecureLink) -> bool:
        """Find a place for a link that was dialled; whoever came last may have to go.

        False if there is none, unless it takes the place of a link to the same process.
        """
        staying = [other for other in self._links.values() if not other.leaving]
        if len(staying) < self.max_links or link.process in self._links:
            return True
        spare = next(filter(self._can_go, reversed(staying)), None)
        if spare is not None:
            spare.goodbye(m.Reason.BUSY)
        return spare is not None

    def _can_go(self, link: SecureLink) -> bool:
        """Whether a link is one that was accepted and that no download here has a use for."""
        return not link.initiator and not any(
            share.fetcher is not None and link in share.members for share in self._shares.values()
        )

    # --- bans -----------------------------------------------------------------------

    def ban(self, link: SecureLink) -> None:
        """Let in no more links of the node at the other end.

        Nor of its address, if it is the second such node there: identities cost
        nothing. Loopback is spared, because it says nothing of who is behind it.
        """
        self.bans.add(link.node_id, link.machine)

    def is_banned(self, link: SecureLink) -> bool:
        """Whether the node at the other end is banned, or its address is."""
        return self.bans.holds(link.node_id, link.machine)


# --- links that are refused ---------------------------------------------------------


async def turn_away(link: SecureLink, reason: m.Reason) -> None:
    """Let the other end of a refused link know why; the caller closes it."""
    link.goodbye(reason)
    with trio.move_on_after(REFUSAL_SECONDS):
        await link.run(Shareless())
