"""`furymesh list`: what this node shares."""

from __future__ import annotations

import typer

from furymesh.cli.options import ConfigFile, DataDir, Json, settings

EXAMPLES = """
furymesh list
furymesh list --json
"""


def command(
    context: typer.Context,
    json: Json = False,
    config: ConfigFile = None,
    data_dir: DataDir = None,
) -> None:
    """List what this node shares."""
    from furymesh.cli.output import say, say_json, table, width
    from furymesh.cli.passphrase import when_needed
    from furymesh.core.units import format_size
    from furymesh.node import face

    settled = settings(context, config, data_dir)
    items = face.shares(settled)
    if json and any(item.locked for item in items):
        items = when_needed(lambda passphrase: face.shares_with_keys(settled, passphrase))
    if json:
        for item in items:
            say_json(
                {
                    "file_id": item.file_id.hex(),
                    "link": item.link.text,
                    "name": item.name,
                    "size": item.size,
                    "chunks": item.chunks,
                    "path": item.place,
                    "encrypted": item.encrypted,
                    "private": item.private,
                }
            )
    elif not items:
        say("Nothing is shared. Share a file or folder with: furymesh share PATH")
    else:
        rows = [
            (
                item.file_id.hex(),
                item.name,
                format_size(item.size),
                f"{item.chunks}",
                item.place,
            )
            for item in items
        ]
        headers = ("File ID", "Name", "Size", "Chunks", "Path")
        say(table(headers, rows, columns=width(), shrink=(4, 1)))
