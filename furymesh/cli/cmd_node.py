"""`furymesh node`: the long-lived peer."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from furymesh.cli.options import (
    ConfigFile,
    DataDir,
    Json,
    MaxConnections,
    MaxDownload,
    MaxUpload,
    Peers,
    addresses,
    rate,
    read,
    read_all,
    settings,
    with_connections,
)

if TYPE_CHECKING:
    from furymesh.swarm.events import Event

EXAMPLES = """
furymesh node
furymesh node --listen 0.0.0.0:0 --max-upload 2MiB
furymesh node --allow ulw5…3q --allow k6xa…7b
"""


def command(
    context: typer.Context,
    listen: Annotated[
        str | None,
        typer.Option(
            "--listen", metavar="HOST:PORT", help="Where to listen; port 0 takes any free one."
        ),
    ] = None,
    peer: Peers = None,
    allow: Annotated[
        list[str] | None,
        typer.Option("--allow", metavar="NODE_ID", help="Talk to this node only; repeatable."),
    ] = None,
    max_upload: MaxUpload = None,
    max_download: MaxDownload = None,
    max_connections: MaxConnections = None,
    json: Json = False,
    config: ConfigFile = None,
    data_dir: DataDir = None,
) -> None:
    """Serve what is shared, until Ctrl-C.

    `furymesh share`, `unshare` and `get --detach` talk to the node that runs in
    the same data directory.
    """
    from furymesh.cli.exits import Interrupted
    from furymesh.core.ids import parse_node_id
    from furymesh.core.link import Address

    settled = with_connections(settings(context, config, data_dir), max_connections)
    where = read("--listen", partial(Address.parse, any_port=True), listen)
    peers = addresses(peer)
    allowed = read_all("--allow", parse_node_id, allow)
    upload, download = rate("--max-upload", max_upload), rate("--max-download", max_download)

    import trio

    from furymesh.cli.jobs import Job, run_job
    from furymesh.cli.output import say_listening
    from furymesh.cli.passphrase import passphrase_for
    from furymesh.node.service import Node

    passphrase = passphrase_for(settled)

    async def work(job: Job) -> None:
        node = Node(settled, on_event=job.guard(_show), passphrase=passphrase)
        run = partial(
            node.run,
            listen=where,
            peers=peers,
            allow=allowed,
            max_upload=upload,
            max_download=download,
        )
        async with trio.open_nursery() as nursery:
            await nursery.start(run)
            say_listening(node.node_id, node.addresses, json=json)

    try:
        run_job(work)
    except Interrupted:
        return  # how a node ends


def _show(event: Event) -> None:
    from furymesh.cli.exits import one_line
    from furymesh.cli.output import note
    from furymesh.swarm.events import Note, Started

    if isinstance(event, Note):
        note(one_line(event.text))
    elif isinstance(event, Started):
        note(one_line(f"Downloading {event.name or event.file_id.hex()[:16]}"))
