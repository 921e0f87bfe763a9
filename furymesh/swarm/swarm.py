"""All links and shares of one node: who is connected, and who gets what next.

Always true:

* at most one link per remote process, and none that was not admitted;
* a share is live on a link exactly while the link is in ``share.members``, but
  for links that have said goodbye.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import count
from random import Random
from typing import cast

import trio

from furymesh.core.errors import (
    FuryMeshError,
    IllegalStateError,
    InternalError,
    ProtocolError,
)
from furymesh.core.ids import DiscoveryTag, FileId, Process, discovery_tag
from furymesh.core.uploads import Uploads
from furymesh.discovery.book import PeerBook, Source
from furymesh.discovery.source import Interests
from furymesh.net.connect import Endpoint
from furymesh.net.handler import Piece
from furymesh.net.secure_link import SecureLink
from furymesh.swarm import exchange
from furymesh.swarm.admission import MAX_LINKS, Admission, turn_away
from furymesh.swarm.answers import Answers
from furymesh.swarm.joining import Joining
from furymesh.swarm.member import Member
from furymesh.swarm.news import News
from furymesh.swarm.sending import ChunkPiece, Sending
from furymesh.swarm.share import Share
from furymesh.wire import messages as m

UNUSED_SECONDS = 10.0  # a link on which no share is live takes a place for nothing
WATCH_SECONDS = 1.0  # between two looks at which links are of use
PING_SECONDS = 10.0  # without an answer, after which another measurement may begin


class Swarm:
    """The links of a node and the shares it takes part in."""

    def __init__(self, endpoint: Endpoint, rng: Random, *, max_links: int = MAX_LINKS) -> None:
        self.endpoint = endpoint
        self.rng = rng
        self.uploads = Uploads(rng)
        self.shares: dict[FileId, Share] = {}
        self.links: dict[Process, SecureLink] = {}
        self.admission = Admission(endpoint, self.links, self.shares, max_links)
        self.book = PeerBook(rng, self.links)
        # Where peers of a share are looked for, besides, and what is wrong with that.
        self.looking: Callable[[FileId], tuple[Source, ...]] = lambda file_id: ()
        self.troubles: Callable[[], tuple[str, ...]] = tuple
        self.interests = Interests(0)  # in nothing private; whoever listens sets the port
        self.interests.peers = self._peers
        self.tags: dict[DiscoveryTag, FileId] = {}
        self.joining = Joining(self)
        self.news = News()
        self.answers = Answers()
        self._numbers: dict[SecureLink, int] = {}
        self._count = count(1)
        self._sending = Sending(self.uploads, self.shares)
        self._pinged: dict[SecureLink, tuple[int, float]] = {}

    @property
    def report(self) -> Callable[[str], None]:
        """Takes a line for the operator."""
        return self._sending.report

    @report.setter
    def report(self, report: Callable[[str], None]) -> None:
        self._sending.report = report

    def now(self) -> float:
        return trio.current_time()

    def number_of(self, link: SecureLink) -> int:
        return self._numbers[link]

    def new_number(self) -> int:
        """For the scheduler, unique in this process."""
        return next(self._count)

    # --- shares -------------------------------------------------------------------

    def add(self, share: Share) -> None:
        """Take part in a share; who asked for it before, and could prove it, is told now.

        Raises IllegalStateError if this node takes part in it already.
        """
        if share.file_id in self.shares:
            raise IllegalStateError("a share was added twice")
        self.shares[share.file_id] = share
        self.tags[discovery_tag(share.file_id)] = share.file_id
        self.advertise(share)
        self.joining.add(share)

    def remove(self, file_id: FileId, reason: m.Reason = m.Reason.DONE) -> None:
        """Leave a share on every link."""
        share = self.shares.pop(file_id)
        tag = discovery_tag(file_id)
        del self.tags[tag]
        self.interests.remove(tag)
        self.joining.remove(file_id)
        for link in self._numbers:  # those too that were replaced and have not ended yet
            if link.session.joined(file_id):
                link.send(link.session.leave(file_id, reason))
            share.gone(link)
        self.uploads.remove_share(file_id)
        for link in self._numbers:
            self._sending.leave(link, file_id)
        if share.source is not None:
            share.source.close()

    def advertise(self, share: Share) -> None:
        """Let sources of peers know what this node wants of a share, after a change of that."""
        tag = discovery_tag(share.file_id)
        if share.private:
            self.interests.remove(tag)
        else:
            self.interests.add(tag, wanted=share.fetcher is not None)

    def _peers(self, tag: DiscoveryTag) -> int:
        """With how many peers a share is live; who asks may not know yet that it has gone."""
        file_id = self.tags.get(tag)
        return len(self.shares[file_id].members) if file_id is not None else 0

    def close(self) -> None:
        """Leave every share, and close what they are read from."""
        for file_id in list(self.shares):
            self.remove(file_id)

    # --- links --------------------------------------------------------------------

    async def watch(self) -> None:
        """See, until cancelled, that links are worth their places and their slots."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._sending.watch)
            await self._watch_use()

    async def _watch_use(self) -> None:
        used_at: dict[SecureLink, float] = {}
        while True:
            await trio.sleep(WATCH_SECONDS)
            now, before = self.now(), used_at
            used_at = {}
            live = {link for share in self.shares.values() for link in share.members}
            for link in list(self.links.values()):
                used_at[link] = now if link in live else before.get(link, now)
                if now - used_at[link] > UNUSED_SECONDS:
                    link.goodbye(m.Reason.IDLE, "no share in common")

    async def run_link(self, link: SecureLink) -> None:
        """Serve a new link until it ends; at once if it is one too many."""
        try:
            refusal = await self.admission.refusal(link)
            if refusal is None:
                await self._run_link(link)
            else:
                await turn_away(link, refusal)
        finally:
            link.close()

    async def _run_link(self, link: SecureLink) -> None:
        key = link.process
        before = self.links.get(key)
        self.links[key] = link
        self._numbers[link] = self.new_number()
        self._sending.open(link)
        try:
            self.joining.open(link, before)
            await link.run(self)
        finally:
            if self.links.get(key) is link:
                del self.links[key]
            for share in self.shares.values():
                share.gone(link)
            self._sending.close(link)
            del self._numbers[link]
            self.joining.close(link)
            self._pinged.pop(link, None)
            if isinstance(link.closed_because, InternalError):
                self.report(str(link.closed_because))

    def quarantine(self, link: SecureLink) -> None:
        """A peer sent a bad chunk: end its links and make no more."""
        self.admission.ban(link)
        for other in list(self.links.values()):
            if self.admission.is_banned(other):
                other.goodbye(m.Reason.BAD_DATA)
                for share in self.shares.values():
                    share.gone(other)
                self._sending.leave_all(other)  # when nothing is queued for it any more

    def ping(self, link: SecureLink) -> None:
        """Measure a round trip unless a measurement is under way."""
        _, asked_at = self._pinged.get(link, (0, float("-inf")))
        if self.now() - asked_at > PING_SECONDS:
            nonce = self.rng.getrandbits(63) | 1
            self._pinged[link] = (nonce, self.now())
            link.send(m.Ping(nonce))

    # --- the link's handler -------------------------------------------------------

    def message(self, link: SecureLink, message: m.Message) -> None:
        if link.leaving:
            return
        match message:
            case m.Join():
                self.joining.joined(link, message)
            case m.Refuse():
                link.session.refused(message)
            case m.Ping():
                link.pong(message.nonce)
            case m.Pong():
                self._ponged(link, message)
            case m.Leave():
                self._left(link, message)
            case m.Hello() | m.Goodbye() | m.Unknown():
                pass
            case m.Rendezvous() | m.Introduction() | m.Reach() | m.Summons():
                pass  # what is said between a relay and others has links of its own
            case m.Answer() | m.Spliced():
                pass
            case _:
                # Folder sync is an error on these links.
                about = cast(m.ShareMessage, message)
                share = self.shares.get(link.session.share_of(about))
                if share is not None:
                    share.message(link, about)

    def sink(self, link: SecureLink, data: m.Data) -> memoryview | None:
        share = self.shares.get(link.session.share_of(data))
        member = share.members.get(link) if share is not None else None
        link.charge(share.download if share is not None else None)
        if share is not None and share.fetcher is not None and member is not None:
            return share.fetcher.sink(member, data)
        return self.discard(member, data)

    def discard(self, member: Member | None, data: m.Data) -> memoryview:
        """A place for bytes that are not wanted any more; ProtocolError if they never were."""
        memory = self.endpoint.buffers.discard[: data.length]
        if member is None:
            return memory  # we have left the share while they were on their way
        cancelled = member.cancelled.get(data.chunk)
        if cancelled is None or cancelled.left < data.length:
            raise ProtocolError("chunk bytes that nobody asked for")
        cancelled.left -= data.length
        return memory

    async def room(self, link: SecureLink, data: m.Data) -> None:
        share = self.shares.get(link.session.share_of(data))
        if share is not None and share.fetcher is not None:
            await share.fetcher.room()
        else:
            await trio.lowlevel.checkpoint()

    def filled(self, link: SecureLink, data: m.Data) -> None:
        share = self.shares.get(link.session.share_of(data))
        member = share.members.get(link) if share is not None else None
        if share is not None and share.fetcher is not None and member is not None:
            share.fetcher.filled(member, data)

    def departing(self, link: SecureLink) -> None:
        self.news.tell(link)

    def piece(self, link: SecureLink, room: int) -> ChunkPiece | None:
        if self.answers.send_one(link):
            return None  # nobody can ask for chunks without a manifest: it goes first
        for budget in self.endpoint.upload:
            room = min(room, budget.record or room)
        return self._sending.piece(link, room)

    def unreadable(self, link: SecureLink, piece: Piece, error: FuryMeshError) -> None:
        self._sending.unreadable(link, piece, error)

    def _left(self, link: SecureLink, message: m.Leave) -> None:
        file_id = link.session.left(message)
        share = self.shares.get(file_id)
        if share is None:
            return
        share.gone(link)
        self._sending.leave(link, file_id)
        if link.session.joined(file_id):
            link.send(link.session.leave(file_id, m.Reason.DONE))

    def _ponged(self, link: SecureLink, message: m.Pong) -> None:
        pinged = self._pinged.get(link)
        round_trip = None
        if pinged is not None and pinged[0] == message.nonce:
            del self._pinged[link]
            round_trip = self.now() - pinged[1]
        for share in self.shares.values():
            member = share.members.get(link)
            if member is not None and share.fetcher is not None:
                share.fetcher.spoke(member, round_trip)

    # --- what shares ask for ----------------------------------------------------------

    def dispatch(self) -> None:
        """Give free slots to the requests that deserve them."""
        self._sending.dispatch()

    def abandon(self, link: SecureLink, file_id: FileId, chunk: int) -> None:
        """Stop sending a chunk that the peer no longer wants."""
        self._sending.abandon(link, file_id, chunk)

    def introduce(self, share: Share, newcomer: SecureLink) -> None:
        """Tell a newcomer who else is here."""
        exchange.introduce(share, newcomer, self.rng)

    def learnt(self, share: Share, link: SecureLink, peers: Iterable[m.PeerAddress]) -> None:
        """A member told us of others."""
        exchange.learnt(share, link, peers, self.book)
