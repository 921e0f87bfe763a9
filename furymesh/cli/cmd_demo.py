"""`furymesh demo`: the whole story on one machine."""

from __future__ import annotations

import signal

import typer

from furymesh.cli.options import ConfigFile, DataDir, places, settings

EXAMPLES = """
furymesh demo
furymesh demo --data-dir /var/tmp  # where there is room for 1.1 GB
"""


def command(
    context: typer.Context,
    config: ConfigFile = None,
    data_dir: DataDir = None,
) -> None:
    """Watch furymesh work, on this machine and in a minute.

    Starts real nodes on loopback, shares a file, downloads it from several
    peers, kills the download, resumes it and verifies the result, telling what
    happens. All that it makes is in a folder of its own, below --data-dir if
    that is given, and is removed again; the nodes have a configuration of
    their own.
    """
    from furymesh.cli.demo import run_demo

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    settled = settings(context, config, data_dir)
    _, named = places(context, config, data_dir)
    raise typer.Exit(run_demo(None if named is None else settled.data_dir))
