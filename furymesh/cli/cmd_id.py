"""`furymesh id`: who this node is and where it listens."""

from __future__ import annotations

import typer

from furymesh.cli.options import ConfigFile, DataDir, Json, settings

EXAMPLES = """
furymesh id
furymesh id --json
"""


def command(
    context: typer.Context,
    json: Json = False,
    config: ConfigFile = None,
    data_dir: DataDir = None,
) -> None:
    """Show this node's id, and its addresses if it runs.

    The id is made on first use and stays with the data directory. Others pin
    it as NODE-ID@HOST:PORT, or allow it with `furymesh node --allow`.
    """
    from furymesh.cli.jobs import run_job
    from furymesh.cli.output import say, say_json
    from furymesh.core.ids import node_id_text
    from furymesh.core.paths import shown
    from furymesh.node import face

    settled = settings(context, config, data_dir)
    node_id = node_id_text(face.identity(settled))
    status = run_job(lambda job: face.status(settled))
    listed = (status or {}).get("addresses")
    addresses = [str(address) for address in listed] if isinstance(listed, list) else []
    if json:
        running = status is not None
        say_json({"node_id": node_id, "addresses": addresses, "running": running})
        return
    say(f"Node ID: {node_id}")
    for address in addresses:
        say(f"Listening on {shown(address)}")
    if status is None:
        say("Not running. Start it with: furymesh node")
