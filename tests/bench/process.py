"""Processes under measurement: started apart, watched cheaply, always stopped.

Always true: every process a `Crew` started is dead, by its own process group, when
the crew's `with` block is left. A child is reaped only then, so that its CPU time
can be read after it has finished.
"""

from __future__ import annotations

import json
import os
import queue
import select
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

TICKS = os.sysconf("SC_CLK_TCK")
SAMPLING = 0.1  # seconds between looks at memory: one small file, and VmHWM remembers peaks
GRACE = 10.0  # seconds between SIGTERM and SIGKILL
LOG_TAIL = 400  # characters of a failed child's stderr shown in the message


class BenchError(Exception):
    """A measurement could not be made; the text says which process said what."""


@dataclass(frozen=True, slots=True)
class Event:
    """One JSON line of a child and when it was read (monotonic seconds)."""

    at: float
    fields: Mapping[str, Any]


class Child:
    """A started process that speaks JSON lines on stdout (or says nothing)."""

    def __init__(self, argv: Sequence[str], log: Path, env: Mapping[str, str]) -> None:
        self.log = log
        self.peak_rss = 0  # bytes, of this process alone
        self._name = Path(argv[0]).name
        self._events: queue.Queue[Event | None] = queue.Queue()
        with log.open("wb") as stderr:
            self.process = subprocess.Popen(
                argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                env=dict(env),
                start_new_session=True,
            )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        return self.process.pid

    def say(self, line: str) -> None:
        """Write one line to the child's standard input."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(line.encode() + b"\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            raise self.error("ended too early") from None

    def release(self) -> float:
        """Let a waiting child go on; returns the monotonic time just before."""
        now = time.monotonic()
        self.say("go")
        return now

    def next(self, timeout: float) -> Event:
        """The child's next JSON line. Raises BenchError at its end or after `timeout`."""
        deadline = time.monotonic() + timeout
        while True:
            self.sample()
            left = deadline - time.monotonic()
            if left <= 0:
                raise self.error(f"said nothing for {timeout:.0f} s")
            with suppress(queue.Empty):
                event = self._events.get(timeout=min(SAMPLING, left))
                if event is None:
                    raise self.error("ended too early")
                if event.fields.get("event") == "failed":
                    raise self.error(f"failed: {event.fields.get('reason')}")
                self.sample()
                return event

    def expect(self, name: str | None, timeout: float) -> Event:
        """The next line whose "event" is `name`; earlier lines are dropped."""
        deadline = time.monotonic() + timeout
        while True:
            event = self.next(max(0.001, deadline - time.monotonic()))
            if event.fields.get("event") == name:
                return event

    def ended(self, timeout: float) -> float:
        """Wait for the end; when it was. Raises BenchError unless it exits 0."""
        deadline = time.monotonic() + timeout
        pidfd = os.pidfd_open(self.pid)
        try:
            while not select.select([pidfd], [], [], SAMPLING)[0]:
                self.sample()
                if time.monotonic() > deadline:
                    raise self.error(f"did not finish in {timeout:.0f} s")
            now = time.monotonic()
        finally:
            os.close(pidfd)
        status = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
        if status is None or status.si_status != 0:
            raise self.error("failed")
        return now

    def sample(self) -> None:
        """Update `peak_rss` while the process still has memory to look at."""
        with suppress(OSError):
            for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
                if line.startswith("VmHWM:"):
                    self.peak_rss = max(self.peak_rss, int(line.split()[1]) * 1024)

    def cpu_seconds(self) -> float:
        """User and system time so far, of everything in the child's session."""
        ticks = 0
        for entry in os.scandir("/proc"):
            if not entry.name.isdigit():
                continue
            with suppress(OSError):
                stat = Path(entry.path, "stat").read_text()
                fields = stat[stat.rindex(")") + 2 :].split()  # starts at field 3, the state
                if int(fields[3]) == self.pid:
                    ticks += sum(map(int, fields[11:15]))  # own, and of reaped children
        return ticks / TICKS

    def signal(self, number: int) -> None:
        """Signal the child's whole process group."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def stop(self) -> None:
        """End the process group, gently first, and reap the child."""
        if self.process.returncode is None:
            self.signal(signal.SIGTERM)
            self.signal(signal.SIGCONT)
            try:
                self.process.wait(GRACE)
            except subprocess.TimeoutExpired:
                self.signal(signal.SIGKILL)
                self.process.wait(GRACE)
            else:
                self.signal(signal.SIGKILL)  # what it left behind in its group
        self._reader.join(GRACE)
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                with suppress(BrokenPipeError):
                    stream.close()

    def error(self, what: str) -> BenchError:
        tail = self.log.read_text(errors="replace").strip()[-LOG_TAIL:]
        return BenchError(f"{self._name} {what}" + (f": {tail}" if tail else ""))

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            now = time.monotonic()
            with suppress(json.JSONDecodeError):
                fields = json.loads(line)
                if isinstance(fields, dict):
                    self._events.put(Event(now, fields))
        self._events.put(None)


class Crew:
    """The processes of one run. Use as a context manager."""

    def __init__(self, work: Path) -> None:
        self.work = work
        self._children: list[Child] = []
        self._after = ExitStack()

    def __enter__(self) -> Self:
        self.work.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for child in self._children:  # all at once first: many hosts end in one grace time
            child.signal(signal.SIGTERM)
        for child in self._children:
            self._after.callback(child.stop)
        self._after.close()

    def spawn(self, argv: Sequence[str], env: Mapping[str, str] | None = None) -> Child:
        """Start a process that the crew stops at the end."""
        log = self.work / f"log-{len(self._children)}.txt"
        child = Child(argv, log, {**os.environ, **(env or {})})
        self._children.append(child)
        return child

    def callback(self, action: Callable[[], object]) -> None:
        """Run `action` after the processes have been stopped."""
        self._after.callback(action)


def cpu_busy() -> tuple[float, float]:
    """The machine's busy and total CPU seconds so far; stolen time counts as busy."""
    fields = [int(text) for text in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    idle = fields[3] + fields[4]
    return (sum(fields) - idle) / TICKS, sum(fields) / TICKS
