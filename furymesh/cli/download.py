"""Running a download for `get` and `resume`, and ending it well."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from furymesh.cli.exits import Interrupted, main_cause
from furymesh.core.errors import FuryMeshError, NotFoundError, UnavailableError
from furymesh.core.ids import ID_SIZE, FileId
from furymesh.core.link import Link

if TYPE_CHECKING:
    from furymesh.node.config import Config
    from furymesh.swarm.events import Event, Result

OnEvent = Callable[["Event"], None]
OnComplete = Callable[["Result"], None]
Fetch = Callable[[OnEvent, OnComplete], Awaitable[object]]


def run_download(
    fetch: Fetch,
    file_id: FileId,
    config: Config,
    *,
    places: str,
    json: bool,
    verbose: bool = False,
    announce: bool = False,
    after: str = "",
) -> None:
    """Run `fetch` under signals and show it.

    `places` are options to repeat in the advice how to continue, `after` is a
    line for when it is complete and goes on serving. Raises Interrupted and the
    errors of the download, with that advice where progress was kept.
    """
    from furymesh.cli.jobs import Job, run_job
    from furymesh.cli.output import note
    from furymesh.cli.progress import open_display
    from furymesh.cli.transfer import TransferView

    display = open_display(json=json)
    view = TransferView(display, json=json, verbose=verbose, announce=announce)
    complete: list[Result] = []

    def on_complete(result: Result) -> None:
        complete.append(result)
        view.on_complete(result)
        if after:
            note(after)

    async def work(job: Job) -> object:
        return await fetch(job.guard(view.on_event), job.guard(on_complete))

    try:
        run_job(work)
    except Interrupted:
        # What a signal ends after completion is the serving, or the farewell.
        if not complete:
            raise Interrupted(_how_to_continue(file_id, config, places)) from None
    except Exception as error:
        cause = main_cause(error)
        if isinstance(cause, UnavailableError) and _is_kept(file_id, config):
            hint = f"continue with: {_command(file_id, places)}"
            raise UnavailableError(f"{cause}; {hint}") from error
        raise
    finally:
        display.close()


def parse_target(text: str, config: Config) -> Link:
    """A link, a file id, or the start of the id of an unfinished download.

    Raises UsageError, AmbiguousIdError or NotFoundError.
    """
    from furymesh.node.resumes import find_resume

    stripped = text.strip()
    if (
        len(stripped) < 2 * ID_SIZE
        and stripped
        and set(stripped.lower()) <= set("0123456789abcdef")
    ):
        try:
            return Link(find_resume(stripped, config))
        except NotFoundError as error:
            raise NotFoundError(
                f"{error}; to begin one give its link, or all {2 * ID_SIZE} digits of its id"
            ) from None
    return Link.parse(text)


def _how_to_continue(file_id: FileId, config: Config, places: str) -> str:
    if _is_kept(file_id, config):
        return f"interrupted; progress kept; continue with: {_command(file_id, places)}"
    return "interrupted before there was progress to keep; run the same command again"


def _command(file_id: FileId, places: str) -> str:
    return f"furymesh resume --file-id {file_id.hex()[:16]}{places}"


def _is_kept(file_id: FileId, config: Config) -> bool:
    from furymesh.node.resumes import find_resume

    try:
        find_resume(file_id.hex(), config)
    except FuryMeshError:
        return False
    return True
