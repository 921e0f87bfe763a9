"""Commands on a disk that fails when told to, and what to expect of what they leave.

The faults are made by a library in C (disk_faults.c) that stands between the
process and the system; the product knows nothing of them.
"""

from __future__ import annotations

import errno
import json
import os
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from pathlib import Path
from typing import Any, Self

from furymesh.core.ids import FileId
from furymesh.node.face import Shared
from furymesh.storage.resume import Summary, list_all
from tests.apart import TEXT
from tests.e2e.mesh import Done, Mesh, RunningNode, same

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
SEED = 20261  # of what is drawn; a failure names the case that it happened in


class Calls(IntFlag):
    """Kinds of disk calls, as in disk_faults.c."""

    OPEN = 1
    CREATE = 2
    READ = 4
    WRITE = 8
    SYNC = 16
    RENAME = 32
    RESIZE = 64
    REMOVE = 128


class Outcome(IntEnum):
    """What becomes of the chosen call; positive values are an errno."""

    SHORT = -1
    KILL = -2
    EIO = errno.EIO
    ENOSPC = errno.ENOSPC
    EDQUOT = errno.EDQUOT
    EROFS = errno.EROFS
    EMFILE = errno.EMFILE


@dataclass(frozen=True, slots=True)
class Fault:
    """The `number`-th call (from 1; 0: none) of these kinds below `places` goes wrong."""

    places: tuple[Path, Path]
    kinds: Calls
    number: int
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Ended:
    """A command that has ended; `calls` were counted, `hit` tells whether one went wrong."""

    done: Done
    calls: int
    hit: bool

    @property
    def killed(self) -> bool:
        return self.done.code == -signal.SIGKILL


class Started:
    """A command that runs."""

    def __init__(self, owner: Commands, pid: int, out: Path, err: Path) -> None:
        self.pid = pid
        self._owner = owner
        self._out = out
        self._err = err
        self._ended: Ended | None = None

    @property
    def out(self) -> str:
        return self._out.read_text("utf-8") if self._out.exists() else ""

    @property
    def err(self) -> str:
        return self._err.read_text("utf-8", "replace") if self._err.exists() else ""

    @property
    def events(self) -> list[Any]:
        """The events told so far; the last line may be half written."""
        whole, _, _ = self.out.rpartition("\n")
        return [json.loads(line) for line in whole.splitlines()]

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)

    def ended_within(self, seconds: float) -> bool:
        """Let it work for so long, unless it ends before."""
        process = os.pidfd_open(self.pid)
        try:
            return bool(select.select([process], [], [], seconds)[0])
        finally:
            os.close(process)

    def end(self) -> Ended:
        """Wait for the end."""
        if self._ended is None:
            answer = self._owner.ask({"order": "wait", "pid": self.pid})
            err = self.err
            assert "Traceback" not in err, err
            events = [] if answer["code"] < 0 else self.events
            done = Done(answer["code"], events, self.out, err)
            self._ended = Ended(done, answer["calls"], bool(answer["hit"]))
        return self._ended


class Commands:
    """Starts commands as forks of one process; none is left when the block ends."""

    def __init__(self, place: Path, *, preload: Path | None) -> None:
        self._place = place
        self._running: dict[int, Started] = {}
        self._count = 0
        env = {key: value for key, value in os.environ.items() if not key.startswith("FURYMESH")}
        env |= {"HOME": str(place), "PYTHONPATH": str(ROOT)}
        if preload is not None:
            env["LD_PRELOAD"] = str(preload)
        self._process = subprocess.Popen(
            [sys.executable, "-W", "error", str(HERE / "launcher.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=env,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for started in list(self._running.values()):
            started.kill()
            started.end()
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(10)
        self._process.stdout.close()

    def ask(self, order: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        if order["order"] == "wait":
            self._running.pop(order["pid"], None)
        return answer

    def start(self, cwd: Path, argv: Sequence[object], fault: Fault | None = None) -> Started:
        """Start a command in `cwd`, with a fault armed."""
        self._count += 1
        out, err = (self._place / f"{self._count}.{end}" for end in ("out", "err"))
        armed = None
        if fault is not None:
            places = map(str, fault.places)
            armed = [*places, int(fault.kinds), fault.number, int(fault.outcome)]
        order = {
            "order": "start",
            "cwd": str(cwd),
            "argv": [str(word) for word in argv],
            "out": str(out),
            "err": str(err),
            "fault": armed,
        }
        started = Started(self, self.ask(order)["pid"], out, err)
        self._running[started.pid] = started
        return started

    def run(self, cwd: Path, argv: Sequence[object], fault: Fault | None = None) -> Ended:
        return self.start(cwd, argv, fault).end()


class User:
    """A data directory and a place for downloads, both new."""

    def __init__(self, root: Path, config: str = "") -> None:
        self.home = root / "home"
        self.files = root / "files"
        self.config = root / "config.yaml"
        self.files.mkdir(parents=True)
        self.config.write_text(TEXT + config)

    def argv(self, command: str, *rest: object) -> list[object]:
        return [command, "--config", self.config, "--data-dir", self.home, *rest]

    def get(self, link: str, peer: str, *rest: object) -> list[object]:
        return self.argv("get", link, "--json", "--peer", peer, *rest)

    def fault(self, kinds: Calls, number: int, outcome: Outcome) -> Fault:
        return Fault((self.home, self.files), kinds, number, outcome)

    def kept(self, file_id: FileId) -> Summary | None:
        """The resume data of a download; fails if any is damaged or empty."""
        if not self.home.exists():
            return None
        for path in self.home.rglob("*"):
            state = path.suffix in (".resume", ".json", ".manifest", ".key")
            assert not state or path.stat().st_size, f"{path} is empty"
        found = list_all(self.home / "resume")
        for summary in found:
            assert isinstance(summary, Summary), summary
        summaries = [s for s in found if isinstance(s, Summary) and s.meta.file_id == file_id]
        return summaries[0] if summaries else None


@dataclass(frozen=True, slots=True)
class Origin:
    """A node that shares one thing."""

    node: RunningNode
    source: Path
    shared: Shared

    @classmethod
    def of(cls, mesh: Mesh, source: Path, chunk_size: int) -> Self:
        shared = mesh.share("origin", source, chunk_size=chunk_size)
        return cls(mesh.node("origin"), source, shared)

    def get(self, user: User, *options: object) -> list[object]:
        return user.get(self.shared.link.text, self.node.address, *options)


def check_finished(user: User, source: Path) -> None:
    """The download has its name and its bytes, and nothing lies beside it."""
    assert sorted(path.name for path in user.files.iterdir()) == [source.name]
    result = user.files / source.name
    if source.is_dir():
        names = {str(path.relative_to(source)) for path in source.rglob("*")}
        assert {str(path.relative_to(result)) for path in result.rglob("*")} == names
        for name in names:
            assert (source / name).is_dir() or same(source / name, result / name)
    else:
        assert same(result, source)
    assert not list(user.home.glob("resume/*.resume"))


def why_no_faults() -> str | None:
    """Why no disk can be made to fail here; None if one can."""
    if sys.platform != "linux":
        return "disk faults are made with LD_PRELOAD, for Linux"
    return None if shutil.which("cc") else "there is no C compiler (cc) to build disk faults with"


def build_faults(place: Path) -> Path:
    """Compile the library to be preloaded."""
    library = place / "disk_faults.so"
    flags = ["-shared", "-fPIC", "-O1", "-Wall"]
    subprocess.run(["cc", *flags, "-o", library, HERE / "disk_faults.c", "-ldl"], check=True)
    return library
