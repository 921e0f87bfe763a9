"""`furymesh list-resume`: unfinished downloads, as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from furymesh.cli.options import ConfigFile, DataDir, Json, settings

if TYPE_CHECKING:
    from furymesh.storage.resume_reader import Damaged, Summary

EXAMPLES = """
furymesh list-resume
furymesh list-resume --json
"""
HEADERS = ("File ID", "Name", "Size", "Chunks", "Progress")


def command(
    context: typer.Context,
    json: Json = False,
    config: ConfigFile = None,
    data_dir: DataDir = None,
) -> None:
    """List downloads that can be resumed.

    The start of an id, 8 digits or more, is enough for the other commands.
    """
    from furymesh.cli.output import complain, say, say_json, table, width
    from furymesh.cli.resume_view import damaged_record, summary_record
    from furymesh.node.resumes import list_resume
    from furymesh.storage.resume_reader import Damaged

    items = list_resume(settings(context, config, data_dir))
    if json:
        say_json(
            [
                damaged_record(item) if isinstance(item, Damaged) else summary_record(item)
                for item in items
            ]
        )
    elif not items:
        say("No unfinished downloads.")
    else:
        say(table(HEADERS, [_row(item) for item in items], columns=width()))
    for item in items:
        if isinstance(item, Damaged):
            complain(item.reason)


def _row(item: Summary | Damaged) -> tuple[str, ...]:
    from furymesh.cli.resume_view import display_name, progress_percent, size_text
    from furymesh.storage.resume_reader import Damaged

    if isinstance(item, Damaged):
        return item.file_id.hex(), "", "", "", "damaged"
    total = item.meta.chunks_total
    return (
        item.meta.file_id.hex(),
        display_name(item.meta),
        size_text(item.meta),
        f"{item.chunks_done}/{'?' if total is None else total}",
        f"{progress_percent(item)}%",
    )
