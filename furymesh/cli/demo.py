"""The demonstration: real node processes on this machine doing the main job.

Three nodes share the same content under different names; a fourth process
downloads from all three, is killed with SIGKILL in the middle, and is resumed.
Everything runs through the command line, as a person would run it, in a
directory that is removed at the end.
"""

from __future__ import annotations

import filecmp
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from furymesh.cli.output import say
from furymesh.core.geometry import default_chunk_size
from furymesh.core.paths import shown
from furymesh.core.units import format_rate, format_size

SIZE = 256 * 1024 * 1024
NODES = 3
NODE_RATE = "24M"  # bytes a second each: slow enough to watch, and to be killed half-way
BLOCK = 1024 * 1024
KILL_AT = 0.5
STEP_SECONDS = 60.0  # no step takes a tenth of this; a hang must end
BAR = 40
# Whoever else is on this network has no part in it.
CONFIG = "discovery: {lan: {enabled: false}, dht: {enabled: false}}\n"


class DemoError(Exception):
    """A step did not do what it should have done."""


def run_demo(below: Path | None = None) -> int:
    """Run the demonstration; 0 if every step did what it promises.

    Its files are in a folder of their own `below` that one, or where temporary files go.
    """
    if below is not None:
        below.mkdir(mode=0o700, parents=True, exist_ok=True)
    place = Path(tempfile.mkdtemp(prefix="furymesh-demo-", dir=below))
    started = time.monotonic()
    try:
        _Demo(place).run()
    except DemoError as error:
        say(f"\nthe demo failed: {error}")
        return 1
    finally:
        shutil.rmtree(place, ignore_errors=True)
    say(f"\nAll of it in {time.monotonic() - started:.0f} s. Nothing is left behind.")
    return 0


