"""Checking finished content against its manifest, wherever that is to be had."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import trio

from furymesh.core.bitfield import chunks_of
from furymesh.core.ids import ID_SIZE, FileId, resolve_prefix
from furymesh.core.link import Link
from furymesh.core.manifest import Manifest
from furymesh.net.tasks import open_tasks
from furymesh.node.config import Config, load_config
from furymesh.node.runtime import open_runtime, opened_keys
from furymesh.storage.catalog import Catalog
from furymesh.storage.check import Check
from furymesh.storage.finished import FinishedReader
from furymesh.storage.manifests import ManifestStore
from furymesh.storage.order import Order
from furymesh.swarm.download import Terms

ChunkProgress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Verified:
    """What checking finished content found.

    `bad` lists chunk indices, `misfits` what no digest covers: files of the
    wrong size, missing, or not part of the share.
    """

    file_id: FileId
    path: Path
    chunks_total: int
    bad: tuple[int, ...]
    misfits: tuple[str, ...] = ()

    @property
    def intact(self) -> bool:
        return not self.bad and not self.misfits


async def verify(
    path: Path | str,
    link: str,
    config: Config | None = None,
    *,
    progress: ChunkProgress | None = None,
    passphrase: str | None = None,
) -> Verified:
    """Check finished content against its manifest, chunk by chunk.

    `link` is a link, an id, or the start of the id of something downloaded or
    shared here. Its manifest is looked for here first, then fetched from the
    peers of the link. `progress(done, total)` counts chunks. Raises UsageError,
    NotFoundError, WrongKeyError, EnvironmentFault, UnavailableError,
    PassphraseNeededError where a sealed key here is needed, PassphraseError.
    """
    config = config or load_config(None, None)
    manifest, key = await _find_manifest(link, config, passphrase)
    reader = await trio.to_thread.run_sync(FinishedReader, Path(path), manifest, key)
    check = Check(manifest, manifest.header.geometry.all_chunks, reader.read)

    async def watch() -> None:
        while progress is not None:
            progress(check.done, check.total)
            await trio.sleep(0.2)

    try:
        async with open_tasks() as nursery:
            nursery.start_soon(watch)
            good = await trio.to_thread.run_sync(check.run, abandon_on_cancel=True)
            misfits = await trio.to_thread.run_sync(reader.misfits)
            nursery.cancel_scope.cancel()
    finally:
        check.stop = True
        reader.close()
    bad = tuple(chunks_of(manifest.header.geometry.all_chunks & ~good))
    return Verified(manifest.file_id, Path(path), check.total, bad, misfits)


async def _find_manifest(
    text: str, config: Config, passphrase: str | None
) -> tuple[Manifest, bytes | None]:
    """The whole manifest of a share and its content key, if either is to be had."""
    store = ManifestStore(config.data_dir)
    catalog = Catalog(config.data_dir)
    if len(text.strip()) < 2 * ID_SIZE:
        known = {*store.ids(), *catalog.ids()}
        link = Link(resolve_prefix(text, known, what="share", listed="furymesh list"))
    else:
        link = Link.parse(text)
    entry = catalog.get(link.file_id)
    if entry is not None and entry.locked and link.key is None:
        async with opened_keys(config, passphrase) as protection:
            entry = Catalog(config.data_dir, protection).get(link.file_id)
    key = link.key or (entry.key if entry is not None else None)
    manifest = store.load(link.file_id)
    if manifest is None or not manifest.complete:
        async with open_runtime(config, listen_on=None, passphrase=passphrase) as runtime:
            order = Order(link.file_id, link.name, key=key)
            terms = Terms(timeout=config.transfer.timeout)
            download = runtime.download(order, terms, lambda event: None)
            with runtime.discovery.following(link):
                manifest = await download.fetch_manifest(runtime.links)
    return manifest, key
