"""Reading all of a file or folder on a server once, to know what it is made of; nothing is kept."""

from __future__ import annotations

from collections.abc import Callable

import trio

from furymesh.core.geometry import DIGEST_SIZE
from furymesh.core.hashing import HashAlgorithm
from furymesh.core.peer_state import MIRROR_REQUESTS
from furymesh.net.tasks import open_tasks
from furymesh.sources.content import Content, Part
from furymesh.sources.source import Server, Take


async def digests_of(
    server: Server,
    content: Content,
    algorithm: HashAlgorithm,
    progress: Callable[[int], object],
) -> bytes:
    """The digests of all chunks of what is at a mirror's URL, 32 bytes each.

    `progress` gets the bytes read since its last call. Raises as `Server` does.
    """
    digests = bytearray(content.geometry.chunk_count * DIGEST_SIZE)
    chunks = iter(range(content.geometry.chunk_count))

    async def read(part: Part, take: Take) -> None:
        def count(data: bytes) -> None:
            take(data)
            progress(len(data))

        await server.read(part.path, part.size, part.offset, part.length, count)

    async def work() -> None:
        for chunk in chunks:
            data = await content.read(chunk, read)
            at = chunk * DIGEST_SIZE
            digests[at : at + DIGEST_SIZE] = await trio.to_thread.run_sync(algorithm.digest, data)

    async with open_tasks() as nursery:
        for _ in range(MIRROR_REQUESTS):
            nursery.start_soon(work)
    return bytes(digests)
