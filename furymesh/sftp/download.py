"""One file from a server: continued, checked, finished as other downloads are.

Always true: the target of an atomic download is what it was or the whole
source, durable. A temporary file survives a failure only for `resume`.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import asyncssh

from furymesh.core.errors import EnvironmentFault, FuryMeshError, SourceChangedError
from furymesh.core.paths import shown
from furymesh.sftp.faults import remotely
from furymesh.sftp.how import How, Meter
from furymesh.sftp.pipeline import Window, in_thread, read_whole
from furymesh.sftp.remote import READ, Remote
from furymesh.sftp.sound import Status, sound_prefix
from furymesh.sftp.upload import Source
from furymesh.storage.files import open_plain, translating
from furymesh.storage.incoming import IncomingFile, discard

WRITE_BYTES = 1024 * 1024  # to disk at a time: a hop to a thread for each


async def download(remote: Remote, source: str, target: Path, how: How, meter: Meter) -> None:
    """Fetch a regular file to `target`; raises FuryMeshError."""
    async with remote.opened(source, READ) as file:
        status = await remote.status_of(file, source)
        if not status.is_file:
            raise EnvironmentFault(
                f"{shown(source)} on {shown(remote.host)} is neither a file nor a folder"
            )
        temporary = target.with_name(target.name + how.temp_suffix) if how.atomic else target
        if how.atomic and how.resume and await _complete(remote, file, source, status, target, how):
            await in_thread(discard, temporary)
            meter.reuse(status.size)
            return
        incoming = await in_thread(IncomingFile, temporary, keep=how.resume)
        try:
            await _fill(remote, file, source, status, incoming, target, how, meter)
        except BaseException:
            if how.atomic and not how.resume:
                with contextlib.suppress(FuryMeshError):
                    incoming.discard()
            raise
        finally:
            incoming.close()


async def _fill(
    remote: Remote,
    file: asyncssh.SFTPClientFile,
    source: str,
    status: Status,
    incoming: IncomingFile,
    target: Path,
    how: How,
    meter: Meter,
) -> None:
    """Make the incoming file equal to the source, and finish it as `target`."""
    start = 0
    if incoming.size:
        here = Status(status.mode, incoming.size, incoming.modified)
        with remotely(remote.host, source, "read"):
            start = await sound_prefix(
                file, incoming.read, remote.read_bytes, status, here, how.verify
            )
        if start == status.size and not how.atomic:
            meter.reuse(start)
            return
        await in_thread(incoming.cut, start)
    meter.reuse(start)
    await _receive(remote, file, source, incoming, start, status, meter)
    if await remote.status_of(file, source) != status:
        raise SourceChangedError(
            f"{shown(source)} on {shown(remote.host)} changed while it was fetched; try again"
        )
    await in_thread(incoming.finish, target, status.size, status.mode, status.modified)


async def _complete(
    remote: Remote,
    file: asyncssh.SFTPClientFile,
    source: str,
    status: Status,
    target: Path,
    how: How,
) -> bool:
    """Whether `target` holds the source already, as far as `verify` looks."""
    try:
        with translating(target, "read"):
            local = Source(open_plain(target, os.O_RDONLY), target)
    except EnvironmentFault:
        return False  # finishing tells, if it is in the way
    try:
        here = local.status()
        if here.size < status.size:
            return False
        with remotely(remote.host, source, "read"):
            sound = await sound_prefix(
                file, local.read, remote.read_bytes, status, here, how.verify
            )
        return sound == status.size
    finally:
        os.close(local.fd)


async def _receive(
    remote: Remote,
    file: asyncssh.SFTPClientFile,
    source: str,
    incoming: IncomingFile,
    start: int,
    status: Status,
    meter: Meter,
) -> None:
    """Write the source from `start` on, several requests at a time."""
    asked = written = start
    blocks: list[bytes] = []
    held = 0
    async with Window[bytes](remote.read_bytes) as window:
        try:
            while asked < status.size or window:
                while asked < status.size and not window.full:
                    length = min(remote.read_bytes, status.size - asked)
                    window.add(read_whole(file, asked, length))
                    asked += length
                with remotely(remote.host, source, "read"):
                    blocks.append(await window.first())
                held += len(blocks[-1])
                if held >= WRITE_BYTES:
                    await in_thread(incoming.write, blocks, written, status.modified)
                    written += held
                    meter.move(held)
                    blocks, held = [], 0
        finally:
            # What has arrived is kept, whatever ended it.
            incoming.write(blocks, written, status.modified)
        meter.move(held)
