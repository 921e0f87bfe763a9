"""One download: from a file id to a verified file under its final name.

The stages are methods, in order: `_take_stock` (manifest, part, what is
already there), `_transfer` (until every chunk is on disk), `_finish` (re-read
and verify everything, publish). Meanwhile small tasks dial peers, let the
scheduler look at the clock, announce new chunks, sync and report. Decisions
are the scheduler's; this module carries them out.
"""

from __future__ import annotations

import shutil
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import trio

from furymesh.core.bitfield import chunks_of
from furymesh.core.errors import (
    DiskFullError,
    FuryMeshError,
    UnavailableError,
    VerificationError,
)
from furymesh.core.geometry import Geometry
from furymesh.core.ids import NodeId, node_id_text
from furymesh.core.link import Address
from furymesh.core.manifest import Manifest
from furymesh.core.scheduler import TICK, Action, Cancel, Request, Scheduler
from furymesh.discovery.book import Candidate, Source
from furymesh.net.secure_link import SecureLink
from furymesh.net.tasks import open_tasks
from furymesh.storage.check import Check, sha256_of_file
from furymesh.storage.content import Content
from furymesh.swarm.arrivals import Arrivals, Outcome, Verdict
from furymesh.swarm.events import (
    Attempt,
    Checking,
    Event,
    Note,
    PeerContribution,
    Progress,
    Result,
    Started,
    Waiting,
)
from furymesh.swarm.metadata import ManifestFetch
from furymesh.swarm.share import Member, Share
from furymesh.swarm.swarm import Swarm
from furymesh.swarm.workspace import Order, Settings, Workspace
from furymesh.wire import messages as m

DEGREE = 10  # links this end dials for a download; more add overhead, not speed
DIALS_AT_ONCE = 5
HAVE_SECONDS = 0.01  # new chunks are announced together after this pause
SYNC_SECONDS = 1.0
SYNC_BYTES = 64 * 1024 * 1024
REPORT_SECONDS = 1.0
CHECK_REPORT_SECONDS = 0.25
WAITING_SECONDS = 3.0  # between two words about having no peer
PING_SECONDS = 0.5  # while a peer owes us bytes
RATE_SECONDS = 5.0  # the rate shown is the mean over this
DISK_POLL_SECONDS = 1.0  # while the disk is full
# Before an address is dialled again behind which is a process that we are
# linked to already, or one that refuses us.
UNWANTED_SECONDS = 60.0
DEFAULT_TIMEOUT = 60.0
MAX_KEPT_PEERS = 64  # addresses in resume data: enough to find the swarm again
MAX_REPAIRS = 3  # passes over a disk that keeps giving back other bytes than it was given


@dataclass(frozen=True, slots=True)
class Terms:
    """How long and with whom; `timeout` in seconds without a useful byte."""

    timeout: float = DEFAULT_TIMEOUT
    only_nodes: frozenset[NodeId] = frozenset()
    sha256: str | None = None


@dataclass(slots=True)
class _Counters:
    fetched: int = 0
    reused: int = 0
    wasted: int = 0
    samples: deque[tuple[float, int]] = field(default_factory=deque)


