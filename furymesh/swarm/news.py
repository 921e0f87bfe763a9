"""What members are still to be told: the chunks stored since the last word to them.

A message of its own costs both ends a wake-up, which in a swarm adds up to more
than the chunks cost. So news travels with whatever else goes to the same link,
and alone only when that has not happened for a while.
"""

from __future__ import annotations

from furymesh.core.ids import FileId
from furymesh.net.secure_link import SecureLink
from furymesh.wire import codec
from furymesh.wire import messages as m


class News:
    """New chunks by link and share, until they are told."""

    def __init__(self) -> None:
        self._untold: dict[SecureLink, dict[FileId, list[int]]] = {}

    def add(self, link: SecureLink, file_id: FileId, chunks: list[int]) -> None:
        """Have `tell` mention these chunks to a member of their share."""
        self._untold.setdefault(link, {}).setdefault(file_id, []).extend(chunks)

    def tell(self, link: SecureLink) -> None:
        """Queue what the other end of a link does not know yet."""
        for file_id, chunks in self._untold.pop(link, {}).items():
            number = link.session.number(file_id)
            for start in range(0, len(chunks), codec.MAX_INDICES):
                link.send(m.Have(number, tuple(chunks[start : start + codec.MAX_INDICES])))

    def drop(self, link: SecureLink, file_id: FileId) -> None:
        """The link is no member of the share any more."""
        untold = self._untold.get(link)
        if untold is not None and untold.pop(file_id, None) is not None and not untold:
            del self._untold[link]
