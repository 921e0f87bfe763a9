"""`furymesh sftp get`: download a file or folder from an SFTP server."""

from __future__ import annotations

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
    local_target,
    run_transfer,
)

EXAMPLES = """
furymesh sftp get sftp://host/srv/movie.mkv movie.mkv
furymesh sftp get sftp://me@host:2222/~/photos .
furymesh sftp get sftp://host/big.iso big.iso --json
"""


def command(
    context: typer.Context,
    url: Annotated[str, typer.Argument(metavar="URL", help=URL)],
    local: Annotated[
        str, typer.Argument(metavar="LOCAL", help="Its new name; . or dir/ is a folder for it.")
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
    """Download a file or folder from an SFTP server.

    A file has another name here until it is whole, and a download that was
    interrupted goes on where it was. The server's host key must be known.
    """
    from furymesh.cli.output import failures_as_json
    from furymesh.core.paths import shown
    from furymesh.sftp.url import parse

    with failures_as_json(json):
        settings(context, config, data_dir)
        server = parse(url)
        target = local_target(local, server)
        run_transfer(
            server,
            Choices(atomic, resume, verify, jobs, identity_file, ssh_config, json),
            lambda connection, more: connection.sftp_read(
                server.path, target, atomic, resume, **more
            ),
            "Fetching",
            f"Fetched {shown(server.path)} from {shown(server.host)}, to {shown(target)}",
        )