class _Demo:
    def __init__(self, place: Path) -> None:
        self.place = place
        self.step = 0

    def run(self) -> None:
        _config(self._data("user")).write_text(CONFIG)
        with ExitStack() as stack:
            sources, link = self._share()
            addresses = [stack.enter_context(self._node(number)) for number in range(NODES)]
            file_id = link.partition("?")[0].partition(":")[2]
            peers = [flag for address in addresses for flag in ("--peer", address)]
            target = self.place / "download" / "film.bin"
            target.parent.mkdir()
            done = self._get_and_kill(link, target, peers)
            self._list()
            result = self._resume(file_id, peers)
            self._compare(sources[0], target, done, result)

    # --- the steps ------------------------------------------------------------------

    def _share(self) -> tuple[list[Path], str]:
        self._title(f"{NODES} nodes share the same {format_size(SIZE)}, each under its own name")
        sources: list[Path] = []
        links: set[str] = set()
        for number in range(NODES):
            source = self.place / f"node{number}" / f"copy-{number}.bin"
            source.parent.mkdir()
            if number == 0:
                _write_random(source)
            else:
                shutil.copyfile(sources[0], source)
            sources.append(source)
            made = self._json(["share", str(source)], self._data(number))[-1]
            links.add(str(made["link"]).partition("?")[0])
            say(f"  {source.name}  →  {made['file_id'][:16]}…  {made['chunks']} chunks")
        if len(links) != 1:
            raise DemoError("the same content got different ids")
        return sources, links.pop()

    @contextmanager
    def _node(self, number: int) -> Iterator[str]:
        arguments = ["node", "--listen", "127.0.0.1:0", "--max-upload", NODE_RATE]
        with _started(arguments, self._data(number), stderr=None) as process:
            first = next(_events(process), None)
            if first is None:
                raise DemoError("a node did not start")
            address = str(first["addresses"][0])
            say(f"  node {str(first['node_id'])[:12]}… serves on {address}")
            yield address

    def _get_and_kill(self, link: str, target: Path, peers: list[str]) -> int:
        self._title(f"Download from all {NODES} at once, and kill -9 half-way")
        arguments = ["get", f"{link}?name=film.bin", "--output", str(target), *peers]
        say(f"  $ furymesh get {link[:25]}… \\\n      {shlex.join(peers)}")
        done = total = 0
        with _started(arguments, self._data("user")) as process:
            for event in _events(process):
                total = event.get("chunks_total", total)
                done = event.get("chunks_done", done)
                if event["event"] == "progress":
                    _bar(done, total, event)
                    if done >= KILL_AT * total:
                        break
            process.kill()
        if not 0 < done < total or target.exists():
            raise DemoError("the download was over before it could be killed")
        say(f"  killed process {process.pid} with SIGKILL")
        return done

    def _list(self) -> None:
        self._title("What is left is on disk")
        say("  $ furymesh list-resume")
        listing = subprocess.run(
            _furymesh(["list-resume"], self._data("user")),
            capture_output=True,
            text=True,
            check=False,
            timeout=STEP_SECONDS,
            env={**os.environ, "COLUMNS": "78"},
        )
        say("\n".join("  " + line for line in listing.stdout.splitlines()))
        if listing.returncode:
            raise DemoError(f"list-resume failed: {listing.stderr.strip()}")

    def _resume(self, file_id: str, peers: list[str]) -> dict[str, Any]:
        self._title("Resume: only what is missing travels")
        say(f"  $ furymesh resume --file-id {file_id[:16]}")
        arguments = ["resume", "--file-id", file_id[:16], *peers]
        total = 0
        with _started(arguments, self._data("user")) as process:
            for event in _events(process):
                total = event.get("chunks_total", total)
                if event["event"] == "progress":
                    _bar(event["chunks_done"], total, event)
                if event["event"] == "complete":
                    return event
        raise DemoError("resume did not complete")

    def _compare(self, source: Path, target: Path, done: int, result: dict[str, Any]) -> None:
        self._title("Verify")
        fetched, reused = result["bytes_fetched"], result["bytes_reused"]
        say(f"  reused {format_size(reused)}, fetched {format_size(fetched)}")
        for peer in result["peers"]:
            node, chunks = str(peer["node_id"])[:12], peer["chunks"]
            say(f"  {node}…  {chunks:>4} chunks  {format_size(peer['bytes']):>9}")
        if not filecmp.cmp(source, target, shallow=False):
            raise DemoError("the download differs from the source")
        if fetched + reused != SIZE or reused < done * default_chunk_size(SIZE):
            raise DemoError("verified chunks were fetched twice")
        say(f"  {shown(target.name)} is byte for byte the shared content")

    # --- helpers --------------------------------------------------------------------

    def _data(self, who: int | str) -> Path:
        return self.place / f"data-{who}"

    def _title(self, text: str) -> None:
        self.step += 1
        say(f"\n{self.step}. {text}")

    def _json(self, arguments: list[str], data: Path) -> list[dict[str, Any]]:
        done = subprocess.run(
            [*_furymesh(arguments, data), "--json"],
            capture_output=True,
            text=True,
            check=False,
            timeout=STEP_SECONDS,
        )
        if done.returncode:
            raise DemoError(done.stderr.strip() or f"{arguments[0]} failed")
        return [json.loads(line) for line in done.stdout.splitlines()]


@contextmanager
def _started(
    arguments: list[str], data: Path, stderr: int | None = subprocess.DEVNULL
) -> Iterator[subprocess.Popen[str]]:
    """A command that answers in JSON, for as long as the block takes."""
    command = [*_furymesh(arguments, data), "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True) as process:
        try:
            yield process
        finally:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(STEP_SECONDS)
            process.kill()


def _furymesh(arguments: list[str], data: Path) -> list[str]:
    places = ["--config", str(_config(data)), "--data-dir", str(data)]
    return [sys.executable, "-m", "furymesh", *arguments, *places]


def _config(data: Path) -> Path:
    return data.parent / "config.yaml"


def _events(process: subprocess.Popen[str]) -> Iterator[dict[str, Any]]:
    assert process.stdout is not None
    for line in process.stdout:
        event = json.loads(line)
        if event["event"] == "failed":
            raise DemoError(str(event["reason"]))
        yield event


def _bar(done: int, total: int, event: dict[str, Any]) -> None:
    filled = BAR * done // max(total, 1)
    peers = event.get("peers", 0)
    rate = format_rate(event.get("rate", 0))
    say(f"  [{'█' * filled}{'·' * (BAR - filled)}] {done:>4}/{total}  {rate:>9}  {peers} peers")


def _write_random(path: Path) -> None:
    with path.open("wb") as file:
        for _ in range(SIZE // BLOCK):
            file.write(os.urandom(BLOCK))
