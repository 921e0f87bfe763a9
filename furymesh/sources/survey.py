"""Reading all of a file on a server once, to know what it is made of; nothing is kept."""

from __future__ import annotations

from collections.abc import Callable

import trio

from furymesh.core.geometry import DIGEST_SIZE, Geometry
from furymesh.core.hashing import HashAlgorithm
from furymesh.core.peer_state import MIRROR_REQUESTS
from furymesh.core.sealing import Sealer, plain_range
from furymesh.net.tasks import open_tasks
from furymesh.sources.source import Server


async def digests_of(
    server: Server,
    size: int,
    geometry: Geometry,
    algorithm: HashAlgorithm,
    sealer: Sealer | None,
    progress: Callable[[int], object],
) -> bytes:
    """The digests of all chunks of the file at a mirror's URL, 32 bytes each.

    `size` is the file's, in bytes. With a `sealer` the `geometry` is that of the sealed
    stream. `progress` gets the bytes read since its last call. Raises as `Server` does.
    """
    digests = bytearray(geometry.chunk_count * DIGEST_SIZE)
    chunks = iter(range(geometry.chunk_count))

    def digest(chunk: int, plain: bytearray) -> bytes:
        return algorithm.digest(sealer.seal(chunk, plain) if sealer else plain)

    async def work() -> None:
        for chunk in chunks:
            offset, length = geometry.offset(chunk), geometry.length(chunk)
            if sealer:
                offset, length = plain_range(geometry, chunk)
            plain = bytearray()

            def take(data: bytes, plain: bytearray = plain) -> None:
                plain.extend(data)
                progress(len(data))

            await server.read("", size, offset, length, take)
            at = chunk * DIGEST_SIZE
            digests[at : at + DIGEST_SIZE] = await trio.to_thread.run_sync(digest, chunk, plain)

    async with open_tasks() as nursery:
        for _ in range(MIRROR_REQUESTS):
            nursery.start_soon(work)
    return bytes(digests)
