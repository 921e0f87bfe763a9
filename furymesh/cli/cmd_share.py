"""`furymesh share`: hash files or folders, list them, print their links."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from furymesh.cli.options import (
    ConfigFile,
    DataDir,
    Json,
    Mirrors,
    mirrors_of,
    read,
    read_all,
    settings,
)

if TYPE_CHECKING:
    from furymesh.node.face import Shared

EXAMPLES = """
furymesh share movie.mkv
furymesh share photos/ --name "Summer" --encrypt
furymesh share big.iso --hash sha256 --chunk-size 4MiB --json
furymesh share big.iso --mirror https://www.example.org/big.iso
furymesh share https://www.example.org/big.iso     # read once, not kept
"""
LABEL = 24  # characters of a name beside the bar; the rest of the line is for the figures


def command(
    context: typer.Context,
    paths: Annotated[
        list[str],
        typer.Argument(metavar="PATH", help="Files, folders, or URLs of them on servers."),
    ],
    name: Annotated[
        str | None,
        typer.Option("--name", metavar="NAME", help="Name in the link instead of the file's own."),
    ] = None,
    hash_name: Annotated[
        str | None,
        typer.Option("--hash", metavar="blake3|sha256", help="Hash algorithm; blake3 by default."),
    ] = None,
    chunk_size: Annotated[
        str | None,
        typer.Option(
            "--chunk-size", metavar="SIZE", help="A power of two, 16KiB to 16MiB; else by size."
        ),
    ] = None,
    encrypt: Annotated[
        bool | None,
        typer.Option(
            "--encrypt/--no-encrypt", help="Seal names and content; only the link opens them."
        ),
    ] = None,
    private: Annotated[
        bool,
        typer.Option("--private", help="Never announce it; peers are only those named by hand."),
    ] = False,
    trackers: Annotated[
        list[str] | None,
        typer.Option(
            "--tracker", metavar="URL", help="Announce it there too, and say so in the link."
        ),
    ] = None,
    mirror: Mirrors = None,
    manifest_out: Annotated[
        Path | None,
        typer.Option(
            "--manifest-out",
            metavar="FILE",
            help="Write the manifest there too, to be put beside a mirror's file.",
        ),
    ] = None,
    json: Json = False,
    config: ConfigFile = None,
    data_dir: DataDir = None,
) -> None:
    """Share files or folders and print their links.

    Each PATH is hashed once and then known by its inode, so sharing it again
    is instant. The files stay where they are; a running node serves them at
    once, otherwise start one with `furymesh node`. Downloads fetch from mirrors
    what no peer has; the file behind an https, http or sftp URL, or the folder
    behind an sftp one, stays there, and its server is the first mirror.
    """
    from furymesh.cli.output import say
    from furymesh.cli.passphrase import passphrase_for
    from furymesh.core.errors import UsageError
    from furymesh.core.hashing import HashAlgorithm
    from furymesh.core.link import MAX_LINK_TRACKERS, Tracker
    from furymesh.core.units import parse_size
    from furymesh.node import face

    chunk_bytes = read("--chunk-size", parse_size, chunk_size)
    read("--hash", HashAlgorithm.from_label, hash_name)
    named = read_all("--tracker", Tracker.parse, trackers)
    if len(named) > MAX_LINK_TRACKERS:
        raise UsageError(f"--tracker: a link names at most {MAX_LINK_TRACKERS} trackers")
    mirrors = mirrors_of(mirror)
    if name is not None and len(paths) > 1:
        raise UsageError("--name fits one path only: share them one by one")
    if (mirrors or manifest_out) and len(paths) > 1:
        raise UsageError("--mirror and --manifest-out fit one path only: share them one by one")
    settled = settings(context, config, data_dir)
    sealed = settled.encryption.encrypt_by_default if encrypt is None else encrypt
    served: dict[str, None] = {}  # said once, of how many paths it may be so
    share = partial(
        face.share,
        config=settled,
        name=name,
        algorithm=hash_name,
        chunk_size=chunk_bytes,
        encrypt=sealed,
        private=private,
        trackers=named,
        mirrors=mirrors,
        manifest_out=manifest_out,
        passphrase=passphrase_for(settled) if sealed else None,
    )
    for path in paths:
        shared = _share(partial(share, path), f"Hashing {_label(path)}", json)
        _print(shared, json)
        served[_served(shared)] = None
    if not json:
        say("\n".join(served))


def _share(share: Callable[..., Awaitable[Shared]], activity: str, json: bool) -> Shared:
    from furymesh.cli.jobs import run_job
    from furymesh.cli.progress import BytesMeter, open_display

    display = open_display(json=json)
    meter = BytesMeter(display, activity)
    try:
        return run_job(lambda job: share(progress=meter))
    finally:
        display.close()


def _label(path: str) -> str:
    """The name of what is hashed, short beside a bar; the query of a URL may be a secret."""
    from furymesh.cli.output import shorten

    name = Path(path.partition("?")[0] if "://" in path else path).name
    return shorten(name, LABEL) or "it"


def _print(shared: Shared, json: bool) -> None:
    from furymesh.cli.output import left_out, plural, say, say_json
    from furymesh.core.paths import shown
    from furymesh.core.units import format_size

    left_out(shared.skipped)
    if json:
        say_json(
            {
                "file_id": shared.file_id.hex(),
                "link": shared.link.text,
                "name": shared.name,
                "size": shared.size,
                "chunks": shared.chunks,
                "chunk_size": shared.chunk_size,
                "hash": shared.hash,
                "path": shared.place,
                "encrypted": shared.encrypted,
                "cached": shared.cached,
                "served": shared.served,
            }
        )
        return
    known = ", unchanged since it was hashed" if shared.cached else ""
    say(
        f"Sharing {shown(shared.name)}"
        f" ({format_size(shared.size)}, {plural(shared.chunks, 'chunk')}{known})"
    )
    say(f"File ID: {shared.file_id.hex()}")
    say(f"Link: {shared.link.text}")
    if shared.encrypted:
        say("Encrypted: the link contains the key; whoever has it can read the content.")


def _served(shared: Shared) -> str:
    """Who serves it now, or how that comes about."""
    if shared.served and shared.path is None:
        return "The running node brings its downloaders together now; the bytes stay on the server."
    if shared.served:
        return "Served by the running node now."
    if shared.path is None:
        return (
            "Nobody has its manifest yet: run `furymesh node`, or put what --manifest-out writes\n"
            "beside it on the server, under its name and .furymesh."
        )
    return "Not served yet: run `furymesh node`."
