"""What peers ask of manifests, answered no faster than their links take it.

Always true: of all that a link was asked for at most one answer is in memory; the
rest are numbers, no more than MAX_ASKED of them.
"""

from __future__ import annotations

from collections.abc import Iterable

from furymesh.net.secure_link import SecureLink
from furymesh.swarm.share import Share

# On one link. A peer asks for eight pages at a time, of each share that it fetches,
# and again for what does not come: more is forgotten.
MAX_ASKED = 128


class Answers:
    """Parts of manifests that are still to be sent, by link."""

    def __init__(self) -> None:
        self._asked: dict[SecureLink, dict[tuple[Share, int], None]] = {}

    def add(self, link: SecureLink, share: Share, parts: Iterable[int]) -> None:
        """Have `send_one` answer for the header or pages; twice asked is once answered."""
        asked = self._asked.setdefault(link, {})
        for part in parts:
            if len(asked) < MAX_ASKED:
                asked[share, part] = None
        link.poke()

    def send_one(self, link: SecureLink) -> bool:
        """Queue one answer, the oldest; False if none is wanted."""
        asked = self._asked.get(link)
        if not asked:
            return False
        share, part = next(iter(asked))
        del asked[share, part]
        link.send(share.manifest_part(link, part))
        return True

    def drop(self, link: SecureLink, share: Share) -> None:
        """The link is no member of the share any more."""
        left = {key: None for key in self._asked.pop(link, {}) if key[0] is not share}
        if left:
            self._asked[link] = left
