"""What both commands of folder sync ask for."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from furymesh.node.config import Config

Archive = Annotated[
    Path | None, typer.Option("--archive", metavar="DIR", help="The folder; asked for if missing.")
]


def archive_directory(config: Config, given: Path | None) -> Path:
    """The folder that was named, here or in the configuration, or at the terminal."""
    folder = given or config.sync.archive
    return folder or Path(missing("--archive", "Archive directory: ")).expanduser()


def missing(option: str, prompt: str) -> str:
    """Ask at the terminal for what an option would have told; raises UsageError without one."""
    from furymesh.cli.asking import ask, can_ask
    from furymesh.core.errors import UsageError

    # Where the question is not seen, nobody knows that an answer is waited for.
    answer = ask(prompt) if can_ask() and sys.stderr.isatty() else ""
    if not answer:
        raise UsageError(f"missing option '{option}': give it, or run this at a terminal")
    return answer
