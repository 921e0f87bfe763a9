"""`furymesh verify`: is this file or folder what its id says?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from furymesh.cli.options import ConfigFile, DataDir, Json, link_text, settings

if TYPE_CHECKING:
    from furymesh.node.face import Verified

EXAMPLES = """
furymesh verify movie.mkv 1f2e3d4c
furymesh verify photos/ - --json < link.txt
"""


def command(
    context: typer.Context,
    path: Annotated[Path, typer.Argument(metavar="PATH", help="A finished file or folder.")],
    target: Annotated[
        str,
        typer.Argument(
            metavar="LINK|ID", help="What it should be; ids may be cut. -: standard input."
        ),
    ],
    json: Json = False,
    config: ConfigFile = None,
    data_dir: DataDir = None,
) -> None:
    """Check a finished file or folder chunk by chunk.

    Bad chunks are named. Exit code 4 means that it differs.
    """
    from furymesh.cli.jobs import Job, run_job
    from furymesh.cli.output import percent, plural
    from furymesh.cli.passphrase import when_needed
    from furymesh.cli.progress import open_display
    from furymesh.node import face

    settled = settings(context, config, data_dir)
    wanted = link_text(target)
    display = open_display(json=json)

    def progress(done: int, total: int) -> None:
        facts = (f"{percent(done, total)}%", f"{done} of {plural(total, 'chunk')}")
        display.show("Verifying", done, total, facts)

    def run(passphrase: str | None) -> Verified:
        async def work(job: Job) -> Verified:
            return await face.verify(
                path, wanted, settled, progress=progress, passphrase=passphrase
            )

        return run_job(work)

    try:
        verified = when_needed(run)
    finally:
        display.close()
    _print(verified, json)


def _print(verified: Verified, json: bool) -> None:
    from furymesh.cli.output import plural, say, say_json
    from furymesh.core.errors import VerificationError
    from furymesh.core.paths import shown

    total = verified.chunks_total
    if json:
        say_json(
            {
                "file_id": verified.file_id.hex(),
                "path": str(verified.path),
                "ok": verified.intact,
                "chunks_total": total,
                "bad": list(verified.bad),
                "misfits": list(verified.misfits),
            }
        )
    name = shown(str(verified.path))
    if not verified.intact:
        if not json:
            for line in verified.misfits:
                say(line)
            if verified.bad:
                say(f"Bad chunks: {', '.join(ranges(verified.bad))}")
        wrong = []
        if verified.bad:
            wrong.append(f"{plural(len(verified.bad), 'bad chunk')} of {total:,}")
        if verified.misfits:
            wrong.append(plural(len(verified.misfits), "misfit"))
        raise VerificationError(
            f"{name} is not what it should be: {', '.join(wrong)};"
            " fetch it again with `furymesh get`"
        )
    if not json:
        say(f"{name} is intact: {plural(total, 'chunk')} verified.")


def ranges(numbers: Iterable[int]) -> Iterator[str]:
    """Ascending numbers, runs of them as "7-9"."""
    first: int | None = None
    last = -1
    for number in numbers:
        if first is not None and number != last + 1:
            yield _range(first, last)
            first = None
        first = number if first is None else first
        last = number
    if first is not None:
        yield _range(first, last)


def _range(first: int, last: int) -> str:
    return str(first) if first == last else f"{first}-{last}"
