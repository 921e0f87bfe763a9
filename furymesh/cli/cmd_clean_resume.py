"""`furymesh clean-resume`: give unfinished downloads up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from furymesh.cli.options import ConfigFile, DataDir, Json, ResumeId, settings

if TYPE_CHECKING:
    from furymesh.core.ids import FileId
    from furymesh.node.config import Config

EXAMPLES = """
furymesh clean-resume --file-id 1f2e3d4c
furymesh clean-resume --all --yes
"""


def command(
    context: typer.Context,
    file_id: ResumeId = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Give up every unfinished download.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    json: Json = False,
    config: ConfigFile = None,
    data_dir: DataDir = None,
) -> None:
    """Remove the resume data of a download and its partial file.

    Finished files stay. At a terminal, --all asks first.
    """
    from furymesh.cli.asking import agreed, can_ask
    from furymesh.cli.output import note, plural, say
    from furymesh.core.errors import UsageError
    from furymesh.node.resumes import find_resume

    if (file_id is None) is not everything:
        raise UsageError("say what to clean: either --file-id ID or --all")
    settled = settings(context, config, data_dir)
    if file_id is not None:
        _clean(find_resume(file_id, settled), settled, json)
        return
    file_ids = _all_ids(settled)
    if not file_ids:
        if not json:
            say("No unfinished downloads.")
        return
    what = plural(len(file_ids), "unfinished download")
    files = "its partial file" if len(file_ids) == 1 else "their partial files"
    if not yes and can_ask() and not agreed(f"Remove {what} and {files}?"):
        note("Nothing was removed.")
        raise typer.Exit(1)
    _clean_all(file_ids, settled, json)


def _all_ids(config: Config) -> list[FileId]:
    from furymesh.node.resumes import list_resume
    from furymesh.storage.resume_reader import Damaged

    return [
        item.file_id if isinstance(item, Damaged) else item.meta.file_id
        for item in list_resume(config)
    ]


def _clean_all(file_ids: list[FileId], config: Config, json: bool) -> None:
    """Clean each; one that cannot be cleaned keeps none of the others."""
    from furymesh.cli.exits import reason
    from furymesh.cli.output import complain
    from furymesh.core.errors import FuryMeshError

    failures: list[FuryMeshError] = []
    for file_id in file_ids:
        try:
            _clean(file_id, config, json)
        except FuryMeshError as error:
            failures.append(error)
    for failure in failures[:-1]:
        complain(reason(failure))
    if failures:
        raise failures[-1]


def _clean(file_id: FileId, config: Config, json: bool) -> None:
    from furymesh.cli.output import say, say_json
    from furymesh.core.paths import shown
    from furymesh.node.resumes import clean_resume

    cleaned = clean_resume(file_id, config)
    part = None if cleaned.part is None else str(cleaned.part)
    if json:
        say_json({"file_id": file_id.hex(), "part": part})
        return
    say(f"Removed resume data for file {file_id.hex()}")
    if part is not None:
        say(f"Removed {shown(part)}")
