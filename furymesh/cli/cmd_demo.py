"""`furymesh demo`: the whole story on one machine."""

from __future__ import annotations

import typer

EXAMPLES = """
furymesh demo
"""


def command() -> None:
    """Watch furymesh work, on this machine and in a minute.

    Starts real nodes on loopback, shares a file, downloads it from several
    peers, kills the download, resumes it and verifies the result, telling what
    happens. Everything it makes is removed again.
    """
    from furymesh.cli.demo import run_demo

    raise typer.Exit(run_demo())
