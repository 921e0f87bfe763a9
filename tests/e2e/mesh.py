"""furymesh processes for tests: each with its own data directory, none left behind.

Everything goes through the command line, as a person or a script would use it.
Processes are ended by their own process id, and every wait has a deadline.
"""

from __future__ import annotations

import filecmp
import io
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import chdir, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, Protocol, Self

import trio

from furymesh.cli.main import main
from furymesh.node import face
from furymesh.node.config import load_config
from furymesh.node.face import Shared
from tests.apart import TEXT
from tests.waiting import block_until

DEADLINE = 30.0  # seconds for any one step; the slowest takes a few
BLOCK = 8 * 1024 * 1024

Event = dict[str, Any]


def write_blob(path: Path, size: int, seed: int = 0) -> Path:
    """A file of `size` bytes in which no chunk is like another."""
    rng = Random(seed)
    with path.open("wb") as file:
        for start in range(0, size, BLOCK):
            file.write(rng.randbytes(min(BLOCK, size - start)))
    return path


@dataclass(frozen=True, slots=True)
class Done:
    """A command that has ended."""

    code: int
    events: list[Any]
    out: str
    err: str

    @classmethod
    def saying(cls, code: int, out: str, err: str) -> Self:
        """What was said, and the events among it."""
        events = []
        for line in out.splitlines():
            with suppress(ValueError):
                events.append(json.loads(line))
        return cls(code, events, out, err)

    @property
    def last(self) -> Event:
        event: Event = self.events[-1]
        return event

    def complaint(self, code: int) -> str:
        """The one line of a failure, after checking that there is nothing else to read."""
        assert self.code == code, (self.code, self.out, self.err)
        assert "Traceback" not in self.err, self.err
        lines = [line for line in self.err.splitlines() if not line.startswith("Progress: ")]
        assert len(lines) == 1, self.err
        assert lines[0].startswith("furymesh: "), self.err
        return lines[0]


class Process:
    """A running command whose JSON lines are read as they come."""

    def __init__(self, argv: Sequence[str], log: Path, cwd: Path, env: dict[str, str]) -> None:
        self._log = log
        self._lines: list[str] = []
        self._ended = False
        self._seen = 0
        self._news = threading.Condition()
        with log.open("wb") as stderr:
            self.process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=stderr,
                cwd=cwd,
                env=env,
                text=True,
            )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def err(self) -> str:
        return self._log.read_text("utf-8", "replace")

    @property
    def out(self) -> str:
        with self._news:
            return "".join(self._lines)

    @property
    def events(self) -> list[Any]:
        with self._news:
            return [json.loads(line) for line in self._lines]

    def expect(
        self,
        name: str,
        where: Callable[[Event], bool] = lambda event: True,
        timeout: float = DEADLINE,
    ) -> Event:
        """The next event of this name for which `where` holds; earlier ones are passed over."""
        deadline = time.monotonic() + timeout
        with self._news:
            while True:
                while self._seen < len(self._lines):
                    event: Event = json.loads(self._lines[self._seen])
                    self._seen += 1
                    if event.get("event") == name and where(event):
                        return event
                left = deadline - time.monotonic()
                if self._ended or left <= 0:
                    raise AssertionError(f"no {name!r} event: {self._lines[-5:]} {self.err}")
                self._news.wait(left)

    def expect_err(self, text: str, timeout: float = DEADLINE) -> None:
        """Wait until `text` stands on stderr."""
        # A file has no event to wait on.
        block_until(lambda: self._ended or text in self.err, timeout)
        assert text in self.err, f"ended without {text!r}: {self.err}"

    def signal(self, number: int) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def kill(self) -> None:
        """kill -9, and wait until it is gone."""
        self.process.kill()
        self.process.wait(DEADLINE)

    def ended_within(self, seconds: float) -> bool:
        """Let it work for so long, unless it ends before."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def done(self, timeout: float = DEADLINE) -> Done:
        """Wait for the end."""
        try:
            code = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            with self._news:
                last = self._lines[-10:]
            raise AssertionError(f"not done in {timeout:g} s: {last} {self.err}") from None
        self._reader.join(timeout)
        err = self.err
        assert "Traceback" not in err, err
        return Done.saying(code, self.out, err)

    def stop(self) -> Done:
        """SIGTERM, and wait for the end."""
        self.process.terminate()
        return self.done()

    def clean_up(self) -> None:
        """End it, whatever state it is in."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(DEADLINE)
        self._reader.join(DEADLINE)
        if self.process.stdout is not None:
            self.process.stdout.close()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._news:
                self._lines.append(line)
                self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()


@dataclass(frozen=True, slots=True)
class RunningNode:
    """A node that listens."""

    process: Process
    home: Path
    address: str
    node_id: str


class Place(Protocol):
    """Where processes can run."""

    def command(self, argv: Sequence[str]) -> list[str]:
        """`argv` run there; the process keeps its pid."""


