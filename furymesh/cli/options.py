"""Options that several commands share, and the reading of their values."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from furymesh.cli import completion

if TYPE_CHECKING:
    from furymesh.core.link import Address, Mirror
    from furymesh.node.config import Config

T = TypeVar("T")

ConfigFile = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", help="Configuration file to use."),
]
DataDir = Annotated[
    Path | None,
    typer.Option("--data-dir", metavar="DIR", help="Where identity, shares and progress are kept."),
]
Json = Annotated[bool, typer.Option("--json", help="Answer in JSON, one object a line.")]
Peers = Annotated[
    list[str] | None,
    typer.Option(
        "--peer", metavar="ADDR", help="host:port, [v6]:port or node-id@host:port; repeatable."
    ),
]
Mirrors = Annotated[
    list[str] | None,
    typer.Option(
        "--mirror",
        metavar="URL",
        help="https, http or sftp URL of the file, or of the folder with all files; repeatable.",
    ),
]
MaxUpload = Annotated[
    str | None,
    typer.Option("--max-upload", metavar="RATE", help="Bytes a second, like 12M or 12MiB."),
]
MaxDownload = Annotated[
    str | None,
    typer.Option("--max-download", metavar="RATE", help="Bytes a second, like 12M or 12MiB."),
]
MaxConnections = Annotated[
    int | None,
    typer.Option(
        "--max-connections",
        metavar="N",
        min=1,
        max=10_000,
        help="Links to other nodes at a time.",
    ),
]
NoSpaceCheck = Annotated[
    bool,
    typer.Option(
        "--no-space-check", help="Start even if it will not fit; pause when the disk is full."
    ),
]
Verbose = Annotated[
    bool, typer.Option("--verbose", "-v", help="Tell more: every address and peer.")
]


def _on_disk(output: Path | None) -> Path | None:
    if output == Path("-"):
        from furymesh.core.errors import UsageError

        raise UsageError(
            "--output: a download cannot go to standard output, for its chunks come in any"
            " order; name a file"
        )
    return output


Output = Annotated[
    Path | None,
    typer.Option(
        "--output", metavar="PATH", help="File or directory to save to.", callback=_on_disk
    ),
]
FILE_ID = "File id, or its first 8 or more hex digits."
_RESUME_ID = typer.Option(
    "--file-id", metavar="ID", help=FILE_ID, autocompletion=completion.resume_ids
)
ResumeId = Annotated[str | None, _RESUME_ID]
RequiredResumeId = Annotated[str, _RESUME_ID]


def settings(context: typer.Context, config: Path | None, data_dir: Path | None) -> Config:
    """The configuration that a command runs with; raises ConfigError.

    --config and --data-dir may also stand before the command.
    """
    from furymesh.node.config import load_config

    return load_config(*places(context, config, data_dir))


def with_connections(config: Config, count: int | None) -> Config:
    """The configuration with the value of --max-connections, if that was given."""
    if count is None:
        return config
    node = config.node.model_copy(update={"max_connections": count})
    return config.model_copy(update={"node": node})


def with_space_check(config: Config, skip: bool) -> Config:
    """The configuration with --no-space-check, if that was given."""
    if not skip:
        return config
    storage = config.storage.model_copy(update={"check_space": False})
    return config.model_copy(update={"storage": storage})


def same_places(context: typer.Context) -> str:
    """The --config and --data-dir of this command line, to repeat in another one."""
    config, data_dir = places(context, context.params.get("config"), context.params.get("data_dir"))
    words = []
    for option, path in (("--config", config), ("--data-dir", data_dir)):
        if path is not None:
            words += [option, shlex.quote(str(path))]
    return "".join(f" {word}" for word in words)


def places(
    context: typer.Context, config: Path | None, data_dir: Path | None
) -> tuple[Path | None, Path | None]:
    """What --config and --data-dir name, after the command or before it."""
    before = context.find_root().params
    return config or before.get("config"), data_dir or before.get("data_dir")


def read(option: str, parse: Callable[[str], T], text: str | None) -> T | None:
    """`parse(text)`, None if there is none; its UsageError then names the option."""
    if text is None:
        return None
    from furymesh.core.errors import UsageError

    try:
        return parse(text)
    except UsageError as error:
        raise UsageError(f"{option}: {error}") from None


def read_all(option: str, parse: Callable[[str], T], texts: Sequence[str] | None) -> tuple[T, ...]:
    """`read` for an option that may come several times."""
    values = (read(option, parse, text) for text in texts or ())
    return tuple(value for value in values if value is not None)


def addresses(texts: Sequence[str] | None) -> tuple[Address, ...]:
    """The values of --peer."""
    from furymesh.core.link import Address

    return read_all("--peer", Address.parse, texts)


def mirrors_of(texts: Sequence[str] | None) -> tuple[Mirror, ...]:
    """The values of --mirror."""
    from furymesh.core.errors import UsageError
    from furymesh.core.link import MAX_LINK_MIRRORS, Mirror

    named = read_all("--mirror", Mirror.parse, texts)
    if len(named) > MAX_LINK_MIRRORS:
        raise UsageError(f"--mirror: at most {MAX_LINK_MIRRORS} mirrors can be used at once")
    return named


def link_text(argument: str) -> str:
    """The argument LINK|ID itself or, for "-", the line on standard input.

    A link in the arguments is seen by every user of the machine, its key too.
    Raises UsageError.
    """
    if argument != "-":
        return argument
    from furymesh.core.errors import UsageError
    from furymesh.core.link import MAX_LINK_LENGTH

    # One character more than a link may have: what is longer is refused as such.
    text = sys.stdin.readline(MAX_LINK_LENGTH + 2).strip() if sys.stdin else ""
    if not text:
        raise UsageError("there is no link on standard input: write one line to it")
    return text


def rate(option: str, text: str | None) -> int | None:
    """The value of --max-upload or --max-download, bytes a second."""
    from furymesh.core.errors import UsageError
    from furymesh.core.units import parse_size

    value = read(option, parse_size, text)
    if value == 0:
        raise UsageError(f"{option}: 0 would never finish; leave the option out for no limit")
    return value


def seconds(option: str, value: float | None) -> float | None:
    """`value` if it is a time to wait, in seconds; raises UsageError."""
    from furymesh.core.errors import UsageError

    if value is not None and not 0 < value < float("inf"):
        raise UsageError(f"{option}: give a number of seconds above 0")
    return value
