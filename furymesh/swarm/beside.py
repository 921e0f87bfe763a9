"""The manifest beside a mirror: for those who find no peer that has it."""

from __future__ import annotations

import io
from collections.abc import Sequence

import trio

from furymesh.core.errors import InvalidManifestError, UnavailableError
from furymesh.core.ids import FileId
from furymesh.core.manifest import Manifest
from furymesh.sources.source import UnfitMirrorError
from furymesh.storage.manifests import HEAD_SIZE, file_size, read_manifest
from furymesh.swarm.metadata import ManifestFetch
from furymesh.swarm.mirrors import Feed
from furymesh.swarm.progress import IdleClock

PEERS_FIRST = 1.0  # seconds in which peers may answer before mirrors are asked
AGAIN_SECONDS = 20.0  # before they are asked once more


async def look_beside(
    feeds: Sequence[Feed], file_id: FileId, metadata: ManifestFetch, clock: IdleClock
) -> None:
    """Look for the manifest at mirrors until somebody has brought it."""
    await trio.sleep(PEERS_FIRST)
    while metadata.manifest is None:
        for feed in feeds:
            try:
                manifest = await _fetched(feed, file_id)
            except (UnfitMirrorError, UnavailableError, InvalidManifestError) as error:
                feed.state = f"waiting for the manifest, which is not beside it: {error}"
                continue
            if metadata.manifest is None:
                metadata.found(manifest)
                clock.useful()
            return
        await trio.sleep(AGAIN_SECONDS)


async def _fetched(feed: Feed, file_id: FileId) -> Manifest:
    """The manifest beside a mirror, whole; raises what `Server` does, InvalidManifestError."""
    data = bytearray()
    async with feed.open_beside() as server:
        size = await server.size()
        head = min(size, HEAD_SIZE)
        if not head:
            raise InvalidManifestError("the manifest there is empty")
        await server.read("", size, 0, head, data.extend)
        # The header is the author's: what it says of the file's size may be believed.
        header = read_manifest(io.BytesIO(data), file_id).header
        if size != file_size(header):
            raise InvalidManifestError("the manifest there has the wrong length")
        if size > head:
            await server.read("", size, head, size - head, data.extend)
    manifest = await trio.to_thread.run_sync(read_manifest, io.BytesIO(data), file_id)
    if not manifest.complete:
        raise InvalidManifestError("the manifest there is damaged")
    return manifest
