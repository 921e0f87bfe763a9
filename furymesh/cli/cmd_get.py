"""`furymesh get`: download from everybody who has it."""

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
    Verbose,
    addresses,
    link_text,
    mirrors_of,
    rate,
    same_places,
    seconds,
    settings,
    with_connections,
    with_space_check,
)

EXAMPLES = """
furymesh get 'furymesh:1f2e…?peer=192.0.2.7:7654'
furymesh get 1f2e3d4c… --peer 192.0.2.7:7654 --output ~/Videos/
furymesh get LINK --seed --max-upload 2M
furymesh get - < link.txt          # a key that no process list shows
"""
AFTER = "Serving it to others now; press Ctrl-C to stop."


def command(
    context: typer.Context,
    target: Annotated[
        str,
        typer.Argument(
            metavar="LINK|ID", help="What `furymesh share` printed; quote it. -: standard input."
        ),
    ],
    output: Output = None,
    peer: Peers = None,
    mirror: Mirrors = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an existing file instead of adding _1.")
    ] = False,
    sha256: Annotated[
        str | None,
        typer.Option("--sha256", metavar="HEX", help="Check the finished file against this too."),
    ] = None,
    seed: Annotated[
        bool, typer.Option("--seed", help="Keep serving it afterwards, until Ctrl-C.")
    ] = False,
    detach: Annotated[
        bool, typer.Option("--detach", help="Hand it to the running node and return.")
    ] = False,
    timeout: Annotated[
        float | None,
        typer.Option("--timeout", metavar="S", help="Give up after S seconds without a peer."),
    ] = None,
    verbose: Verbose = False,
    max_upload: MaxUpload = None,
    max_download: MaxDownload = None,
    max_connections: MaxConnections = None,
    no_space_check: NoSpaceCheck = False,
    json: Json = False,
    config: ConfigFile = None,
    data_dir: DataDir = None,
) -> None:
    """Download a share from all its peers at once.

    A download that was interrupted goes on where it was. The file gets its
    name only when every chunk of it was verified.
    """
    from furymesh.cli.output import failures_as_json

    with failures_as_json(json):
        settled = with_connections(settings(context, config, data_dir), max_connections)
        settled = with_space_check(settled, no_space_check)
        from furymesh.cli.download import OnComplete, OnEvent, parse_target, run_download
        from furymesh.cli.passphrase import passphrase_for
        from furymesh.node import face

        link = parse_target(link_text(target), settled)
        peers, mirrors = addresses(peer), mirrors_of(mirror)
        if detach:
            _refuse_limits(
                timeout, max_upload, max_download, max_connections, no_space_check or None
            )
            from furymesh.cli.jobs import run_job

            run_job(
                lambda job: face.detach(
                    link,
                    settled,
                    output=output,
                    peers=peers,
                    mirrors=mirrors,
                    overwrite=overwrite,
                    sha256=sha256,
                )
            )
            _tell_detached(link.file_id.hex(), json)
            return
        passphrase = passphrase_for(settled)
        patience = seconds("--timeout", timeout)
        upload, download = rate("--max-upload", max_upload), rate("--max-download", max_download)

        async def fetch(on_event: OnEvent, on_complete: OnComplete) -> object:
            return await face.get(
                link,
                settled,
                output=output,
                peers=peers,
                mirrors=mirrors,
                overwrite=overwrite,
                sha256=sha256,
                timeout=patience,
                max_upload=upload,
                max_download=download,
                on_event=on_event,
                seed=seed,
                on_complete=on_complete,
                passphrase=passphrase,
            )

        run_download(
            fetch,
            link.file_id,
            settled,
            places=same_places(context),
            json=json,
            verbose=verbose,
            announce=True,
            after=AFTER if seed else "",
        )


def _refuse_limits(*limits: object) -> None:
    from furymesh.core.errors import UsageError

    if any(limit is not None for limit in limits):
        raise UsageError(
            "--detach leaves timeout and limits to the running node: set them there instead"
        )


def _tell_detached(file_id: str, json: bool) -> None:
    from furymesh.cli.output import say, say_json

    if json:
        say_json({"event": "detached", "file_id": file_id})
    else:
        say(f"The running node downloads {file_id[:16]} now.")
