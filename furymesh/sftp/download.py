"""One file from a server: continued, checked, finished as other downloads are.

Always true: the target of an atomic download is what it was or the whole
source, durable. A temporary file survives a failure only for `resume`.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import asyncssh

from furymesh.core.errors import FuryMeshError, SourceChangedError
from furymesh.sftp.faults import remotely
from furymesh.sftp.how import How, Meter
from furymesh.sftp.pipeline import in_thread, reading
from furymesh.sftp.remote import Remote
from furymesh.sftp.sound import ReadLocal, Status, sound_prefix
from furymesh.sftp.upload import Source
from furymesh.storage.incoming import IncomingFile, Place

WRITE_BYTES = 1024 * 1024  # to disk at a time: a hop to a thread for each


async def download(
    remote: Remote, source: str, root: Path, names: Sequence[str], how: How, meter: Meter
) -> None:
    """Fetch a regular file to the path `names` below `root`; raises FuryMeshError."""
    async with remote.source(source) as (file, status):
        # Opened here, not in a thread: who is cancelled meanwhile would lose it open.
        place = Place(root, names)
        try:
            await Download(remote, source, file, status, place, how, meter).run()
        finally:
            place.close()


@dataclass(frozen=True, slots=True)
class Download:
    """An open file of a server on its way to `place`; `run` it once."""

    remote: Remote
    path: str
    file: asyncssh.SFTPClientFile
    status: Status
    place: Place
    how: How
    meter: Meter

    async def run(self) -> None:
        how, place = self.how, self.place
        suffix = how.temp_suffix if how.atomic else ""
        if how.atomic and how.resume and await self._complete():
            await in_thread(place.discard, place.name + suffix)
            self.meter.reuse(self.status.size)
            return
        incoming = IncomingFile(place, suffix, keep=how.resume)
        try:
            await self._fill(incoming)
        except BaseException:
            if how.atomic and not how.resume:
                with contextlib.suppress(FuryMeshError):
                    incoming.discard()
            raise
        finally:
            incoming.close()

    async def _complete(self) -> bool:
        """Whether the target holds the source already, as far as `verify` looks."""
        fd = self.place.open_existing()
        if fd is None:
            return False
        try:
            local = Source(fd, self.place.path)
            here = local.status()
            return (
                here.size >= self.status.size
                and await self._sound(local.read, here) == self.status.size
            )
        finally:
            os.close(fd)

    async def _fill(self, incoming: IncomingFile) -> None:
        """Make the incoming file equal to the source, and finish it."""
        status = self.status
        here = Status.of(incoming.facts)
        start = await self._sound(incoming.read, here) if here.size else 0
        self.meter.reuse(start)
        if start == status.size < here.size and not self.how.atomic:
            return
        await in_thread(incoming.cut, start)
        await self._receive(incoming, start)
        if await self.remote.status_of(self.file, self.path) != status:
            raise SourceChangedError(
                f"{self.remote.on_host(self.path)} changed while it was fetched; try again"
            )
        await in_thread(incoming.finish, status.size, status.mode, status.modified)

    async def _sound(self, read: ReadLocal, here: Status) -> int:
        """How many bytes of a local file can be kept."""
        remote = self.remote
        with remotely(remote.host, self.path, "read"):
            return await sound_prefix(
                self.file, read, remote.read_bytes, self.status, here, self.how.verify
            )

    async def _receive(self, incoming: IncomingFile, start: int) -> None:
        """Write the source from `start` on, several requests at a time."""
        remote, modified = self.remote, self.status.modified
        blocks: list[bytes] = []
        written, held = start, 0
        async with reading(self.file, start, self.status.size, remote.read_bytes) as arriving:
            try:
                while block := await self._next(arriving):
                    blocks.append(block)
                    held += len(block)
                    if held >= WRITE_BYTES:
                        await in_thread(incoming.write, blocks, written, modified)
                        written += held
                        self.meter.move(held)
                        blocks, held = [], 0
            finally:
                # What has arrived is kept, whatever ended it.
                incoming.write(blocks, written, modified)
            self.meter.move(held)

    async def _next(self, arriving: AsyncIterator[bytes]) -> bytes:
        """The next block, b"" after the last; only its errors are the server's."""
        with remotely(self.remote.host, self.path, "read"):
            return await anext(arriving, b"")
