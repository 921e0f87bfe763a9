"""`furymesh show-resume`: one unfinished download in detail."""

from __future__ import annotations

import typer

from furymesh.cli.options import ConfigFile, DataDir, Json, RequiredResumeId, same_places, settings

EXAMPLES = """
furymesh show-resume --file-id 1f2e3d4c
"""


def command(
    context: typer.Context,
    file_id: RequiredResumeId,
    json: Json = False,
    config: ConfigFile = None,
    data_dir: DataDir = None,
) -> None:
    """Show how far one unfinished download is, chunk by chunk."""
    from furymesh.cli.output import say, say_json
    from furymesh.cli.resume_view import detail_lines, detail_record
    from furymesh.node.resumes import find_resume, show_resume

    settled = settings(context, config, data_dir)
    summary = show_resume(find_resume(file_id, settled), settled)
    if json:
        say_json(detail_record(summary))
    else:
        for line in detail_lines(summary, places=same_places(context)):
            say(line)
