"""One file to a server: continued, checked, renamed when whole.

Always true: the target of an atomic upload is what it was or the whole source.
A temporary file survives a failure only for `resume`, and what is kept of it
has been compared with the source, as far as `verify` says.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

import asyncssh

from furymesh.core.errors import EnvironmentFault, FuryMeshError, SourceChangedError
from furymesh.core.paths import shown
from furymesh.sftp.faults import remotely
from furymesh.sftp.how import How, Meter
from furymesh.sftp.pipeline import Window, in_thread
from furymesh.sftp.remote import CREATE, EMPTY, ONLY_NEW, READ, WRITE, Remote
from furymesh.sftp.sound import Status, sound_prefix
from furymesh.storage.files import translating
from furymesh.storage.incoming import read_bytes_at
from furymesh.storage.scan import Facts

READ_BYTES = 1024 * 1024  # of the source at a time: a hop to a thread for each
CLEANUP_SECONDS = 5.0  # a server that does not answer must not hold up a failure


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


async def upload(remote: Remote, source: Source, target: str, how: How, meter: Meter) -> None:
    """Send an open file to `target`; raises FuryMeshError."""
    status = source.status()
    existing = await remote.status(target)
    if existing and not existing.is_file:
        raise _in_the_way(remote, target)
    temporary = target + how.temp_suffix if how.atomic else target
    if how.atomic and how.resume and existing and existing.size >= status.size:
        async with remote.opened(target, READ) as file:
            sound = await _sound(remote, file, target, source, existing, how)
        if sound == status.size:
            await remote.remove(temporary)
            meter.reuse(sound)
            return
    try:
        await _fill(remote, source, temporary, how, meter)
        if how.atomic:
            await remote.replace(temporary, target, aside=temporary + ".old")
    except BaseException:
        if how.atomic and not how.resume:
            with contextlib.suppress(FuryMeshError, TimeoutError):
                await asyncio.wait_for(remote.remove(temporary), CLEANUP_SECONDS)
        raise


async def _fill(remote: Remote, source: Source, path: str, how: How, meter: Meter) -> None:
    """Make the file at `path` equal to the source."""
    before = source.facts()
    status = Status.of(before)
    partial = None
    if how.resume:
        partial = await remote.status(path)
        flags = WRITE | CREATE | (READ if how.verify != "size" else 0)
    elif how.atomic:
        await remote.remove(path)
        flags = WRITE | CREATE | ONLY_NEW
    else:
        flags = WRITE | CREATE | EMPTY
    if partial and not partial.is_file:
        raise _in_the_way(remote, path)
    async with remote.opened(path, flags) as file:
        start = 0
        if partial:
            start = await _sound(remote, file, path, source, partial, how)
            if start == status.size and not how.atomic:
                meter.reuse(start)
                return
            if partial.size > start:
                async with remote.writing(path):
                    await file.truncate(start)
        meter.reuse(start)
        await _send(remote, file, path, source, start, status, meter)
        if Facts.of(source.facts()) != Facts.of(before):
            raise source.changed()
        await remote.settle(file, path, status.mode, status.modified)
        if (await remote.status_of(file, path)).size != status.size:
            raise SourceChangedError(
                f"something else wrote to {shown(path)} on {shown(remote.host)}; try again"
            )


async def _sound(
    remote: Remote,
    file: asyncssh.SFTPClientFile,
    path: str,
    source: Source,
    partial: Status,
    how: How,
) -> int:
    """How many bytes of a file on the server can be kept."""
    with remotely(remote.host, path, "compare"):
        return await sound_prefix(
            file, source.read, remote.read_bytes, source.status(), partial, how.verify
        )


async def _send(
    remote: Remote,
    file: asyncssh.SFTPClientFile,
    path: str,
    source: Source,
    start: int,
    status: Status,
    meter: Meter,
) -> None:
    """Write the source from `start` on, several requests at a time."""
    ready = memoryview(b"")
    async with Window[int](remote.write_bytes) as window:
        while start < status.size or window:
            while start < status.size and not window.full:
                if not ready:
                    ready = memoryview(
                        await in_thread(source.read, start, min(READ_BYTES, status.size - start))
                    )
                    if not ready:
                        raise source.changed()
                block = bytes(ready[: remote.write_bytes])
                ready = ready[len(block) :]
                window.add(_write(file, block, start, status.modified))
                start += len(block)
            async with remote.writing(path):
                written = await window.first()
            meter.move(written)


async def _write(file: asyncssh.SFTPClientFile, block: bytes, offset: int, modified: int) -> int:
    """Write, and give the file the source's time right behind, without waiting in between."""
    mark = asyncssh.SFTPAttrs(atime=modified, mtime=modified)
    written, _ = await asyncio.gather(file.write(block, offset), file.setstat(mark))
    return int(written)


def _in_the_way(remote: Remote, path: str) -> EnvironmentFault:
    return EnvironmentFault(
        f"cannot write {shown(path)} on {shown(remote.host)}: a directory, a link or a"
        " special file is in the way; remove it or choose another name"
    )
