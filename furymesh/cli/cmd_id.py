"""`furymesh id`: who this node is and where it listens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from furymesh.cli.options import ConfigFile, DataDir, Json, settings

if TYPE_CHECKING:
    from furymesh.node.config import Config

EXAMPLES = """
furymesh id
furymesh id --json
furymesh id --set-passphrase       # seals the keys on this disk
"""


def command(
    context: typer.Context,
    set_passphrase: Annotated[
        bool,
        typer.Option("--set-passphrase", help="Seal the keys on this disk, or change how."),
    ] = False,
    remove_passphrase: Annotated[
        bool, typer.Option("--remove-passphrase", help="Keep the keys open again.")
    ] = False,
    json: Json = False,
    config: ConfigFile = None,
    data_dir: DataDir = None,
) -> None:
    """Show this node's id, and its addresses if it runs.

    The id is made on first use and stays with the data directory. Others pin
    it as NODE-ID@HOST:PORT, or allow it with `furymesh node --allow`.

    A passphrase seals the identity and the keys of encrypted shares. It is
    asked for at the terminal, or read from the file that
    $FURYMESH_PASSPHRASE_FILE or encryption.passphrase_file names.
    """
    from furymesh.cli.jobs import run_job
    from furymesh.cli.output import say, say_json
    from furymesh.core.errors import UsageError
    from furymesh.core.ids import node_id_text
    from furymesh.core.paths import shown
    from furymesh.node import face
    from furymesh.node.passphrase import is_set

    settled = settings(context, config, data_dir)
    if set_passphrase and remove_passphrase:
        raise UsageError("--set-passphrase and --remove-passphrase contradict each other")
    if set_passphrase or remove_passphrase:
        _change(settled, remove=remove_passphrase)
    node_id = node_id_text(face.identity(settled))
    status = run_job(lambda job: face.status(settled))
    listed = (status or {}).get("addresses")
    addresses = [str(address) for address in listed] if isinstance(listed, list) else []
    if json:
        running = status is not None
        say_json(
            {
                "node_id": node_id,
                "addresses": addresses,
                "running": running,
                "passphrase": is_set(settled),
            }
        )
        return
    say(f"Node ID: {node_id}")
    for address in addresses:
        say(f"Listening on {shown(address)}")
    if status is None:
        say("Not running. Start it with: furymesh node")


def _change(config: Config, *, remove: bool) -> None:
    from furymesh.cli.output import note
    from furymesh.cli.passphrase import new_passphrase, passphrase_for
    from furymesh.node import passphrase

    current = passphrase_for(config)
    if remove:
        passphrase.remove_passphrase(config, current)
        note("No passphrase any more: whoever can read this disk can read the keys.")
    else:
        passphrase.set_passphrase(config, new_passphrase(config), current)
        note("The keys are sealed. Nobody can open them without the passphrase: keep it safe.")
