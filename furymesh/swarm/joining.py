"""Which shares are spoken of on which link: whom this node asks, whom it answers.

Always true: the tag of a share is told to those alone who proved that they know it,
or whom the address book names for it. So a stranger that dials learns nothing, and
those that this node dials for one share learn of no other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from furymesh.core.errors import ProtocolError
from furymesh.core.ids import ID_SIZE, DiscoveryTag, FileId
from furymesh.net.secure_link import SecureLink
from furymesh.swarm.share import Share
from furymesh.wire import messages as m

if TYPE_CHECKING:
    from furymesh.swarm.swarm import Swarm

MAX_REFUSALS = 256  # joins for unknown shares on one link; then it is guessing, not asking


class Joining:
    """The joins of a node's links."""

    def __init__(self, swarm: Swarm) -> None:
        self._swarm = swarm
        self._decoy = FileId(bytes(ID_SIZE))  # stands in for a share that is not here
        self._asked: dict[SecureLink, set[FileId]] = {}
        self._refused: dict[SecureLink, list[m.Join]] = {}

    # --- links and shares come and go -------------------------------------------------

    def open(self, link: SecureLink, before: SecureLink | None) -> None:
        """A link was admitted, in place of another one to the same process if there was one."""
        self._asked[link] = set()
        for share in self._swarm.shares.values():
            named = self._swarm.book.processes(share.file_id)
            if before in share.members or link.process in named:
                self._ask(link, share)

    def close(self, link: SecureLink) -> None:
        """A link has ended."""
        del self._asked[link]
        self._refused.pop(link, None)

    def add(self, share: Share) -> None:
        """A share is here now: who asked for it before, and could prove it, is told."""
        for link, refused in self._refused.items():
            if link.leaving:
                continue
            asked = any(link.session.proves(join, share.file_id) for join in refused)
            if asked and share.welcomes(link):
                self.join(link, share)

    def remove(self, file_id: FileId) -> None:
        """A share is here no more."""
        for asked in self._asked.values():
            asked.discard(file_id)

    # --- asking -----------------------------------------------------------------------

    def ask(self, share: Share) -> None:
        """Join a share that is wanted with all who are linked and named for it, once each."""
        named = self._swarm.book.processes(share.file_id)
        for process, link in self._swarm.links.items():
            if process in named:
                self._ask(link, share)

    def _ask(self, link: SecureLink, share: Share) -> None:
        asked = self._asked[link]
        if share.fetcher and share.fetcher.welcomes(link) and share.file_id not in asked:
            asked.add(share.file_id)
            self.join(link, share)

    def join(self, link: SecureLink, share: Share) -> None:
        """Ask the other end whether it takes part in a share, unless that is asked."""
        if not link.session.joined(share.file_id):
            link.send(link.session.join(share.file_id))
            if link.session.live(share.file_id):
                share.live(link)

    # --- answering --------------------------------------------------------------------

    def joined(self, link: SecureLink, join: m.Join) -> None:
        """The other end asks."""
        # A proof is computed for every join: the time until the answer tells nothing.
        file_id = self._swarm.tags.get(DiscoveryTag(join.tag), self._decoy)
        proven = link.session.proves(join, file_id)
        share = self._swarm.shares.get(file_id)
        if share is None or not proven:
            # One answer for unknown and unproven: it tells nothing either.
            refused = self._refused.setdefault(link, [])
            if len(refused) >= MAX_REFUSALS:
                raise ProtocolError("too many joins for shares that are not here")
            refused.append(join)
            link.send(m.Refuse(join.share, m.Reason.NOT_FOUND))
            return
        link.session.accept(join, share.file_id)
        self._swarm.admission.proved(link)
        if link.session.joined(share.file_id):
            share.live(link)
        elif share.welcomes(link):
            self.join(link, share)
