"""The commands put together: their names, order, help and examples."""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Sequence
from typing import Annotated

import typer

from furymesh.cli.main import DEBUG_VARIABLE
from furymesh.cli.options import ConfigFile, DataDir

# In the order in which they are met: share, fetch, take up again, look after.
# Each is `command` of its module, cmd_…; two words make a command of a group.
COMMANDS = (
    "share",
    "list",
    "unshare",
    "node",
    "get",
    "resume",
    "list-resume",
    "show-resume",
    "clean-resume",
    "verify",
    "sync serve",
    "sync push",
    "sftp put",
    "sftp get",
    "peers",
    "doctor",
    "id",
    "demo",
)

GROUPS = {
    "sync": "Keep a folder in step with a server, one way.",
    "sftp": "Move files and folders to and from SFTP servers.",
}

EXAMPLES = """
furymesh share movie.mkv           # prints a link; give it to a friend
furymesh node                      # serve it, until Ctrl-C
furymesh get 'furymesh:1f2e…'      # on the other machine
furymesh resume --file-id 1f2e3d4c # after anything interrupted it
furymesh demo                      # see all of this happen on this machine
"""


def make_app(arguments: Sequence[str] = ()) -> typer.Typer:
    """The command line as a typer application.

    If the first of the arguments that is no option names a command, only that
    one is there: making all of them takes longer than most commands do.
    """
    first = next((argument for argument in arguments if not argument.startswith("-")), None)
    names = [name for name in COMMANDS if name.split()[0] == first] or COMMANDS
    app = typer.Typer(
        name="furymesh",
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["--help", "-h"]},
    )
    app.callback(invoke_without_command=True, epilog=_epilog(EXAMPLES))(furymesh)
    groups = {"": app}
    for name in names:
        module = importlib.import_module(f"furymesh.cli.cmd_{re.sub('[ -]', '_', name)}")
        group, _, word = name.rpartition(" ")
        if group not in groups:
            groups[group] = typer.Typer(invoke_without_command=True)
            app.add_typer(
                groups[group], name=group, help=GROUPS[group], callback=_show_help_of_group
            )
        groups[group].command(word, epilog=_epilog(module.EXAMPLES))(module.command)
    return app


def _epilog(examples: str) -> str:
    """Examples as they stand: the mark keeps typer from filling the lines."""
    lines = [f"  {line}" for line in examples.strip().splitlines()]
    return "\n".join(["\b", "Examples:", *lines])


def _show_help_of_group(context: typer.Context) -> None:
    from furymesh.cli.output import say

    if context.invoked_subcommand is None:
        say(context.get_help().rstrip())


def _show_version(wanted: bool) -> None:
    if wanted:
        from furymesh import __version__
        from furymesh.cli.output import say

        say(f"furymesh {__version__}")
        raise typer.Exit


def furymesh(
    context: typer.Context,
    config: ConfigFile = None,
    data_dir: DataDir = None,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show where an error came from, with a traceback.")
    ] = False,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """Move big files and folders between machines.

    Chunks come from many peers at once, always encrypted and each verified;
    whatever interrupts a download, it goes on where it was.
    """
    if debug:
        os.environ[DEBUG_VARIABLE] = "1"
    if context.invoked_subcommand is None and not context.resilient_parsing:
        from furymesh.cli.output import say

        say(context.get_help().rstrip())
