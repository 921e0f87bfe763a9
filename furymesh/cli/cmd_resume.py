"""`furymesh resume`: go on with a download from its resume data alone."""

from __future__ import annotations

from typing import Annotated

import typer

from furymesh.cli.options import (
    ConfigFile,
    DataDir,
    Json,
    MaxConnections,
    MaxDownload,
    MaxUpload,
    Mirrors,
    NoSpaceCheck,
    Output,
    Peers,
    RequiredResumeId,
    Verbose,
    addresses,
    mirrors_of,
    rate,
    read_all,
    same_places,
    settings,
    with_connections,
    with_space_check,
)

EXAMPLES = """
furymesh resume --file-id 1f2e3d4c
furymesh resume --file-id 1f2e3d4c --peer 192.0.2.7:7654 --verbose
"""


def command(
    context: typer.Context,
    file_id: RequiredResumeId,
    output: Output = None,
    peer_id: Annotated[
        list[str] | None,
        typer.Option("--peer-id", metavar="ID", help="Fetch only from this node id; repeatable."),
    ] = None,
    peer: Peers = None,
    mirror: Mirrors = None,
    verbose: Verbose = False,
    max_upload: MaxUpload = None,
    max_download: MaxDownload = None,
    max_connections: MaxConnections = None,
    no_space_check: NoSpaceCheck = False,
    json: Json = False,
    config: ConfigFile = None,
    data_dir: DataDir = None,
) -> None:
    """Resume an interrupted download.

    Link, keys, mirrors and known peers are in the resume data; only missing chunks are
    fetched. `furymesh list-resume` shows what there is.
    """
    from furymesh.cli.output import failures_as_json, say

    with failures_as_json(json):
        settled = with_connections(settings(context, config, data_dir), max_connections)
        settled = with_space_check(settled, no_space_check)
        from furymesh.cli.download import OnComplete, OnEvent, run_download
        from furymesh.cli.passphrase import passphrase_for
        from furymesh.core.ids import parse_node_id
        from furymesh.node.resumes import find_resume

        peers, mirrors = addresses(peer), mirrors_of(mirror)
        only_nodes = read_all("--peer-id", parse_node_id, peer_id)
        upload, download = rate("--max-upload", max_upload), rate("--max-download", max_download)
        found = find_resume(file_id, settled)
        passphrase = passphrase_for(settled)
        if not json:
            say(f"Resuming transfer for file {found.hex()}...")

        async def fetch(on_event: OnEvent, on_complete: OnComplete) -> object:
            from furymesh.node import face

            result = await face.resume(
                found,
                settled,
                output=output,
                peers=peers,
                mirrors=mirrors,
                only_nodes=only_nodes,
                max_upload=upload,
                max_download=download,
                on_event=on_event,
                passphrase=passphrase,
            )
            on_complete(result)
            return result

        run_download(fetch, found, settled, places=same_places(context), json=json, verbose=verbose)
