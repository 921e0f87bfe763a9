"""Fetching a manifest: the header first, then its pages from whoever has them.

Every byte is checked against the file id (the header) or the header (a page)
before it is used, so it does not matter whom it came from.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import trio

from furymesh.core.bitfield import chunks_of
from furymesh.core.errors import InvalidManifestError, ProtocolError
from furymesh.core.ids import FileId
from furymesh.core.manifest import Manifest
from furymesh.core.paths import safe_name
from furymesh.swarm.share import Member
from furymesh.wire import messages as m

ASK_AGAIN = 3.0  # seconds without an answer before another member is asked
PAGES_PER_MEMBER = 8  # asked of one member at a time: half a megabyte


@dataclass(slots=True)
class _Asked:
    member: Member
    at: float


class ManifestFetch:
    """What is known of a manifest so far, and whom to ask for the rest."""

    def __init__(self, file_id: FileId, manifest: Manifest | None) -> None:
        self.manifest = manifest
        self.name_hint = ""
        self.executable = False
        self.fresh_pages: list[int] = []  # arrived and not yet stored
        self.changed = trio.Event()
        self._file_id = file_id
        self._asked: dict[int, _Asked] = {}
        self._header_asked: dict[Member, float] = {}
        self._lacking: dict[Member, int] = {}  # pages a member does not hold
        self._silent: Counter[Member] = Counter()  # requests for pages it let lapse

    @property
    def missing(self) -> int:
        """The mask of pages still to come."""
        return self.manifest.missing_pages if self.manifest is not None else -1

    @property
    def table_complete(self) -> bool:
        return self.manifest is not None and self.manifest.table_complete

    # --- events -------------------------------------------------------------------

    def header(self, member: Member, message: m.ManifestHeader) -> None:
        """A header arrived; raises ProtocolError if it is not the one asked for."""
        if self.manifest is None:
            try:
                self.manifest = Manifest(message.header, self._file_id)
            except InvalidManifestError as error:
                raise ProtocolError(f"wrong manifest header: {error}") from None
            self.executable = message.executable
        elif message.header != self.manifest.header_bytes:
            raise ProtocolError("wrong manifest header: not the one of this file id")
        if not self.name_hint:
            self.name_hint = safe_name(message.name, "")
        self._signal()

    def page(self, member: Member, message: m.ManifestPage) -> None:
        """A page arrived, or word that the member lacks it; raises ProtocolError."""
        asked = self._asked.get(message.page)
        if asked is not None and asked.member is member:
            del self._asked[message.page]
        if self.manifest is None or not self.missing >> message.page & 1:
            return
        if not message.data:
            self._lacking[member] = self._lacking.get(member, 0) | 1 << message.page
            return
        try:
            self.manifest.add_page(message.page, message.data)
        except InvalidManifestError as error:
            raise ProtocolError(f"wrong manifest page: {error}") from None
        self.fresh_pages.append(message.page)
        self._signal()

    def left(self, member: Member) -> None:
        self._header_asked.pop(member, None)
        self._lacking.pop(member, None)
        self._silent.pop(member, None)
        for page in [page for page, asked in self._asked.items() if asked.member is member]:
            del self._asked[page]

    def ask(self, now: float, members: list[Member]) -> None:
        """Send the requests that are due to members."""
        if self.manifest is None:
            for member in members:
                if now - self._header_asked.get(member, -ASK_AGAIN) >= ASK_AGAIN:
                    self._header_asked[member] = now
                    _send(member, self._file_id, header=True, pages=())
            return
        if not self.missing or not members:
            return
        loads = dict.fromkeys(members, 0)
        for page, asked in list(self._asked.items()):
            if now - asked.at >= ASK_AGAIN:
                del self._asked[page]
                self._silent[asked.member] += 1
            elif asked.member in loads:
                loads[asked.member] += 1
        wanted: dict[Member, list[int]] = {}
        for page in chunks_of(self.missing):
            if page in self._asked:
                continue
            able = [
                member
                for member, load in loads.items()
                if load < PAGES_PER_MEMBER and not self._lacking.get(member, 0) >> page & 1
            ]
            if not able:
                continue
            member = min(able, key=lambda candidate: (self._silent[candidate], loads[candidate]))
            loads[member] += 1
            self._asked[page] = _Asked(member, now)
            wanted.setdefault(member, []).append(page)
            if min(loads.values()) >= PAGES_PER_MEMBER:
                break
        for member, pages in wanted.items():
            _send(member, self._file_id, header=False, pages=tuple(pages))

    def forgive(self) -> None:
        """Members may hold by now what they lacked before."""
        self._lacking.clear()

    def _signal(self) -> None:
        self.changed.set()
        self.changed = trio.Event()


def _send(member: Member, file_id: FileId, *, header: bool, pages: tuple[int, ...]) -> None:
    link = member.link
    link.send(m.GetManifest(link.session.number(file_id), header, pages))
