"""One file to a server: continued, checked, renamed when whole.

Always true: the target of an atomic upload is what it was or the whole source.
A temporary file survives a failure only for `resume`, and what is kept of it
has been compared with the source, as far as `verify` says.

Two uploads to one target: those of one process exclude each other. Another
program may remove or replace the temporary file at any time, so what is renamed
has been compared with the file that was written, a moment before. SFTP has no
lock; two programs that go on with one temporary file write into the same one.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import asyncssh

from furymesh.core.errors import (
    AlreadyRunningError,
    EnvironmentFault,
    FuryMeshError,
    SourceChangedError,
)
from furymesh.core.paths import shown
from furymesh.sftp.faults import remotely
from furymesh.sftp.how import OLD_SUFFIX, How, Meter
from furymesh.sftp.pipeline import Window, in_thread
from furymesh.sftp.remote import CLEANUP_SECONDS, CREATE, EMPTY, ONLY_NEW, READ, WRITE, Remote
from furymesh.sftp.sound import Status, sound_prefix
from furymesh.storage.files import translating
from furymesh.storage.incoming import read_bytes_at
from furymesh.storage.scan import Facts

READ_BYTES = 1024 * 1024  # of the source at a time: a hop to a thread for each


@dataclass(frozen=True, slots=True)
class Source:
    """An open local file."""

    fd: int
    path: Path

    def facts(self) -> os.stat_result:
        with translating(self.path, "read"):
            return os.fstat(self.fd)

    def status(self) -> Status:
        return Status.of(self.facts())

    def read(self, offset: int, length: int) -> bytes:
        with translating(self.path, "read"):
            return read_bytes_at(self.fd, offset, length)

    def changed(self) -> SourceChangedError:
        return SourceChangedError(f"{shown(str(self.path))} changed while it was sent; try again")


@dataclass(frozen=True, slots=True)
class Upload:
    """An open file on its way to `target`; `run` it once."""

    remote: Remote
    source: Source
    target: str
    how: How
    meter: Meter

    async def run(self) -> None:
        """Raises FuryMeshError."""
        with self.remote.claimed(self.target):
            if self.how.atomic:
                await self._atomically()
            else:
                await self._fill(self.target, await self.remote.status(self.target))

    async def _atomically(self) -> None:
        remote, target, how = self.remote, self.target, self.how
        temporary = target + how.temp_suffix
        aside = temporary + OLD_SUFFIX
        existing = await remote.recover(target, aside)
        self._check_way(target, existing)
        size = self.source.status().size
        if how.resume and existing and existing.size >= size:
            async with remote.opened(target, READ) as file:
                sound = await self._sound(file, target, existing)
            if sound == size:
                await remote.remove(temporary)
                self.meter.reuse(sound)
                return
        try:
            partial = await remote.status(temporary)
            if partial and not how.resume:
                await remote.remove(temporary)
                partial = None
            await self._fill(temporary, partial)
            await remote.replace(temporary, target, aside)
        except AlreadyRunningError:
            raise  # what lies there is another's
        except BaseException:
            if not how.resume:
                with contextlib.suppress(FuryMeshError, TimeoutError):
                    async with asyncio.timeout(CLEANUP_SECONDS):
                        await remote.remove(temporary)
            raise

    async def _fill(self, path: str, partial: Status | None) -> None:
        """Make the file at `path`, where `partial` was found, equal to the source."""
        self._check_way(path, partial)
        remote, how = self.remote, self.how
        before = self.source.facts()
        status = Status.of(before)
        flags = WRITE | CREATE
        if not how.resume:
            flags |= ONLY_NEW if how.atomic else EMPTY
        elif how.verify != "size":
            flags |= READ
        async with remote.opened(path, flags) as file:
            start = 0
            if partial and how.resume:
                start = await self._sound(file, path, partial)
                if start == status.size < partial.size and not how.atomic:
                    self.meter.reuse(start)
                    return
                if start < partial.size:
                    start = await remote.cut(file, path, start)
            self.meter.reuse(start)
            await self._send(file, path, start, status)
            if Facts.of(self.source.facts()) != Facts.of(before):
                raise self.source.changed()
            if not await remote.describe(file, path, status.modified, status.mode):
                self.meter.note(f"{shown(remote.host)} does not keep modes and times of files")
            await remote.sync(file, path)
            await self._check_own(file, path, status)

    def _check_way(self, path: str, found: Status | None) -> None:
        if found and not found.is_file:
            raise EnvironmentFault(
                f"cannot write {self.remote.on_host(path)}: a directory, a link or a"
                " special file is in the way; remove it or choose another name"
            )

    async def _check_own(self, file: asyncssh.SFTPClientFile, path: str, status: Status) -> None:
        """See that all was written, and that `path` still leads to it."""
        remote = self.remote
        written, named = await asyncio.gather(remote.status_of(file, path), remote.status(path))
        if written.size != status.size:
            raise SourceChangedError(f"something else wrote to {remote.on_host(path)}; try again")
        if not self.how.atomic:
            return
        dated = written.modified == status.modified  # or the server keeps times of its own
        if (
            named is None
            or (named.size, named.owner) != (written.size, written.owner)
            or (dated and named.modified != written.modified)
        ):
            raise AlreadyRunningError(
                f"another program uploads to {remote.on_host(self.target)} too;"
                " let one of them finish, then run this again"
            )

    async def _sound(self, file: asyncssh.SFTPClientFile, path: str, partial: Status) -> int:
        """How many bytes of a file on the server can be kept."""
        remote, source = self.remote, self.source
        with remotely(remote.host, path, "compare"):
            return await sound_prefix(
                file, source.read, remote.read_bytes, source.status(), partial, self.how.verify
            )

    async def _send(
        self, file: asyncssh.SFTPClientFile, path: str, start: int, status: Status
    ) -> None:
        """Write the source from `start` on, several requests at a time."""
        remote = self.remote
        ready = memoryview(b"")
        # Not later: from the first new byte on, the file tells of which source it is.
        await remote.describe(file, path, status.modified)
        async with Window[int](remote.write_bytes) as window:
            while start < status.size or window:
                while start < status.size and not window.full:
                    if not ready:
                        length = min(READ_BYTES, status.size - start)
                        ready = memoryview(await in_thread(self.source.read, start, length))
                        if not ready:
                            raise self.source.changed()
                    block = ready[: remote.write_bytes]
                    ready = ready[len(block) :]
                    # It is joined to a packet at once: as bytes it would be copied twice.
                    window.add(file.write(cast("bytes", block), start))
                    start += len(block)
                async with remote.writing(path):
                    written = await window.first()
                self.meter.move(written)
