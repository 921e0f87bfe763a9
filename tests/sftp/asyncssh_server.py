"""asyncssh's own SFTP server as a process.

Its arguments: PORT HOST_KEY AUTHORIZED_KEYS POSIX_RENAME(0|1) USER [LISTED_NAME].
With a USER it becomes that one; the last is a name that it lists in every
directory, whatever is there. The process that was started only forks the one
that serves: at once, and again for each line of its input, since that is much
faster than to start anew.
"""

from __future__ import annotations

import asyncio
import os
import pwd
import sys
from collections.abc import AsyncIterator

import asyncssh
from asyncssh.sftp import SFTPServerHandler

LISTED = sys.argv[6:]


class Lying(asyncssh.SFTPServer):
    """Lists a name that is not there."""

    async def scandir(self, path: bytes) -> AsyncIterator[asyncssh.SFTPName]:
        for name in LISTED:
            attributes = asyncssh.SFTPAttrs(size=1, permissions=0o100644, atime=1, mtime=1)
            yield asyncssh.SFTPName(name.encode(), attrs=attributes)


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
        server_host_keys=[asyncssh.read_private_key(host_key)],
        authorized_client_keys=authorized_keys,
        sftp_factory=Lying if LISTED else True,
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
