"""`furymesh peers`: whom the running node knows, and how it found them."""

from __future__ import annotations

from itertools import groupby
from typing import Annotated

import typer

from furymesh.cli.options import FILE_ID, ConfigFile, DataDir, Json, settings

EXAMPLES = """
furymesh peers
furymesh peers 1f2e3d4c --json     # of one share or download
"""
NODE_DIGITS = 12  # characters of a node id in the table; --json has all of them


def command(
    context: typer.Context,
    share: Annotated[
        str | None,
        typer.Argument(metavar="ID", help=FILE_ID),
    ] = None,
    json: Json = False,
    config: ConfigFile = None,
    data_dir: DataDir = None,
) -> None:
    """Show the peers of the running node, and how each was found.

    Found by: user (--peer), link, config, resume (an earlier run), lan (the
    local network), exchange (another peer), tracker, dht, relay; incoming ones
    dialled this node themselves; a mirror is a server that the link or you named.
    What keeps it from finding more is told, too.
    """
    from furymesh.cli.exits import one_line
    from furymesh.cli.jobs import Job, run_job
    from furymesh.cli.output import note, say, say_json, table, width
    from furymesh.node import face

    settled = settings(context, config, data_dir)

    async def ask(job: Job) -> tuple[list[dict[str, object]], list[str]]:
        return await face.peers(settled, share), await face.troubles(settled)

    peers, troubles = run_job(ask)
    for trouble in troubles:
        note(one_line(trouble))
    if json:
        for peer in peers:
            say_json(peer)
        return
    if not peers:
        note("No peer is known at the moment.")
    headers = ("Node", "Address", "Found", "State")
    for file_id, group in groupby(peers, key=lambda peer: peer["file_id"]):
        rows = [
            (
                str(peer["node_id"] or "")[:NODE_DIGITS],
                str(peer["address"]),
                str(peer["found"]),
                str(peer["state"]) + (", through a relay" if peer["relayed"] else ""),
            )
            for peer in group
        ]
        say(f"Peers of {str(file_id)[:16]}" if file_id else "Linked, without a share in common")
        say(table(headers, rows, columns=width(), shrink=(3, 1)))
