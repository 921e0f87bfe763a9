"""Fetching a manifest: the header first, then its pages from whoever has them.

Every byte is checked against the file id (the header) or the header (a page)
before it is used, so it does not matter whom it came from.

`ManifestFetch` decides what to ask of whom; `ManifestFetcher` is what a share
has for a fetcher while that is all there is to do.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import trio

from furymesh.core.bitfield import chunks_of
from furymesh.core.errors import InvalidManifestError, ProtocolError
from furymesh.core.ids import FileId, NodeId
from furymesh.core.manifest import Manifest
from furymesh.core.paths import safe_name
from furymesh.core.scheduler import TICK
from furymesh.net.secure_link import SecureLink
from furymesh.net.tasks import open_tasks
from furymesh.swarm.dialling import Dialler
from furymesh.swarm.member import Member
from furymesh.swarm.progress import IdleClock
from furymesh.swarm.share import Share
from furymesh.wire import messages as m

ASK_AGAIN = 3.0  # seconds without an answer before another member is asked
FORGIVE_SECONDS = 5.0  # after which members are asked again for pages they lacked
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

    def header(self, member: Member, message: m.ManifestHeader) -> bool:
        """A header arrived; tells whether it was news.

        Raises ProtocolError if it is not the one asked for.
        """
        news = self.manifest is None
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
        if news:
            self._signal()
        return news

    def page(self, member: Member, message: m.ManifestPage) -> bool:
        """A page arrived, or word that the member lacks it; tells whether it was news.

        Raises ProtocolError if it is not the page it claims to be.
        """
        asked = self._asked.get(message.page)
        if asked is not None and asked.member is member:
            del self._asked[message.page]
        if self.manifest is None or not self.missing >> message.page & 1:
            return False
        if not message.data:
            self._lacking[member] = self._lacking.get(member, 0) | 1 << message.page
            return False
        try:
            self.manifest.add_page(message.page, message.data)
        except InvalidManifestError as error:
            raise ProtocolError(f"wrong manifest page: {error}") from None
        self.fresh_pages.append(message.page)
        self._signal()
        return True

    def found(self, manifest: Manifest) -> None:
        """The whole manifest was come by otherwise, before any peer sent its header."""
        self.manifest = manifest
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


class ManifestFetcher:
    """The fetcher of a share whose chunks cannot be asked for yet."""

    def __init__(
        self,
        share: Share,
        metadata: ManifestFetch,
        clock: IdleClock,
        only_nodes: frozenset[NodeId] = frozenset(),
    ) -> None:
        self.share = share
        self.metadata = metadata
        self._clock = clock
        self._only_nodes = only_nodes  # empty: everybody
        self._swarm = share.swarm

    async def keep_asking(self) -> None:
        """Ask for what is missing of the manifest until it is complete."""
        metadata = self.metadata
        forgiven = self._swarm.now()
        while metadata.missing:
            now = self._swarm.now()
            metadata.ask(now, list(self.share.members.values()))
            if now - forgiven >= FORGIVE_SECONDS:
                forgiven = now
                metadata.forgive()
            await trio.sleep(TICK)

    # --- what the share tells -------------------------------------------------------

    def welcomes(self, link: SecureLink) -> bool:
        return not self._only_nodes or link.node_id in self._only_nodes

    def member_joined(self, member: Member) -> None:
        self._swarm.ping(member.link)
        self.metadata.ask(self._swarm.now(), [member])

    def member_left(self, member: Member) -> None:
        self.metadata.left(member)

    def header(self, member: Member, message: m.ManifestHeader) -> None:
        if self.metadata.header(member, message):
            self._clock.useful()
        self.metadata.ask(self._swarm.now(), list(self.share.members.values()))

    def page(self, member: Member, message: m.ManifestPage) -> None:
        if self.metadata.page(member, message):
            self._clock.useful()

    # Chunks do not concern it: what members hold they told the share, and it
    # has asked nobody for anything.

    def member_has(self, member: Member, mask: int) -> None:
        pass

    def member_lost(self, member: Member, mask: int) -> None:
        pass

    def rejected(self, member: Member, message: m.Reject) -> None:
        pass

    def spoke(self, member: Member, round_trip: float | None) -> None:
        pass

    def sink(self, member: Member, data: m.Data) -> memoryview | None:
        return self._swarm.discard(member, data)

    async def room(self) -> None:
        await trio.lowlevel.checkpoint()

    def filled(self, member: Member, data: m.Data) -> None:
        pass


async def fetch_manifest(
    fetcher: ManifestFetcher,
    dialler: Dialler,
    links: trio.Nursery,
    *,
    timeout: float,
) -> Manifest:
    """Only a manifest, with all its pages, and nothing on this disk.

    Links that are dialled run in `links`. Raises UnavailableError after
    `timeout` seconds without anything new.
    """
    share, metadata = fetcher.share, fetcher.metadata
    share.fetcher = fetcher
    share.swarm.add(share)
    try:
        async with open_tasks() as nursery:
            nursery.start_soon(dialler.run, links)
            nursery.start_soon(dialler.give_up_when_idle, timeout)
            nursery.start_soon(fetcher.keep_asking)
            while metadata.missing:
                await metadata.changed.wait()
            nursery.cancel_scope.cancel()
    finally:
        share.swarm.remove(share.file_id)
    assert metadata.manifest is not None
    return metadata.manifest
