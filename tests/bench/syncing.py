"""Row 10: a folder of many small files, by `furymesh sync push` and by rsync to a daemon.

On loopback, and between two hosts of the lab, where the client is told no address.
"""

from __future__ import annotations

import filecmp
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from tests.bench.furymesh_peer import CLI, ENVIRONMENT, GATE, home
from tests.bench.measure import FINISH_TIMEOUT, Options, Outcome, alternate
from tests.bench.peer import READY_TIMEOUT, LabHost, Loopback, Place, free_port
from tests.bench.process import BenchError, Crew
from tests.netns.lab import Lab, Shape, mbit, why_not
from tests.waiting import BLOCKING_LOOK_SECONDS, looks

FILES = 10_000
FILE_SIZE = 10 * 1024
FOLDERS = 100
WIRE = Shape(mbit(10_000), mbit(10_000))
Places = tuple[Place, Place]  # of the server, and of the client
MODULE = "path = {path}\nread only = no\nuse chroot = no\nuid = root\ngid = root\n"


def make_tree(root: Path) -> Path:
    """FILES files in FOLDERS folders; none is like another."""
    stream = Cipher(algorithms.AES(bytes(32)), modes.CTR(bytes(16))).encryptor()
    zeros = bytes(FILE_SIZE)
    for number in range(FILES):
        folder = root / f"{number % FOLDERS:02}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number:05}.bin").write_bytes(stream.update(zeros))
    return root


def check(source: Path, copy: Path) -> None:
    """Raises BenchError unless every file of `source` is in `copy`."""
    for path in source.rglob("*.bin"):
        there = copy / path.relative_to(source)
        if not there.is_file() or not filecmp.cmp(path, there, shallow=False):
            raise BenchError(f"{path.name} is missing or differs")


def push(places: Places, source: Path, work: Path) -> tuple[float, float, float]:
    """Seconds of a first push, of one of nothing new, and of one changed byte."""
    archive, (there, here) = work / "archive", places
    found = isinstance(there, LabHost)
    with Crew(work / "logs") as crew:
        serve = ["sync", "serve", "--archive", str(archive), "--json"]
        serve += ["--listen", f"{'0.0.0.0' if found else there.address}:{there.port}"]
        serve += home(work / "server", lan=found)
        server = crew.spawn(there.command([*CLI, *serve]), ENVIRONMENT)
        address = server.expect("listening", READY_TIMEOUT).fields["addresses"][0]
        command = ["sync", "push", "--archive", str(source), "--client-id", "bench", "--once"]
        command += [] if found else ["--server", str(address)]
        command += ["--json", *home(work / "client", lan=found)]

        def once(files: int) -> float:
            client = crew.spawn(here.command([sys.executable, GATE, *command]), ENVIRONMENT)
            client.expect("ready", READY_TIMEOUT)
            start = client.release()
            done = client.expect("synced", FINISH_TIMEOUT)
            client.ended(READY_TIMEOUT)
            if int(done.fields["files"]) != files:
                raise BenchError(f"{done.fields['files']} files travelled, not {files}")
            return done.at - start

        first, unchanged = once(FILES), once(0)
        changed = next(source.rglob("*.bin"))
        with changed.open("r+b") as file:
            byte = file.read(1)
            file.seek(0)
            file.write(bytes([byte[0] ^ 1]))
        one = once(1)
        check(source, archive / "bench")
        return first, unchanged, one


def rsync(places: Places, source: Path, work: Path) -> tuple[float, float]:
    """Seconds of a first run and of one with nothing new."""
    there, here = places
    into = work / "into"
    into.mkdir()
    config = work / "rsyncd.conf"
    config.write_text(f"[bench]\n{MODULE.format(path=into)}")
    with Crew(work / "logs") as crew:
        port = there.port or free_port(there.address)
        daemon = ["rsync", "--daemon", "--no-detach", f"--address={there.address}"]
        crew.spawn(there.command([*daemon, f"--port={port}", f"--config={config}"]))
        url = f"rsync://{there.address}:{port}/bench/"
        _await_module(here.command(["rsync", url]))

        def once() -> float:
            start = time.monotonic()
            argv = here.command(["rsync", "--archive", f"{source}/", url])
            return crew.spawn(argv).ended(FINISH_TIMEOUT) - start

        first, unchanged = once(), once()
        check(source, into)
        return first, unchanged


def _await_module(listing: list[str]) -> None:
    for _ in looks(BLOCKING_LOOK_SECONDS, READY_TIMEOUT):
        if not subprocess.run(listing, capture_output=True, check=False).returncode:
            return
    raise BenchError(f"{listing}: no answer")


def many_files(options: Options) -> list[Outcome]:
    """Row 10. The interpreter of the client is up before the clock starts."""
    source = make_tree(options.folder("many-files"))
    outcomes = _compare(options, source, (Loopback(), Loopback()), "")
    if why_not() is None:
        with Lab([WIRE, WIRE]) as lab:
            places = LabHost(lab.hosts[0]), LabHost(lab.hosts[1])
            outcomes += _compare(options, source, places, ", two hosts, no address typed")
    return outcomes


def _compare(options: Options, source: Path, places: Places, where: str) -> list[Outcome]:
    ways: dict[str, Callable[[Path, Path], tuple[float, ...]]]
    ways = {"furymesh": partial(push, places), "rsync": partial(rsync, places)}

    def run(name: str) -> tuple[float, ...]:
        work = options.work / f"many-{name}"
        with ExitStack() as stack:
            stack.callback(shutil.rmtree, work, ignore_errors=True)
            work.mkdir()
            return ways[name](source, work)

    wanted = [name for name in ways if name in options.peers]
    runs, notes = alternate(wanted, options.rounds, run)

    def column(number: int) -> dict[str, list[float]]:
        return {name: [run[number] for run in runs[name] if len(run) > number] for name in runs}

    title = f"{FILES:,} files of {FILE_SIZE // 1024} KiB{where}:"
    goal = "≤ 2.0 × rsync -a"
    first = Outcome("10", f"{title} first sync", "s", "tar over a pipe 0.18", goal, column(0))
    first.notes = notes
    same = Outcome("10", f"{title} nothing new", "s", "a look at each", "≤ 1 s", column(1))
    one = Outcome("10", f"{title} one byte changed", "s", "a look at each", "≤ 1 s", column(2))
    return [
        first.judge(first.ratio("furymesh", "rsync"), lambda score: score <= 2.0),
        same.judge(same.median("furymesh"), lambda score: score <= 1.0),
        one.judge(one.median("furymesh"), lambda score: score <= 1.0),
    ]


ROWS = {"10": many_files}