class Download:
    """A share on its way in. `run` it once."""

    def __init__(
        self,
        swarm: Swarm,
        order: Order,
        settings: Settings,
        terms: Terms,
        *,
        on_event: Callable[[Event], None],
    ) -> None:
        self.share = Share(swarm, order.file_id, name=order.name or "")
        self.chunks_done = 0
        self._swarm = swarm
        self._order = order
        self._settings = settings
        self._terms = terms
        self._on_event = on_event
        self._workspace = Workspace(order, settings)
        self._counters = _Counters()
        self._contributions: dict[tuple[NodeId, str], list[int]] = {}
        self._fresh: list[int] = []
        self._announce = trio.Event()
        self._settled = trio.Event()
        self._failure: FuryMeshError | None = None
        self._paused = False
        self._useful_at = swarm.now()
        self._started_at = swarm.now()
        self._dialling = 0
        self._dialled: set[SecureLink] = set()
        self._scheduler: Scheduler | None = None
        self._arrivals: Arrivals | None = None
        self._unsynced = 0
        self._helpers: trio.Nursery | None = None
        self._metadata: ManifestFetch
        self._helped: dict[tuple[str, int], Address] = {}

    @property
    def key(self) -> bytes | None:
        """The content key, from the link or from resume data."""
        return self._workspace.key

    # --- the stages -----------------------------------------------------------------

    async def run(self, links: trio.Nursery) -> Result:
        """Download, verify and publish; links that are dialled run in `links`.

        When it returns the share stays with the swarm and serves the published
        file; on an error it is withdrawn. Raises FuryMeshError of every kind.
        """
        workspace = self._workspace
        await trio.to_thread.run_sync(workspace.lock)
        try:
            await trio.to_thread.run_sync(workspace.recall)
            self._tell_notes()
            self._metadata = ManifestFetch(self._order.file_id, workspace.manifest)
            for text in workspace.known_peers:
                self._swarm.book.add(self._order.file_id, Address.parse(text), Source.RESUME)
            self.share.fetcher = self
            self._swarm.add(self.share)
            try:
                return await self._run(links)
            except BaseException:
                self._swarm.remove(self._order.file_id)
                raise
            finally:
                self._swarm.book.forget(self._order.file_id)
        finally:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(workspace.close)

    async def fetch_manifest(self, links: trio.Nursery) -> Manifest:
        """Only the manifest, with all its pages, and nothing on this disk."""
        self._metadata = ManifestFetch(self._order.file_id, None)
        self.share.fetcher = self
        self._swarm.add(self.share)
        try:
            async with open_tasks() as nursery:
                nursery.start_soon(self._dial_peers, links)
                nursery.start_soon(self._watch_metadata)
                nursery.start_soon(self._watch_time)
                while self._metadata.missing:
                    await self._metadata.changed.wait()
                nursery.cancel_scope.cancel()
        finally:
            self._swarm.remove(self._order.file_id)
        assert self._metadata.manifest is not None
        return self._metadata.manifest

    async def _run(self, links: trio.Nursery) -> Result:
        for link in list(self._swarm.links.values()):
            if self.welcomes(link):
                self._swarm.join(link, self.share)
        async with open_tasks() as nursery:
            self._helpers = nursery
            nursery.start_soon(self._dial_peers, links)
            nursery.start_soon(self._watch_metadata)
            nursery.start_soon(self._watch_time)
            await self._take_stock()
            nursery.start_soon(self._arrived.run)
            nursery.start_soon(self._announcing)
            nursery.start_soon(self._syncing)
            nursery.start_soon(self._reporting)
            await self._transfer()
            await self._store_pages()
            nursery.cancel_scope.cancel()
        return await self._publish()

    async def _take_stock(self) -> None:
        """Until the manifest is known and the local part is opened and trusted."""
        metadata, workspace = self._metadata, self._workspace
        while not metadata.table_complete:
            await metadata.changed.wait()
        manifest = metadata.manifest
        assert manifest is not None
        workspace.executable = workspace.executable or metadata.executable
        await trio.to_thread.run_sync(workspace.remember_header, manifest)
        good, doubtful = await trio.to_thread.run_sync(
            workspace.open, metadata.name_hint, self._worth_keeping()
        )
        self._tell_notes()
        if doubtful:
            while metadata.missing:
                await metadata.changed.wait()
            check = Check(manifest, doubtful, workspace.part.read_chunk_into)
            proven = await self._check(check, final=False)
            await trio.to_thread.run_sync(workspace.settle, proven, doubtful & ~proven)
            good |= proven
        geometry = manifest.header.geometry
        self._counters.reused = geometry.bytes_in(good)
        self.chunks_done = good.bit_count()
        self.share.name = workspace.final.name
        self.share.executable = workspace.executable
        scheduler = self._scheduler = Scheduler(geometry, self._swarm.rng, have=good)
        scheduler.verifiable = manifest.verifiable
        self._arrivals = Arrivals(manifest, workspace.part, workspace.resume, self._chunks_settled)
        self._tell(
            Started(
                self._order.file_id,
                workspace.final.name,
                geometry.size,
                geometry.chunk_count,
                self.chunks_done,
                workspace.part.path,
                resumed=bool(good),
            )
        )
        now = self._swarm.now()
        for member in self.share.members.values():
            scheduler.peer_joined(now, member.number)
        self.share.serve(manifest, good, workspace.source(workspace.part.path))

    async def _transfer(self) -> None:
        """Until every chunk is on disk and a last reading of the disk agrees."""
        manifest = self._metadata.manifest
        assert manifest is not None
        assert self._scheduler is not None
        scheduler, workspace = self._scheduler, self._workspace
        everything = manifest.header.geometry.all_chunks
        for _ in range(MAX_REPAIRS):
            while not scheduler.ledger.done:
                self._settled = trio.Event()
                self._raise_failure()
                await self._settled.wait()
            self._report()
            check = Check(manifest, everything, workspace.part.read_chunk_into)
            good = await self._check(check, final=True)
            if good == everything:
                return
            self._repair(everything & ~good)
        raise VerificationError(
            f"{workspace.part.path}: the disk does not give back what was written; check the disk"
        )

    def _repair(self, bad: int) -> None:
        """Chunks on disk are not what was verified: fetch them again."""
        assert self._scheduler is not None
        count = bad.bit_count()
        self._tell(Note(f"{count} chunk{'s' * (count > 1)} on disk changed: fetching again"))
        self.share.withdraw(bad)
        if self._workspace.resume is not None:
            self._workspace.resume.lose_all(bad)
        for chunk in chunks_of(bad):
            self._apply(self._scheduler.lost(self._swarm.now(), chunk))
        self.chunks_done -= count
        self._useful_at = self._swarm.now()

    async def _publish(self) -> Result:
        workspace = self._workspace
        if self._terms.sha256 is not None:
            await self._check_sum(self._terms.sha256)
        path = await trio.to_thread.run_sync(workspace.publish)
        self._serve_from(workspace.source(path))
        geometry = self._geometry
        counters = self._counters
        return Result(
            file_id=self._order.file_id,
            path=path,
            size=workspace.layout.plain_size,
            seconds=self._swarm.now() - self._started_at,
            bytes_fetched=counters.fetched,
            bytes_reused=min(counters.reused, geometry.size),
            bytes_wasted=counters.wasted,
            peers=tuple(
                PeerContribution(node_id, address, size, chunks)
                for (node_id, address), (size, chunks) in self._contributions.items()
            ),
            sealed=workspace.sealed,
        )

    async def _check_sum(self, expected: str) -> None:
        workspace = self._workspace
        if not workspace.layout.single:
            raise VerificationError("--sha256 is for single files; this share is a folder")
        actual = await trio.to_thread.run_sync(sha256_of_file, workspace.part.path)
        if actual != expected.lower():
            raise VerificationError(
                f"the download has SHA-256 {actual}, not {expected.lower()}:"
                f" left as {workspace.part.path}"
            )

    def _serve_from(self, source: Content) -> None:
        """Serve the published file from now on."""
        old, self.share.source = self.share.source, source
        if old is not None:
            old.close()
        self.share.fetcher = None

    # --- tasks ----------------------------------------------------------------------

    async def _dial_peers(self, links: trio.Nursery) -> None:
        """Keep about DEGREE links, trying the best addresses first."""
        file_id = self._order.file_id
        while True:
            now = self._swarm.now()
            while self._dialling < DIALS_AT_ONCE and len(self._dialled) < DEGREE:
                candidate = self._swarm.book.due(file_id, now)
                if candidate is None:
                    break
                candidate.busy = True
                self._dialling += 1
                links.start_soon(self._dial, candidate)
            await trio.sleep(TICK)

    async def _dial(self, candidate: Candidate) -> None:
        book, file_id = self._swarm.book, self._order.file_id
        try:
            link = await self._swarm.endpoint.dial(candidate.address)
        except FuryMeshError as error:
            book.failed(file_id, candidate, self._swarm.now(), str(error))
            return
        finally:
            self._dialling -= 1
        if link.node_id == self._swarm.endpoint.identity.node_id and (
            link.instance == self._swarm.endpoint.instance
        ):
            link.close()
            book.drop(file_id, candidate)
            return
        self._dialled.add(link)
        book.worked(candidate)
        try:
            await self._swarm.run_link(link)
        finally:
            self._dialled.discard(link)
            reason = str(link.closed_because or "closed")
            book.failed(file_id, candidate, self._swarm.now(), reason)
            if link.unwanted:
                candidate.not_before += UNWANTED_SECONDS

    async def _watch_metadata(self) -> None:
        """Ask for what is missing of the manifest, store what came."""
        metadata = self._metadata
        ticks = 0
        while True:
            metadata.ask(self._swarm.now(), list(self.share.members.values()))
            await self._store_pages()
            ticks += 1
            if ticks % 50 == 0:
                metadata.forgive()
            if not metadata.missing and not metadata.fresh_pages:
                return
            await trio.sleep(TICK)

    async def _store_pages(self) -> None:
        """Keep the pages of the manifest that have arrived, once it is kept itself."""
        fresh = self._metadata.fresh_pages
        while fresh and self._workspace.manifest_kept:
            await trio.to_thread.run_sync(self._workspace.remember_page, fresh.pop())

    async def _watch_time(self) -> None:
        """Let the scheduler look for late chunks; give up when nothing moves."""
        last_ping = last_word = self._swarm.now()
        while True:
            await trio.sleep(TICK)
            now = self._swarm.now()
            scheduler = self._scheduler
            if scheduler is not None:
                self._apply(scheduler.tick(now))
            if now - last_ping >= PING_SECONDS:
                last_ping = now
                self._ping_debtors()
            if self._paused or (scheduler is not None and scheduler.ledger.done):
                self._useful_at = now
            idle = now - self._useful_at
            if idle > WAITING_SECONDS and now - last_word >= WAITING_SECONDS:
                last_word = now
                self._tell(Waiting(idle, self._terms.timeout, self._attempts()))
            if idle >= self._terms.timeout:
                raise UnavailableError(self._nobody())

    async def _announcing(self) -> None:
        """Tell members of new chunks, several at a time."""
        while True:
            await self._announce.wait()
            await trio.sleep(HAVE_SECONDS)
            self._announce = trio.Event()
            chunks, self._fresh = self._fresh, []
            self.share.gained(chunks)

    async def _syncing(self) -> None:
        """Epochs and snapshots, so that a crash costs at most seconds of hashing."""
        workspace = self._workspace
        last_epoch = last_save = self._swarm.now()
        while True:
            await trio.sleep(TICK)
            resume, now = workspace.resume, self._swarm.now()
            if resume is None or not self._unsynced or self._paused:
                continue
            if now - last_epoch < SYNC_SECONDS and self._unsynced < SYNC_BYTES:
                continue
            self._unsynced = 0
            if now - last_save >= self._settings.save_interval:
                last_save = now
                await trio.to_thread.run_sync(resume.compact, workspace.part.sync)
                await trio.to_thread.run_sync(workspace.note_peers, self._worth_keeping())
            else:
                await trio.to_thread.run_sync(resume.mark_epoch, workspace.part.sync)
            last_epoch = self._swarm.now()

    async def _reporting(self) -> None:
        while True:
            self._report()
            await trio.sleep(REPORT_SECONDS)

    async def _wait_for_room(self, error: DiskFullError) -> None:
        """The disk is full: hold everything until there is room again."""
        assert self._scheduler is not None
        self._tell(Note(f"paused, {error}; goes on by itself when there is room"))
        self._apply(self._scheduler.pause())
        directory = self._workspace.part.path.parent
        needed = self._settings.reserve + 4 * self._geometry.chunk_size
        while True:
            # At least once: a quota is not seen in the free space.
            await trio.sleep(DISK_POLL_SECONDS)
            if shutil.disk_usage(directory).free >= needed:
                break
        self._paused = False
        self._useful_at = self._swarm.now()
        self._tell(Note("there is room again: going on"))
        self._apply(self._scheduler.proceed(self._swarm.now()))

    # --- what the share tells ---------------------------------------------------------

    def welcomes(self, link: SecureLink) -> bool:
        only = self._terms.only_nodes
        return not only or link.node_id in only

    def member_joined(self, member: Member) -> None:
        if self._scheduler is not None:
            self._scheduler.peer_joined(self._swarm.now(), member.number)
        self._swarm.ping(member.link)
        self._metadata.ask(self._swarm.now(), [member])

    def member_left(self, member: Member) -> None:
        self._metadata.left(member)
        if self._arrivals is not None:
            self._counters.wasted += self._arrivals.left(member)
        if self._scheduler is not None:
            self._apply(self._scheduler.peer_left(self._swarm.now(), member.number))

    def member_has(self, member: Member, mask: int) -> None:
        if self._scheduler is not None:
            self._apply(self._scheduler.peer_has(self._swarm.now(), member.number, mask))

    def member_lost(self, member: Member, mask: int) -> None:
        if self._scheduler is not None:
            for chunk in chunks_of(mask):
                self._drop(member, chunk)
            self._apply(self._scheduler.peer_lost(self._swarm.now(), member.number, mask))

    def header(self, member: Member, message: m.ManifestHeader) -> None:
        self._metadata.header(member, message)
        self._metadata.ask(self._swarm.now(), list(self.share.members.values()))
        self._useful_at = self._swarm.now()

    def page(self, member: Member, message: m.ManifestPage) -> None:
        self._metadata.page(member, message)
        manifest = self._metadata.manifest
        if message.data:
            self._useful_at = self._swarm.now()
        if self._scheduler is not None and manifest is not None:
            now = self._swarm.now()
            self._apply(self._scheduler.verifiable_grew(now, manifest.verifiable))

    def rejected(self, member: Member, message: m.Reject) -> None:
        if self._scheduler is None:
            return
        for chunk in message.chunks:
            if member.cancelled.pop(chunk, None) is None:
                self._drop(member, chunk)
        self._apply(
            self._scheduler.rejected(
                self._swarm.now(),
                member.number,
                message.chunks,
                held=message.reason is not m.Reason.NOT_HELD,
                suggest=message.suggest,
            )
        )

    def spoke(self, member: Member, round_trip: float | None) -> None:
        if self._scheduler is not None:
            now = self._swarm.now()
            self._apply(self._scheduler.heard(now, member.number, round_trip))

    def sink(self, member: Member, data: m.Data) -> memoryview | None:
        scheduler, arrivals = self._scheduler, self._arrivals
        if scheduler is not None and scheduler.owes(member.number, data.chunk):
            assert arrivals is not None
            return arrivals.sink(member, data)
        self._counters.wasted += data.length
        return self._swarm.discard(member, data)

    async def room(self) -> None:
        await self._arrived.room()

    def filled(self, member: Member, data: m.Data) -> None:
        scheduler, arrivals = self._scheduler, self._arrivals
        if arrivals is None or scheduler is None or not arrivals.filled(member, data):
            return
        now = self._useful_at = self._swarm.now()
        if data.offset + data.length == self._geometry.length(data.chunk):
            arrivals.complete(member)
        self._apply(scheduler.data(now, member.number, data.chunk, data.length))

    # --- carrying out ---------------------------------------------------------------

    def _apply(self, actions: list[Action]) -> None:
        for action in actions:
            member = self._member(action.peer)
            if member is None:
                continue
            number = member.link.session.number(self._order.file_id)
            match action:
                case Request(_, chunks):
                    member.link.send(m.Request(number, chunks))
                case Cancel(_, chunks):
                    for chunk in chunks:
                        self._cancel(member, chunk)
                    member.link.send(m.Cancel(number, chunks))

    def _member(self, number: int) -> Member | None:
        return next((x for x in self.share.members.values() if x.number == number), None)

    def _drop(self, member: Member, chunk: int) -> None:
        """Nothing more of a chunk will come from a member."""
        assert self._arrivals is not None
        self._counters.wasted += self._arrivals.cancel(member, chunk)

    def _cancel(self, member: Member, chunk: int) -> None:
        """A chunk is not wanted from a member any more; some of it may still come."""
        assert self._arrivals is not None
        received = self._arrivals.cancel(member, chunk)
        self._counters.wasted += received
        member.cancelled[chunk] = self._geometry.length(chunk) - received

    def _chunks_settled(self, outcomes: list[Outcome]) -> None:
        """Chunks were verified and stored, or not."""
        scheduler = self._scheduler
        assert scheduler is not None
        now = self._swarm.now()
        for outcome in outcomes:
            arrival = outcome.arrival
            length = self._geometry.length(arrival.chunk)
            if outcome.verdict is Verdict.GOOD:
                self._apply(scheduler.stored(now, arrival.chunk))
                self._fresh.append(arrival.chunk)
                self.chunks_done += 1
                self._unsynced += length
                self._counters.fetched += length
                self._credit(arrival.member, length)
                continue
            if outcome.verdict is Verdict.BAD:
                self._counters.wasted += length
                self._blame(arrival.member)
            elif isinstance(outcome.error, DiskFullError):
                self._pause(outcome.error)
            else:
                self._failure = outcome.error
            self._apply(scheduler.bad(now, arrival.chunk))
        if self._fresh:
            self._announce.set()
        self._settled.set()

    def _blame(self, member: Member) -> None:
        """A member sent a bad chunk; more of them may have been on their way."""
        node_id = member.link.node_id
        if node_id not in self._swarm.banned:
            self._swarm.quarantine(member.link)
            name = node_id_text(node_id)[:12]
            self._tell(Note(f"peer {name}… sent a bad chunk: not asked again"))

    def _pause(self, error: DiskFullError) -> None:
        if not self._paused:
            self._paused = True
            assert self._helpers is not None
            self._helpers.start_soon(self._wait_for_room, error)

    def _credit(self, member: Member, size: int) -> None:
        link = member.link
        host, port = link.remote
        entry = self._contributions.setdefault((link.node_id, str(Address(host, port))), [0, 0])
        entry[0] += size
        entry[1] += 1
        if link.initiator:
            self._helped[link.remote] = Address(host, port, link.node_id)

    def _worth_keeping(self) -> tuple[str, ...]:
        """Whom a later run should ask: who helped, then who was named."""
        kept = dict(self._helped)
        for candidate in self._swarm.book.candidates(self._order.file_id):
            if candidate.source.named:
                address = candidate.address
                kept.setdefault((address.host, address.port), address)
        return tuple(map(str, kept.values()))[:MAX_KEPT_PEERS]

    def _ping_debtors(self) -> None:
        scheduler = self._scheduler
        if scheduler is None:
            return
        for member in self.share.members.values():
            if scheduler.owed(member.number):
                self._swarm.ping(member.link)

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    # --- telling --------------------------------------------------------------------

    def _tell(self, event: Event) -> None:
        self._on_event(event)

    def _tell_notes(self) -> None:
        for text in self._workspace.notes:
            self._tell(Note(text))
        self._workspace.notes.clear()

    def _report(self) -> None:
        counters, now = self._counters, self._swarm.now()
        assert self._scheduler is not None
        counters.samples.append((now, counters.fetched))
        while counters.samples[0][0] < now - RATE_SECONDS and len(counters.samples) > 2:
            counters.samples.popleft()
        (then, before) = counters.samples[0]
        rate = (counters.fetched - before) / (now - then) if now > then else 0.0
        self._tell(
            Progress(
                self.chunks_done,
                self._geometry.chunk_count,
                self._geometry.bytes_in(self._scheduler.ledger.have),
                self._geometry.size,
                rate,
                len(self.share.members),
            )
        )

    async def _check(self, check: Check, *, final: bool) -> int:
        """Run a hashing pass in threads, telling how far it is."""

        async def watch() -> None:
            while True:
                await trio.sleep(CHECK_REPORT_SECONDS)
                self._useful_at = self._swarm.now()
                self._tell(Checking(check.done, check.total, final))

        try:
            async with open_tasks() as nursery:
                nursery.start_soon(watch)
                good = await trio.to_thread.run_sync(check.run, abandon_on_cancel=True)
                nursery.cancel_scope.cancel()
            return good
        finally:
            check.stop = True

    def _attempts(self) -> tuple[Attempt, ...]:
        tried = [
            Attempt(str(candidate.address), candidate.outcome)
            for candidate in self._swarm.book.candidates(self._order.file_id)
        ]
        return tuple(tried)

    def _nobody(self) -> str:
        seconds = f"{self._terms.timeout:g} s"
        tried = "; ".join(f"{a.address} ({a.outcome})" for a in self._attempts()[:5])
        if self.share.members:
            return f"the connected peers sent nothing for {seconds}; progress is kept"
        if not tried:
            return "no peer is known: give one with --peer, or use a link that names one"
        return f"no peer could help within {seconds}; tried {tried}; progress is kept"

    @property
    def _geometry(self) -> Geometry:
        return self.share.geometry

    @property
    def _arrived(self) -> Arrivals:
        assert self._arrivals is not None
        return self._arrivals
