"""One share on this node and the peers it is live with.

A `Share` answers for what this node has: manifest, bitmap, chunks. While the
share is being downloaded a `Fetcher` is attached and is told of everything
that concerns fetching. The share never waits; the swarm's writers read chunks
when they have room for them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from furymesh.core.bitfield import chunks_of, from_bytes, mask_of, to_bytes
from furymesh.core.errors import FuryMeshError, ProtocolError, SourceChangedError
from furymesh.core.geometry import Geometry
from furymesh.core.ids import FileId
from furymesh.core.manifest import Manifest
from furymesh.net.secure_link import SecureLink
from furymesh.net.throttle import SHARED_CREDIT_SECONDS, Budget
from furymesh.swarm.member import ChunkSource, Early, Fetcher, Member
from furymesh.wire import codec
from furymesh.wire import messages as m

if TYPE_CHECKING:
    from furymesh.swarm.mirrors import Feed
    from furymesh.swarm.swarm import Swarm

HEADER = -1  # the part of a manifest before its first page


class Share:
    """One share, live with any number of members."""

    def __init__(
        self,
        swarm: Swarm,
        file_id: FileId,
        *,
        name: str = "",
        executable: bool = False,
        private: bool = False,
    ) -> None:
        self.swarm = swarm
        self.file_id = file_id
        self.name = name
        self.executable = executable
        self.private = private
        self.have = 0
        self.manifest: Manifest | None = None
        self.source: ChunkSource | None = None
        self.fetcher: Fetcher | None = None
        self.members: dict[SecureLink, Member] = {}
        self.mirrors: tuple[Feed, ...] = ()  # while it is fetched
        # What its chunks are held to, out and in.
        self.upload = Budget(credit=SHARED_CREDIT_SECONDS)
        self.download = Budget(credit=SHARED_CREDIT_SECONDS)

    @property
    def geometry(self) -> Geometry:
        assert self.manifest is not None
        return self.manifest.header.geometry

    @property
    def sources(self) -> int:
        """How many peers and mirrors it is connected with."""
        return len(self.members) + sum(mirror.connected for mirror in self.mirrors)

    def welcomes(self, link: SecureLink) -> bool:
        """Whether this share may be live with the other end of a link."""
        return self.fetcher is None or self.fetcher.welcomes(link)

    # --- what this node has -------------------------------------------------------

    def serve(self, manifest: Manifest, have: int, source: ChunkSource | None) -> None:
        """From now on answer for these chunks, read from `source`."""
        first = self.manifest is None
        self.withdraw(self.have & ~have)
        self.manifest = manifest
        self.have = have
        self.source = source
        uploads = self.swarm.uploads
        uploads.add_share(self.file_id, manifest.header.geometry.all_chunks, have)
        for member in list(self.members.values()):
            if first:
                uploads.peer_joined(self.file_id, member.link)
                self._settle(member)
            self._send_bitmap(member.link)

    def gained(self, chunks: list[int]) -> None:
        """Chunks were verified and stored: serve them, and tell everybody by and by."""
        for chunk in chunks:
            self.have |= 1 << chunk
            self.swarm.uploads.gained(self.file_id, chunk)
        for link in self.members:
            self.swarm.news.add(link, self.file_id, chunks)

    def announce(self) -> None:
        """Tell everybody now."""
        for link in self.members:
            self.swarm.news.tell(link)

    def withdraw(self, mask: int) -> None:
        """Chunks are here no more: tell everybody, drop what is queued of them."""
        mask &= self.have
        if not mask:
            return
        self.announce()  # what was gained earlier must not be heard of later
        self.have &= ~mask
        self.swarm.uploads.lost(self.file_id, mask)
        chunks = list(chunks_of(mask))
        for link in self.members:
            for start in range(0, len(chunks), codec.MAX_INDICES):
                part = tuple(chunks[start : start + codec.MAX_INDICES])
                link.send(m.Lost(self._number(link), part))

    def manifest_part(self, link: SecureLink, part: int) -> m.ManifestHeader | m.ManifestPage:
        """The answer to who asked for a page of the manifest, or for its HEADER."""
        manifest, number = self.manifest, self._number(link)
        if manifest is None:
            return m.ManifestPage(number, part, b"")  # not held
        if part == HEADER:
            # The name of a sealed share is for those who have its key.
            name = "" if manifest.header.sealed else self.name
            return m.ManifestHeader(number, manifest.header_bytes, name, self.executable)
        held = part < manifest.header.page_count and not manifest.missing_pages >> part & 1
        return m.ManifestPage(number, part, manifest.page(part) if held else b"")

    def unreadable(self, chunk: int, error: FuryMeshError) -> None:
        """A chunk could not be read: it is withdrawn, or all are if the content changed."""
        changed = isinstance(error, SourceChangedError)
        self.withdraw(self.have if changed else 1 << chunk)

    # --- members ------------------------------------------------------------------

    def live(self, link: SecureLink) -> None:
        """Both ends have joined: tell what we hold, and who else is here."""
        member = Member(link, self.swarm.number_of(link))
        self.members[link] = member
        if self.manifest is not None:
            self.swarm.uploads.peer_joined(self.file_id, link)
            self._send_bitmap(link)
        self.swarm.introduce(self, link)
        if self.fetcher is not None:
            self.fetcher.member_joined(member)

    def gone(self, link: SecureLink) -> None:
        """The link ended, or one end has left the share."""
        member = self.members.pop(link, None)
        if member is None:
            return
        self.swarm.news.drop(link, self.file_id)
        self.swarm.answers.drop(link, self)
        if self.manifest is not None:
            self.swarm.uploads.peer_left(self.file_id, link)
        if self.fetcher is not None:
            self.fetcher.member_left(member)

    # --- messages -----------------------------------------------------------------

    def message(self, link: SecureLink, message: m.ShareMessage) -> None:
        """A message about this share; raises ProtocolError to end the link."""
        member = self.members.get(link)
        if member is None:
            return  # we have left; what they said before they knew is void
        fetcher = self.fetcher
        match message:
            case m.Request():
                self._requested(member, message)
            case m.Have() | m.Bitmap() | m.Lost():
                self._announced(member, message)
            case m.Cancel():
                self._cancelled(member, message)
            case m.GetManifest():
                header = (HEADER,) if message.header and self.manifest is not None else ()
                self.swarm.answers.add(link, self, (*header, *message.pages))
            case m.Peers():
                self.swarm.learnt(self, link, message.peers)
            case m.Reject() if fetcher is not None:
                fetcher.rejected(member, message)
            case m.ManifestHeader() if fetcher is not None:
                fetcher.header(member, message)
            case m.ManifestPage() if fetcher is not None:
                fetcher.page(member, message)
            case _:
                pass  # an answer to what we no longer want

    def _requested(self, member: Member, message: m.Request) -> None:
        if self.manifest is None:
            raise ProtocolError("request before this end announced anything")
        self._checked(message.chunks)
        uploads = self.swarm.uploads
        now = self.swarm.now()
        for chunk in message.chunks:
            turned = uploads.request(now, self.file_id, member.link, chunk)
            if turned is None:
                continue
            if not turned.held:
                reason = m.Reason.NOT_HELD
            else:
                reason = m.Reason.BUSY if turned.full else m.Reason.ELSEWHERE
            number = self._number(member.link)
            member.link.send(m.Reject(number, (chunk,), reason, turned.suggest), answer=True)
        self.swarm.dispatch()

    def _cancelled(self, member: Member, message: m.Cancel) -> None:
        """Stop sending; a Reject tells that nothing more of these chunks will come."""
        if self.manifest is None:
            raise ProtocolError("cancel of what could not be requested")
        for chunk in message.chunks:
            if not self.swarm.uploads.cancel(self.file_id, member.link, chunk):
                self.swarm.abandon(member.link, self.file_id, chunk)
        number = self._number(member.link)
        member.link.send(m.Reject(number, message.chunks, m.Reason.DONE), answer=True)

    def _announced(self, member: Member, message: m.Bitmap | m.Have | m.Lost) -> None:
        if self.manifest is None:
            member.early.announced(message)
            return
        match message:
            case m.Bitmap():
                self._add(member, self._mask(message))
            case m.Have(_, chunks):
                self._add(member, self._checked(chunks))
            case m.Lost(_, chunks):
                self._remove(member, self._checked(chunks))

    def _settle(self, member: Member) -> None:
        """The geometry is known: what was announced before is checked, and counts."""
        early, member.early = member.early, Early()
        try:
            self._add(member, early.settle(self.geometry))
        except ProtocolError as error:
            # The task this runs in is not the link's: end that link, and nothing else.
            member.link.goodbye(m.Reason.PROTOCOL, str(error))

    # --- helpers ------------------------------------------------------------------

    def _add(self, member: Member, mask: int) -> None:
        member.have |= mask
        if self.manifest is not None:
            self.swarm.uploads.peer_has(self.file_id, member.link, mask)
        if self.fetcher is not None:
            self.fetcher.member_has(member, mask)

    def _remove(self, member: Member, mask: int) -> None:
        member.have &= ~mask
        if self.manifest is not None:
            self.swarm.uploads.peer_lost(self.file_id, member.link, mask)
        if self.fetcher is not None:
            self.fetcher.member_lost(member, mask)

    def _checked(self, chunks: tuple[int, ...]) -> int:
        """The mask of chunk indices from a peer, checked against the geometry."""
        if not chunks:
            return 0
        if self.manifest is None or max(chunks) >= self.geometry.chunk_count:
            raise ProtocolError("chunk index out of range")
        return mask_of(chunks)

    def _mask(self, message: m.Bitmap) -> int:
        if message.all:
            return self.geometry.all_chunks
        left = self.geometry.chunk_count - message.first
        count = min(left, len(message.bits) * 8)
        mask = from_bytes(message.bits, count) if count >= 0 else None
        if mask is None:
            raise ProtocolError("bitmap of wrong length, or with spare bits set")
        return mask << message.first

    def _send_bitmap(self, link: SecureLink) -> None:
        if not self.have:
            return
        number = self._number(link)
        if self.have == self.geometry.all_chunks:
            link.send(m.Bitmap(number, 0, b"", True))
            return
        raw = to_bytes(self.have, self.geometry.chunk_count)
        for first in range(0, len(raw), codec.MAX_BITMAP):
            link.send(m.Bitmap(number, first * 8, raw[first : first + codec.MAX_BITMAP], False))

    def _number(self, link: SecureLink) -> int:
        return link.session.number(self.file_id)
