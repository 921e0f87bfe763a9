"""asyncssh's own SFTP server as a process.

Its arguments: PORT HOST_KEY AUTHORIZED_KEYS POSIX_RENAME(0|1) USER [TRICK].
With a USER it becomes that one; a TRICK is something that other servers do. The
process that was started only forks the one that serves: at once, and again for
each line of its input, since that is much faster than to start anew.
"""

from __future__ import annotations

import asyncio
import os
import pwd
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncssh
from asyncssh.sftp import SFTPServerHandler

TRICK = [*sys.argv[6:], ""][0]
LISTED = "listed"
PASSWORD = "open sesame"


def named(name: bytes) -> asyncssh.SFTPName:
    attributes = asyncssh.SFTPAttrs(size=1, permissions=0o100644, atime=1, mtime=1)
    return asyncssh.SFTPName(name, attrs=attributes)


class Lying(asyncssh.SFTPServer):
    """Lists the name that the file LISTED holds, which is nowhere."""

    async def scandir(self, path: bytes) -> AsyncIterator[asyncssh.SFTPName]:
        yield named((Path(os.fsdecode(path)) / LISTED).read_bytes())


class Endless(asyncssh.SFTPServer):
    """Lists the directory itself, for ever."""

    async def scandir(self, path: bytes) -> AsyncIterator[asyncssh.SFTPName]:
        while True:
            yield named(b".")


class Silent(asyncssh.SFTPServer):
    """Never comes to list anything."""

    async def scandir(self, path: bytes) -> AsyncIterator[asyncssh.SFTPName]:
        await asyncio.Event().wait()
        yield named(b".")


class Undescribed(asyncssh.SFTPServer):
    """Changes neither modes, times nor sizes of files."""

    def fsetstat(self, file_obj: object, attrs: asyncssh.SFTPAttrs) -> None:
        raise asyncssh.SFTPPermissionDenied("no")


async def mute(channel: object) -> asyncssh.SFTPServer:
    """Never begins to talk SFTP."""
    await asyncio.Event().wait()
    raise AssertionError


class Asking(asyncssh.SSHServer):
    """Lets in whoever knows PASSWORD, whatever key he has."""

    def begin_auth(self, username: str) -> bool:
        return True

    def public_key_auth_supported(self) -> bool:
        return False

    def password_auth_supported(self) -> bool:
        return True

    def validate_password(self, username: str, password: str) -> bool:
        return password == PASSWORD


TRICKS: dict[str, Any] = {
    "": True,
    "lying": Lying,
    "endless": Endless,
    "silent": Silent,
    "undescribed": Undescribed,
    "mute": mute,
    "asking": True,
}


async def serve(
    port: str, host_key: str, authorized_keys: str, posix_rename: str, user: str
) -> None:
    if posix_rename == "0":
        # What it offers is a table of the class; a server without one entry is a real kind.
        SFTPServerHandler._extensions = [
            entry for entry in SFTPServerHandler._extensions if b"posix-rename" not in entry[0]
        ]
    await asyncssh.listen(
        "127.0.0.1",
        int(port),
        server_factory=Asking if TRICK == "asking" else None,
        server_host_keys=[asyncssh.read_private_key(host_key)],
        authorized_client_keys=authorized_keys,
        sftp_factory=TRICKS[TRICK],
    )
    if user:
        os.setuid(pwd.getpwnam(user).pw_uid)
    await asyncio.Event().wait()


if __name__ == "__main__":
    while os.fork():
        os.wait()
        if not sys.stdin.readline():
            sys.exit()
    asyncio.run(serve(*sys.argv[1:6]))
