"""Row sftp: a file to and from OpenSSH's server, by `furymesh sftp` and by ssh's own clients.

Each is timed as it is typed, from the start of the process to its end. What `sftp`
and `scp` write they leave to the system to store; furymesh, and `sftp -f`, sync it.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from tests.bench.data import Source
from tests.bench.furymesh_peer import CLI, ENVIRONMENT, home
from tests.bench.measure import FINISH_TIMEOUT, Options, Outcome, alternate, content
from tests.bench.process import BenchError, Crew
from tests.sftp.servers import SSHD, Server, serving

SIZE = 2**30
HOST = "bench"  # in the configuration of ssh's clients
CONFIG = """Host {host}
  HostName 127.0.0.1
  Port {server.port}
  User {server.username}
  IdentityFile {server.key}
  UserKnownHostsFile {server.known_hosts}
"""


@dataclass(frozen=True, slots=True)
class Ends:
    """Where the commands find what they need: `there` and `back` are the two copies."""

    server: Server
    source: Path
    there: Path
    back: Path
    config: Path
    data: Path

    @classmethod
    def prepare(cls, server: Server, source: Path, work: Path) -> Ends:
        config = work / "ssh_config"
        config.write_text(CONFIG.format(host=HOST, server=server))
        server.let_in(work)
        return cls(server, source, work / "there", work / "back", config, work / "data")


Commands = tuple[list[str], list[str]]  # put, get


def furymesh(ends: Ends) -> Commands:
    def command(*words: object) -> list[str]:
        return [*CLI, "sftp", *map(str, words), "--json", *home(ends.data)]

    url = ends.server.url(ends.there)
    return command("put", ends.source, url), command("get", url, ends.back)


def sftp(ends: Ends, *flags: str) -> Commands:
    def command(*words: object) -> list[str]:
        batch = ends.config.with_name(f"{words[0]}.batch")
        batch.write_text(" ".join(map(str, words)) + "\n")
        return ["sftp", "-q", *flags, "-F", str(ends.config), "-b", str(batch), HOST]

    return command("put", ends.source, ends.there), command("get", ends.there, ends.back)


def scp(ends: Ends) -> Commands:
    def command(source: object, target: object) -> list[str]:
        return ["scp", "-q", "-F", str(ends.config), str(source), str(target)]

    there = f"{HOST}:{ends.there}"
    return command(ends.source, there), command(there, ends.back)


WAYS: dict[str, Callable[[Ends], Commands]] = {
    "furymesh": furymesh,
    "sftp": sftp,
    "sftp -f": lambda ends: sftp(ends, "-f"),
    "scp": scp,
}


def move(commands: Commands, ends: Ends, source: Source, work: Path) -> tuple[float, float]:
    """Seconds of a put and of a get of what it put."""
    environment = {**ENVIRONMENT, "HOME": str(work), "SSH_AUTH_SOCK": ""}
    seconds: list[float] = []
    with ExitStack() as stack, Crew(work / "logs") as crew:
        for argv, copy in zip(commands, (ends.there, ends.back), strict=True):
            stack.callback(copy.unlink, missing_ok=True)
            start = time.monotonic()
            seconds.append(crew.spawn(argv, environment).ended(FINISH_TIMEOUT) - start)
            source.check(copy)
    return seconds[0], seconds[1]


def put_and_get(options: Options) -> list[Outcome]:
    """Row sftp."""
    missing = [name for name in ("sftp", "scp") if shutil.which(name) is None]
    if SSHD is None or missing:
        raise BenchError("OpenSSH is not installed: its server, sftp and scp are needed")
    size = min(options.size, SIZE)
    work, source = content(options, "sftp", size)
    with serving("openssh") as server:
        ends = Ends.prepare(server, source.path, work)
        runs, notes = alternate(
            list(WAYS),
            options.rounds,
            lambda name: move(WAYS[name](ends), ends, source, work),
        )
    outcomes = []
    for number, verb in enumerate(("put", "get")):
        samples = {name: [run[number] for run in done] for name, done in runs.items()}
        title = f"{verb} {size / 2**30:.2f} GiB by SFTP, with start and login"
        row = Outcome("sftp", title, "s", "sftp", "≤ sftp ÷ 0.9", samples, notes=notes)
        outcomes.append(row.judge(row.ratio("furymesh", "sftp"), lambda score: score <= 1 / 0.9))
        notes = []
    return outcomes


ROWS: dict[str, Callable[[Options], list[Outcome]]] = {"sftp": put_and_get}
