"""Saving one download while it runs, so that a crash costs at most seconds of hashing.

Chunks are journaled as they are stored; here is what happens by the clock. Each
SYNC_SECONDS or SYNC_BYTES the part is synced and the journal gets an epoch, each
save interval the journal is folded into a fresh snapshot, and pages of the
manifest are kept as they arrive.
"""

from __future__ import annotations

from collections.abc import Callable

import trio

from furymesh.core.errors import DiskFullError
from furymesh.core.scheduler import TICK
from furymesh.storage.resume import ResumeData
from furymesh.storage.workspace import Workspace
from furymesh.swarm.fetching import Fetching
from furymesh.swarm.metadata import ManifestFetch
from furymesh.swarm.room import ROOM_POLL_SECONDS

SYNC_SECONDS = 1.0
SYNC_BYTES = 64 * 1024 * 1024


class Saving:
    """Keeps on disk what a later run of a download needs to go on from here."""

    def __init__(self, workspace: Workspace, worth_keeping: Callable[[], tuple[str, ...]]) -> None:
        """`worth_keeping` tells whom a later run should ask; it is called in a thread."""
        self._workspace = workspace
        self._worth_keeping = worth_keeping

    async def keep_syncing(self, fetching: Fetching) -> None:
        """Epochs and snapshots, until cancelled; a full disk pauses the download."""
        workspace = self._workspace
        last_epoch = last_save = trio.current_time()
        while True:
            await trio.sleep(TICK)
            resume = workspace.resume
            now, size = trio.current_time(), fetching.unsynced
            if resume is None or not size or fetching.disk.paused:
                continue
            if now - last_epoch < SYNC_SECONDS and size < SYNC_BYTES:
                continue
            fetching.unsynced = 0
            save = now - last_save >= workspace.settings.save_interval
            try:
                if save:
                    await trio.to_thread.run_sync(self._save, resume)
                else:
                    await trio.to_thread.run_sync(resume.mark_epoch, workspace.part.sync)
            except DiskFullError as error:
                fetching.unsynced += size
                fetching.disk.ran_out(error)
                continue
            last_epoch = trio.current_time()
            if save:
                last_save = last_epoch

    async def save(self, fetching: Fetching) -> bool:
        """Sync all that is stored; False if the disk was full, and the download paused."""
        workspace = self._workspace
        sync = workspace.part.sync
        try:
            if workspace.resume is not None:
                await trio.to_thread.run_sync(workspace.resume.mark_epoch, sync)
            await trio.to_thread.run_sync(sync)
        except DiskFullError as error:
            fetching.disk.ran_out(error)
            return False
        return True

    def _save(self, resume: ResumeData) -> None:
        resume.compact(self._workspace.part.sync)
        self._workspace.note_peers(self._worth_keeping())

    async def keep_pages(self, metadata: ManifestFetch) -> None:
        """Keep the pages of a manifest until it is complete."""
        while metadata.missing or metadata.fresh_pages:
            await self.store_pages(metadata)
            await trio.sleep(TICK)

    async def store_pages(self, metadata: ManifestFetch) -> None:
        """Keep the pages of a manifest that have arrived, once it is kept itself."""
        fresh = metadata.fresh_pages
        while fresh and self._workspace.manifest_kept:
            page = fresh.pop()
            try:
                await trio.to_thread.run_sync(self._workspace.remember_page, page)
            except DiskFullError:
                # A download that finds no room for its chunks says so; pages just wait.
                fresh.append(page)
                await trio.sleep(ROOM_POLL_SECONDS)
