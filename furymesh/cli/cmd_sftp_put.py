"""`furymesh sftp put`: upload a file or folder to an SFTP server."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from furymesh.cli.options import ConfigFile, DataDir, Json, settings
from furymesh.cli.sftp import (
    SSH_CONFIG,
    URL,
    Atomic,
    Choices,
    IdentityFiles,
    Jobs,
    Resume,
    SshConfig,
    Verify,
    remote_target,
    run_transfer,
)

EXAMPLES = """
furymesh sftp put movie.mkv sftp://host/srv/movie.mkv
furymesh sftp put photos sftp://me@host:2222/~/backup/
furymesh sftp put big.iso sftp://host/big.iso --verify full
"""


def command(
    context: typer.Context,
    local: Annotated[str, typer.Argument(metavar="LOCAL", help="A file or folder.")],
    url: Annotated[
        str, typer.Argument(metavar="URL", help=f"{URL}; one that ends in / is a folder for it.")
    ],
    atomic: Atomic = True,
    resume: Resume = True,
    verify: Verify = "tail",
    identity_file: IdentityFiles = None,
    ssh_config: SshConfig = SSH_CONFIG,
    jobs: Jobs = 4,
    json: Json = False,
    config: ConfigFile = None,
    data_dir: DataDir = None,
) -> None:
    """Upload a file or folder to an SFTP server.

    A file has another name there until it is whole, and an upload that was
    interrupted goes on where it was. The server's host key must be known.
    """
    from furymesh.cli.output import failures_as_json
    from furymesh.core.errors import NotFoundError
    from furymesh.core.paths import shown
    from furymesh.sftp.url import parse

    with failures_as_json(json):
        settings(context, config, data_dir)
        server = parse(url)
        target = remote_target(server, local)
        if not os.path.lexists(local):  # before anybody is asked for a passphrase
            raise NotFoundError(f"there is no file or folder at {shown(local)}")
        run_transfer(
            server,
            Choices(atomic, resume, verify, jobs, identity_file, ssh_config, json),
            lambda connection, more: connection.sftp_write(local, target, atomic, resume, **more),
            "Sending",
            f"Sent {shown(local)} to {shown(server.host)}, as {shown(target)}",
        )
