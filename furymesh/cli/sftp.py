"""Running a transfer for `sftp put` and `sftp get`: asking what must be asked, and showing it."""

from __future__ import annotations

import os
import posixpath
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from furymesh.cli.exits import Interrupted, main_cause
from furymesh.core.errors import HandshakeError, PassphraseNeededError, UsageError
from furymesh.core.paths import shown

if TYPE_CHECKING:
    from furymesh.cli.progress import Display
    from furymesh.sftp import AsyncConnection, Transferred
    from furymesh.sftp.how import More
    from furymesh.sftp.url import ServerPath

Move = Callable[["AsyncConnection", "More"], Awaitable["Transferred"]]

MAX_QUESTIONS = 6  # a host key, a passphrase, three passwords, and one to spare
PROGRESS_SECONDS = 1.0  # between two lines of JSON
SSH_CONFIG = "~/.ssh/config"
URL = "sftp://[user@]host[:port]/path"

Atomic = Annotated[
    bool,
    typer.Option("--atomic/--no-atomic", help="Give files their names only when they are whole."),
]
Resume = Annotated[
    bool, typer.Option("--resume/--no-resume", help="Go on with what an earlier run left.")
]
Verify = Annotated[
    str,
    typer.Option(
        "--verify",
        metavar="tail|full|size",
        help="What of that is compared with the source first.",
    ),
]
IdentityFiles = Annotated[
    list[Path] | None,
    typer.Option("--identity-file", "-i", metavar="FILE", help="Private key; repeatable."),
]
SshConfig = Annotated[
    str,
    typer.Option(
        "--ssh-config", metavar="FILE", help="Configuration of ssh to honour; none for none."
    ),
]
Jobs = Annotated[
    int, typer.Option("--jobs", metavar="N", help="Files of a folder to move at a time.")
]


def local_target(text: str, url: ServerPath) -> str:
    """Where a download goes: into LOCAL, under its own name, if LOCAL says that it is a folder."""
    if text.rpartition("/")[2] not in ("", ".", ".."):
        return text
    name = posixpath.basename(url.path.rstrip("/"))
    if name in ("", ".", ".."):
        raise UsageError(f"{shown(text)} is a folder: add the name that the download is to have")
    return os.path.join(text, name)


def remote_target(url: ServerPath, local: str) -> str:
    """The same for an upload."""
    if not url.path.endswith("/"):
        return url.path
    return posixpath.join(url.path, os.path.basename(os.path.abspath(local)))


@dataclass(frozen=True, slots=True)
class Choices:
    """The options that both commands have."""

    atomic: bool
    resume: bool
    verify: str
    jobs: int
    keys: list[Path] | None
    ssh_config: str
    json: bool


def run_transfer(url: ServerPath, choices: Choices, move: Move, activity: str, done: str) -> None:
    """Connect, `move` and show it.

    `activity` stands beside the bar, `done` is the first of the last lines.
    Raises Interrupted and what the library raises.
    """
    from furymesh.cli.jobs import Job, run_job
    from furymesh.cli.progress import open_display
    from furymesh.sftp import AsyncConnection
    from furymesh.sftp.how import How

    more: Any = {"verify": choices.verify, "jobs": choices.jobs}
    How(**more)  # a wrong one is told before anybody is asked anything
    options: dict[str, Any] = {
        "port": url.port,
        "username": url.username,
        "keys": choices.keys or None,
        "config": _config(choices.ssh_config),
    }
    display = open_display(json=choices.json)
    meter = _Meter(display, activity, json=choices.json)
    since = time.monotonic()

    async def work(job: Job) -> Transferred:
        more["progress"] = job.guard(meter)
        async with AsyncConnection(url.host, **options) as connection:
            return await move(connection, more)

    try:
        for question in range(MAX_QUESTIONS):
            try:
                result = run_job(work)
                break
            except Interrupted:
                kept = "what has arrived is kept: " if choices.resume else ""
                again = "run it again to go on" if choices.resume else "run it again"
                raise Interrupted(f"interrupted; {kept}{again}") from None
            except Exception as error:
                if question + 1 == MAX_QUESTIONS or not _answered(main_cause(error), url, options):
                    raise
    finally:
        display.close()
    _tell(result, done, time.monotonic() - since, choices.json)


def _config(text: str) -> Path | None:
    """The configuration to honour; the user's own need not exist."""
    if text == "none":
        return None
    path = Path(text).expanduser()
    return path if text != SSH_CONFIG or path.exists() else None


# --- questions ----------------------------------------------------------------


def _answered(cause: BaseException, url: ServerPath, options: dict[str, Any]) -> bool:
    """Ask for what was missing, if somebody is there to ask; whether trying again makes sense."""
    from furymesh.cli.asking import agreed, can_ask
    from furymesh.sftp.faults import RefusedUserError, UnknownHostError
    from furymesh.sftp.options import believe

    if not can_ask():
        return False
    if isinstance(cause, UnknownHostError):
        if not agreed(
            f"The host key of {shown(url.host)} is not known:\n  {cause.fingerprint}\n"
            "Is that what its owner says? Trust it from now on?"
        ):
            raise HandshakeError(
                f"the host key of {shown(url.host)} is not trusted; nothing was transferred"
            ) from None
        believe(cause.line)
    elif isinstance(cause, RefusedUserError) and cause.takes_password:
        user = f"{url.username}@" if url.username else ""
        options["password"] = _secret(
            f"Password for {shown(user + url.host)}: ", again="password" in options
        )
    elif isinstance(cause, PassphraseNeededError):
        options["passphrase"] = _secret("Passphrase of the key: ", again="passphrase" in options)
    else:
        return False
    return True


def _secret(prompt: str, *, again: bool) -> str:
    from furymesh.cli.asking import ask_secret

    answer = ask_secret(f"That was not it. {prompt}" if again else prompt)
    if answer is None:
        raise UsageError("no password was given; nothing was transferred")
    return answer


# --- showing ------------------------------------------------------------------


class _Meter:
    """Progress as a bar, and as a line of JSON now and then."""

    def __init__(self, display: Display, activity: str, *, json: bool) -> None:
        from furymesh.cli.progress import BytesMeter

        self._meter = BytesMeter(display, activity)
        self._json = json
        self._told = -PROGRESS_SECONDS

    def __call__(self, done: int, total: int) -> None:
        from furymesh.cli.output import say_json

        self._meter(done, total)
        now = time.monotonic()
        if self._json and now - self._told >= PROGRESS_SECONDS:
            self._told = now
            say_json({"event": "progress", "bytes_done": done, "size": total})


def _tell(result: Transferred, done: str, seconds: float, json: bool) -> None:
    from furymesh.cli.output import left_out, note, plural, say, say_json
    from furymesh.core.units import format_duration, format_rate, format_size

    left_out(result.skipped)
    for text in result.notes:
        note(f"Note: {text}")
    if json:
        say_json(
            {
                "event": "complete",
                "files": result.files,
                "bytes_moved": result.moved,
                "bytes_reused": result.reused,
                "seconds": round(seconds, 3),
                "skipped": list(result.skipped),
                "notes": list(result.notes),
            }
        )
        return
    say(done)
    rate = f" ({format_rate(result.moved / seconds)})" if result.moved and seconds > 0 else ""
    reused = f", {format_size(result.reused)} were there already" if result.reused else ""
    files = "" if result.files == 1 else f"{plural(result.files, 'file')}, "
    say(f"{files}{format_size(result.moved)} in {format_duration(seconds)}{rate}{reused}")
