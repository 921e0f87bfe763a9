"""`furymesh sync push`: keeps a folder in step with a server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from furymesh.cli.options import (
    ConfigFile,
    DataDir,
    Json,
    MaxUpload,
    rate,
    read,
    seconds,
    settings,
)
from furymesh.cli.sync_options import Archive, archive_directory, missing

if TYPE_CHECKING:
    from furymesh.node.config import Config
    from furymesh.sync.pushing import Terms

EXAMPLES = """
furymesh sync push --archive ~/Documents --client-id my-laptop
furymesh sync push --archive . --client-id web --server 192.0.2.7:7656
furymesh sync push --archive . --client-id web --once --exclude '*.tmp'
"""


def command(
    context: typer.Context,
    archive: Archive = None,
    client_id: Annotated[
        str | None,
        typer.Option(
            "--client-id", metavar="ID", help="Its folder at the server; asked for if missing."
        ),
    ] = None,
    server: Annotated[
        str | None,
        typer.Option(
            "--server", metavar="ADDR", help="host:port or node-id@host:port, instead of looking."
        ),
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Sync once and end.")] = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="Sync when something changes, too.")
    ] = False,
    exclude: Annotated[
        list[str] | None,
        typer.Option("--exclude", metavar="PATTERN", help="As in .gitignore; repeatable."),
    ] = None,
    mirror: Annotated[
        bool, typer.Option("--mirror", help="Move to the server's trash what is not here.")
    ] = False,
    mirror_force: Annotated[
        bool, typer.Option("--mirror-force", help="Even if that is most of what it has.")
    ] = False,
    timeout: Annotated[
        float | None,
        typer.Option("--timeout", metavar="S", help="With --once: look for S seconds."),
    ] = None,
    max_upload: MaxUpload = None,
    json: Json = False,
    config: ConfigFile = None,
    data_dir: DataDir = None,
) -> None:
    """Send what has changed in a folder, until Ctrl-C.

    Now, and again whenever the server says. Only what the server lacks travels.
    Whatever interrupts it, it goes on by itself where it was. Ends with 1 if
    files failed: the next time tries them again.
    """
    from furymesh.cli.output import failures_as_json

    with failures_as_json(json):
        settled = settings(context, config, data_dir)
        from furymesh.core.errors import UsageError
        from furymesh.core.link import Address
        from furymesh.sync.client_book import check_client_id
        from furymesh.sync.pushing import Terms

        if timeout is not None and not once:
            raise UsageError("--timeout is for --once: without it a server is looked for for ever")
        patience = seconds("--timeout", timeout) or settled.transfer.timeout
        where = read("--server", Address.parse, server or settled.sync.server)
        upload = rate("--max-upload", max_upload)
        folder = archive_directory(settled, archive)
        name = client_id or settled.sync.client_id or missing("--client-id", "Unique client ID: ")
        terms = Terms(
            archive=folder,
            client_id=read("--client-id", check_client_id, name) or name,
            server=where,
            excludes=(*settled.sync.exclude, *(exclude or ())),
            mirror=mirror or mirror_force,
            force=mirror_force,
            watch=watch,
            once=once,
            timeout=patience if once else float("inf"),
            lan=settled.discovery.lan.enabled,
        )
        _push(settled, terms, upload, json)


def _push(config: Config, terms: Terms, upload: int | None, json: bool) -> None:
    from furymesh.cli.exits import Interrupted
    from furymesh.cli.jobs import Job, run_job
    from furymesh.cli.output import plural
    from furymesh.cli.passphrase import passphrase_for
    from furymesh.cli.progress import open_display
    from furymesh.cli.sync_view import PushView
    from furymesh.core.errors import LocalDataError
    from furymesh.node.sync import push_folder
    from furymesh.sync.events import Report

    passphrase = passphrase_for(config)
    display = open_display(json=json)
    view = PushView(display, terms, json=json)

    async def work(job: Job) -> Report:
        return await push_folder(
            config,
            terms,
            on_event=job.guard(view.on_event),
            max_upload=upload,
            passphrase=passphrase,
        )

    try:
        report = run_job(work)
    except Interrupted:
        if not terms.once and not view.syncing:
            return  # how a push without --once ends
        raise Interrupted("interrupted; what has arrived stays: run it again to go on") from None
    finally:
        display.close()
    if report.failed_count:
        raise LocalDataError(
            f"{plural(report.failed_count, 'file')} failed; the next sync tries again"
        )