class Mesh:
    """The processes of one test or of one module of tests."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._processes: list[Process] = []
        self._env = {
            key: value for key, value in os.environ.items() if not key.startswith("FURYMESH")
        }
        self._env |= {
            "HOME": str(root),
            "XDG_CONFIG_HOME": str(root / "xdg-config"),
            "XDG_DATA_HOME": str(root / "xdg-data"),
        }

    # --- running commands -----------------------------------------------------------

    def home(self, name: str, config: str = "", discovery: str = TEXT) -> Path:
        """A data directory with a configuration beside it; `config` replaces the default's.

        `discovery` is that section of it: by itself a process finds nobody.
        """
        path = self.root / name
        path.mkdir(exist_ok=True)
        place = self.config_of(path)
        if config or discovery != TEXT or not place.exists():
            place.write_text(discovery + config)
        return path

    def config_of(self, home: Path) -> Path:
        return self.root / f"{home.name}.yaml"

    def files(self, home: Path | str) -> Path:
        """The working directory of the commands of a home: where its downloads go."""
        name = home if isinstance(home, str) else home.name
        path = self.root / f"{name}.files"
        path.mkdir(exist_ok=True)
        return path

    def start(
        self, home: Path | str, command: str, *arguments: object, on: Place | None = None
    ) -> Process:
        """Start a command, like "get" or "sync push", in a data directory, or one of `home()`.

        `on` is a host in a lab, None for this machine.
        """
        argv = [sys.executable, "-W", "error", "-m", "furymesh", *command.split()]
        argv += [*self._places(home), *map(str, arguments)]
        argv = argv if on is None else on.command(argv)
        log = self.root / f"stderr-{len(self._processes)}.txt"
        process = Process(argv, log, self.files(home), self._env)
        self._processes.append(process)
        return process

    def run(
        self, home: Path | str, command: str, *arguments: object, timeout: float = DEADLINE
    ) -> Done:
        """Run a command to its end, whatever that is."""
        return self.start(home, command, *arguments).done(timeout)

    # --- what most tests do -----------------------------------------------------------

    def call(self, home: Path | str, command: str, *arguments: object) -> Done:
        """Run a command that ends at once without the cost of a process: half a second of work."""
        out, err = io.StringIO(), io.StringIO()
        words = [*command.split(), *self._places(home), *map(str, arguments)]
        with redirect_stdout(out), redirect_stderr(err), chdir(self.files(home)):
            code = main(words)
        return Done.saying(code, out.getvalue(), err.getvalue())

    def share(self, home: Path | str, path: Path, **options: Any) -> Shared:
        """Share a path, without the cost of a process; `options` as for `furymesh.share`."""
        data = self.home(home) if isinstance(home, str) else home
        config = load_config(self.config_of(data), data)
        return trio.run(partial(face.share, path, config, **options))

    def node(self, home: Path | str, *options: object) -> RunningNode:
        """Start a node on a free port of this machine."""
        data = self.home(home) if isinstance(home, str) else home
        process = self.start(data, "node", "--listen", "127.0.0.1:0", "--json", *options)
        first = process.expect("listening")
        return RunningNode(process, data, first["addresses"][0], first["node_id"])

    def start_get(
        self, home: Path | str, link: str, *options: object, peers: Sequence[str] = ()
    ) -> Process:
        return self.start(home, "get", link, "--json", *_peer_flags(peers), *options)

    def get(
        self, home: Path | str, link: str, *options: object, peers: Sequence[str] = ()
    ) -> Event:
        """Download to the end; the last event."""
        return finished(self.start_get(home, link, *options, peers=peers))

    def start_resume(
        self, home: Path | str, file_id: str, *options: object, peers: Sequence[str] = ()
    ) -> Process:
        flags = _peer_flags(peers)
        return self.start(home, "resume", "--file-id", file_id, "--json", *flags, *options)

    def resume(
        self, home: Path | str, file_id: str, *options: object, peers: Sequence[str] = ()
    ) -> Event:
        """Resume to the end; the last event."""
        return finished(self.start_resume(home, file_id, *options, peers=peers))

    def _places(self, home: Path | str) -> list[str]:
        data = self.home(home) if isinstance(home, str) else home
        return ["--config", str(self.config_of(data)), "--data-dir", str(data)]

    def close(self) -> None:
        for process in self._processes:
            process.clean_up()


def finished(process: Process, timeout: float = DEADLINE) -> Event:
    """Wait until a download is complete and its process has ended well; the last event."""
    done = process.done(timeout)
    assert done.code == 0, (done.code, done.out[-500:], done.err)
    assert done.last["event"] == "complete"
    return done.last


def same(one: Path, other: Path) -> bool:
    """Whether two files have the same bytes."""
    return filecmp.cmp(one, other, shallow=False)


def _peer_flags(peers: Sequence[str]) -> list[str]:
    return [text for peer in peers for text in ("--peer", peer)]
