"""`furymesh unshare`: stop sharing; the files stay."""

from __future__ import annotations

from typing import Annotated

import typer

from furymesh.cli import completion
from furymesh.cli.options import FILE_ID, ConfigFile, DataDir, settings

EXAMPLES = """
furymesh unshare 1f2e3d4c
"""


def command(
    context: typer.Context,
    file_id: Annotated[
        str,
        typer.Argument(metavar="ID", help=FILE_ID, autocompletion=completion.share_ids),
    ],
    config: ConfigFile = None,
    data_dir: DataDir = None,
) -> None:
    """Stop sharing a file or folder. The files themselves stay."""
    from furymesh.cli.jobs import run_job
    from furymesh.cli.output import say
    from furymesh.core.paths import shown
    from furymesh.node import face

    settled = settings(context, config, data_dir)
    item = run_job(lambda job: face.unshare(file_id, settled))
    say(f"No longer sharing {shown(item.name)}; {shown(item.place)} stays where it is.")
