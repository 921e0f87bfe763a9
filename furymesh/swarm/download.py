"""One download: from a file id to a verified file under its final name.

The stages are methods, in order: `_take_stock` (manifest, part, what is
already there), `_transfer` (until every chunk is on disk and a last reading of
the disk agrees), `_publish`. Meanwhile `dialling` finds peers, `fetching`
brings chunks, `saving` sees that a crash costs little, and a task here reports.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import trio

from furymesh.core.bitfield import chunks_of
from furymesh.core.errors import DiskFullError, VerificationError
from furymesh.core.ids import NodeId
from furymesh.core.link import Address
from furymesh.core.manifest import Manifest
from furymesh.discovery.book import Source
from furymesh.net.tasks import open_tasks
from furymesh.storage.check import Check, sha256_of_file
from furymesh.storage.content import Content
from furymesh.storage.order import Order, Settings
from furymesh.storage.scan import Facts
from furymesh.storage.workspace import Workspace
from furymesh.swarm.beside import look_beside
from furymesh.swarm.dialling import Dialler
from furymesh.swarm.events import Checking, Event, Note, Progress, Result, Started
from furymesh.swarm.fetching import Fetching
from furymesh.swarm.metadata import ManifestFetch, ManifestFetcher, fetch_manifest
from furymesh.swarm.mirrors import feeds_of
from furymesh.swarm.progress import IdleClock, Tally
from furymesh.swarm.saving import Saving
from furymesh.swarm.share import Share
from furymesh.swarm.swarm import Swarm

REPORT_SECONDS = 1.0
CHECK_REPORT_SECONDS = 0.25
DEFAULT_TIMEOUT = 60.0
MAX_REPAIRS = 3  # passes over a disk that keeps giving back other bytes than it was given


@dataclass(frozen=True, slots=True)
class Terms:
    """How long and with whom; `timeout` in seconds without a useful byte."""

    timeout: float = DEFAULT_TIMEOUT
    only_nodes: frozenset[NodeId] = frozenset()  # and no mirrors, if there are any
    sha256: str | None = None
    private_mirrors: bool = False  # mirrors at private addresses, whoever named them


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
        self.share = Share(swarm, order.file_id, name=order.name or "", private=order.private)
        self._swarm = swarm
        self._order = order
        self._settings = settings
        self._terms = terms
        self._tell = on_event
        self._workspace = Workspace(order, settings)
        self._saving = Saving(self._workspace, self._worth_keeping)
        self._clock = IdleClock(swarm.now)
        self._tally = Tally()
        self._dialler = Dialler(self.share, self._clock, on_event)
        self._fetching: Fetching | None = None
        self._started_at = swarm.now()

    @property
    def key(self) -> bytes | None:
        """The content key, from the link or from resume data."""
        return self._workspace.key

    @property
    def facts(self) -> tuple[Facts, ...] | None:
        """Those of the published files; None before."""
        return self._workspace.facts

    @property
    def chunks_done(self) -> int:
        """Chunks verified and on disk; 0 until the disk was looked at."""
        return self._fetching.chunks_done if self._fetching is not None else 0

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
            self.share.private = workspace.private
            if not self._terms.only_nodes:
                self.share.mirrors = feeds_of(
                    workspace.mirrors, self._swarm, private=self._terms.private_mirrors
                )
            for text in workspace.known_peers:
                self._swarm.book.add(self._order.file_id, Address.parse(text), Source.RESUME)
            fetcher = self._manifest_fetcher(workspace.manifest)
            self.share.fetcher = fetcher
            self._clock.useful()
            self._swarm.add(self.share)
            try:
                return await self._run(fetcher, links)
            except BaseException:
                self._swarm.remove(self._order.file_id)
                raise
            finally:
                self._swarm.book.forget(self._order.file_id)
                self.share.mirrors = ()
                if self._fetching is not None:
                    self._fetching.close()
        finally:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(workspace.close)

    async def fetch_manifest(self, links: trio.Nursery) -> Manifest:
        """Only the manifest, with all its pages, and nothing on this disk."""
        return await fetch_manifest(
            self._manifest_fetcher(None),
            self._dialler,
            links,
            timeout=self._terms.timeout,
        )

    def _manifest_fetcher(self, known: Manifest | None) -> ManifestFetcher:
        metadata = ManifestFetch(self._order.file_id, known)
        return ManifestFetcher(self.share, metadata, self._clock, self._terms.only_nodes)

    async def _run(self, fetcher: ManifestFetcher, links: trio.Nursery) -> Result:
        metadata = fetcher.metadata
        async with open_tasks() as nursery:
            nursery.start_soon(self._dialler.run, links)
            nursery.start_soon(self._dialler.give_up_when_idle, self._terms.timeout)
            nursery.start_soon(fetcher.keep_asking)
            nursery.start_soon(self._saving.keep_pages, metadata)
            if self.share.mirrors:
                file_id = self._order.file_id
                nursery.start_soon(look_beside, self.share.mirrors, file_id, metadata, self._clock)
            fetching = await self._take_stock(metadata)
            nursery.start_soon(fetching.run)
            nursery.start_soon(fetching.feeds.run, self.share, self._workspace)
            nursery.start_soon(self._saving.keep_syncing, fetching)
            nursery.start_soon(self._reporting, fetching)
            await self._transfer(fetching, metadata)
            await self._saving.store_pages(metadata)
            nursery.cancel_scope.cancel()
        return await self._publish()

    async def _take_stock(self, metadata: ManifestFetch) -> Fetching:
        """Until the manifest is known and the local part is opened and trusted."""
        workspace = self._workspace
        while not metadata.table_complete:
            await metadata.changed.wait()
        manifest = metadata.manifest
        assert manifest is not None
        workspace.executable = workspace.executable or metadata.executable
        with self._clock.local_work():
            await trio.to_thread.run_sync(workspace.remember_header, manifest)
            good, doubtful = await trio.to_thread.run_sync(
                workspace.open, metadata.name_hint, self._worth_keeping()
            )
        self._tell_notes()
        if doubtful:
            await self._whole_manifest(metadata)
            check = Check(manifest, doubtful, workspace.part.read_chunk_into)
            proven = await self._check(check, final=False)
            with self._clock.local_work():
                await trio.to_thread.run_sync(workspace.settle, proven, doubtful & ~proven)
            good |= proven
        geometry = manifest.header.geometry
        self._tally.reused = geometry.bytes_in(good)
        self.share.name = workspace.final.name
        self.share.executable = workspace.executable
        fetching = Fetching(
            self.share,
            metadata,
            self._clock,
            self._terms.only_nodes,
            manifest=manifest,
            part=workspace.part,
            resume=workspace.resume,
            have=good,
            reserve=self._settings.reserve,
            tally=self._tally,
            tell=self._tell,
        )
        self._fetching = self.share.fetcher = fetching
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
        self.share.serve(manifest, good, workspace.source(workspace.part.path))
        return fetching

    async def _whole_manifest(self, metadata: ManifestFetch) -> None:
        while metadata.missing:
            await metadata.changed.wait()

    async def _transfer(self, fetching: Fetching, metadata: ManifestFetch) -> None:
        """Until every chunk is on disk and a last reading of the disk agrees."""
        workspace, manifest = self._workspace, self.share.manifest
        assert manifest is not None
        everything = manifest.header.geometry.all_chunks
        for _ in range(MAX_REPAIRS):
            await fetching.everything()
            while not await self._saving.save(fetching):
                await fetching.everything()  # of what the full disk has lost
            # Chunks of an earlier run may all be here, and the digests not.
            await self._whole_manifest(metadata)
            self._report(fetching)
            check = Check(manifest, everything, workspace.part.read_chunk_into)
            good = await self._check(check, final=True)
            if good == everything:
                return
            await self._repair(fetching, everything & ~good)
        raise VerificationError(
            f"{workspace.part.path}: the disk does not give back what was written; check the disk"
        )

    async def _repair(self, fetching: Fetching, bad: int) -> None:
        """Chunks on disk are not what was verified: fetch them again."""
        count = bad.bit_count()
        self._tell(Note(f"{count} chunk{'s' * (count > 1)} on disk changed: fetching again"))
        self.share.withdraw(bad)  # before anything else: nobody is to get them
        if self._workspace.resume is not None:
            with self._clock.local_work():
                try:
                    await trio.to_thread.run_sync(self._workspace.resume.lose_all, bad)
                except DiskFullError as error:
                    fetching.disk.ran_out(error)
        fetching.lost(bad)

    async def _publish(self) -> Result:
        workspace, tally = self._workspace, self._tally
        if self._terms.sha256 is not None:
            await self._check_sum(self._terms.sha256)
        path = await trio.to_thread.run_sync(workspace.publish)
        self._serve_from(workspace.source(path))
        return Result(
            file_id=self._order.file_id,
            path=path,
            size=workspace.layout.plain_size,
            seconds=self._swarm.now() - self._started_at,
            bytes_fetched=tally.fetched,
            bytes_reused=tally.reused,
            bytes_wasted=tally.wasted,
            peers=tally.contributions,
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
        """Serve the published file, all of it, from now on.

        Chunks may be missing from what was announced: the last ones, whose
        announcement was due, and any that could not be read during the rename.
        """
        share = self.share
        old, share.source = share.source, source
        if old is not None:
            old.close()
        share.fetcher = None
        self._swarm.advertise(share)
        share.gained(list(chunks_of(share.geometry.all_chunks & ~share.have)))
        share.announce()

    # --- tasks ----------------------------------------------------------------------

    async def _reporting(self, fetching: Fetching) -> None:
        while True:
            self._report(fetching)
            await trio.sleep(REPORT_SECONDS)

    async def _check(self, check: Check, *, final: bool) -> int:
        """Run a hashing pass in threads, telling how far it is."""

        async def watch() -> None:
            while True:
                await trio.sleep(CHECK_REPORT_SECONDS)
                self._tell(Checking(check.done, check.total, final))

        try:
            with self._clock.local_work():
                async with open_tasks() as nursery:
                    nursery.start_soon(watch)
                    good = await trio.to_thread.run_sync(check.run, abandon_on_cancel=True)
                    nursery.cancel_scope.cancel()
            return good
        finally:
            check.stop = True

    # --- telling --------------------------------------------------------------------

    def _worth_keeping(self) -> tuple[str, ...]:
        return self._dialler.worth_keeping(self._tally.helpers)

    def _tell_notes(self) -> None:
        for text in self._workspace.notes:
            self._tell(Note(text))
        self._workspace.notes.clear()

    def _report(self, fetching: Fetching) -> None:
        geometry = self.share.geometry
        self._tell(
            Progress(
                fetching.chunks_done,
                geometry.chunk_count,
                geometry.bytes_in(fetching.have),
                geometry.size,
                self._tally.rate(self._swarm.now()),
                self.share.sources,
            )
        )
