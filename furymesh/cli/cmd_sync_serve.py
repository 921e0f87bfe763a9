"""`furymesh sync serve`: takes in the folders of clients."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer

from furymesh.cli.options import ConfigFile, DataDir, Json, read, read_all, settings
from furymesh.cli.sync_options import Archive, archive_directory

EXAMPLES = """
furymesh sync serve --archive /srv/backup
furymesh sync serve --archive /srv/backup --sync-rate 3600 --allow ulw5…3q
"""


def command(
    context: typer.Context,
    archive: Archive = None,
    port: Annotated[
        int | None,
        typer.Option("--port", metavar="P", help="1024 to 65535, or 0 for any free one."),
    ] = None,
    listen: Annotated[
        str | None, typer.Option("--listen", metavar="HOST:PORT", help="Where to listen.")
    ] = None,
    sync_rate: Annotated[
        int | None,
        typer.Option(
            "--sync-rate",
            metavar="SECONDS",
            min=1,
            max=7 * 86400,
            help="Until a client is to come again.",
        ),
    ] = None,
    max_sessions: Annotated[
        int | None,
        typer.Option(
            "--max-sessions", metavar="N", min=1, max=64, help="Clients at a time; others wait."
        ),
    ] = None,
    allow: Annotated[
        list[str] | None,
        typer.Option("--allow", metavar="NODE_ID", help="Let in this node only; repeatable."),
    ] = None,
    json: Json = False,
    config: ConfigFile = None,
    data_dir: DataDir = None,
) -> None:
    """Take in the folders of clients, until Ctrl-C.

    Each client has a folder of its own in DIR. Those on the local network find
    this server by themselves.
    """
    from dataclasses import replace

    from furymesh.cli.exits import Interrupted
    from furymesh.core.errors import UsageError
    from furymesh.core.ids import parse_node_id
    from furymesh.core.link import Address

    settled = settings(context, config, data_dir)
    where = read("--listen", partial(Address.parse, any_port=True), listen)
    where = where or Address.parse(settled.sync.listen, any_port=True)
    if port is not None:
        if port and not 1024 <= port < 1 << 16:
            raise UsageError("--port: choose one from 1024 to 65535, or 0 for any free one")
        where = replace(where, port=port)
    allowed = read_all("--allow", parse_node_id, allow)
    folder = archive_directory(settled, archive)

    import trio

    from furymesh.cli.jobs import Job, run_job
    from furymesh.cli.passphrase import passphrase_for
    from furymesh.cli.sync_view import ServeView
    from furymesh.node.sync import serve_sync

    passphrase = passphrase_for(settled)
    view = ServeView(folder, json=json)

    async def work(job: Job) -> None:
        run = partial(
            serve_sync,
            settled,
            folder,
            where=where,
            rate=sync_rate or settled.sync.sync_rate,
            sessions=max_sessions or settled.sync.max_sessions,
            allow=allowed,
            on_event=job.guard(view.on_event),
            passphrase=passphrase,
        )
        async with trio.open_nursery() as nursery:
            view.listening(await nursery.start(run))

    try:
        run_job(work)
    except Interrupted:
        return  # how a server ends
