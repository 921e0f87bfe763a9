"""Running a target on inputs, and what counts as a crash.

A target is a function of bytes that raises nothing but the errors it names, with
messages that can be shown as they are. Anything else that leaves it is a crash,
and so is an input that takes a second of processor time or 64 MiB of memory.
Everything follows from one seed.
"""

from __future__ import annotations

import contextlib
import gc
import hashlib
import itertools
import math
import resource
import signal
import sys
import time
import traceback
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from types import CodeType, FrameType
from typing import Any

import furymesh
from tests.fuzz.mutate import Mutator

CORPUS = Path(__file__).parent / "corpus"
CRASHERS = Path(".fuzz")  # of the working directory; git ignores it
MAX_SECONDS = 1.0  # of processor time for one input
HANG_SECONDS = 20.0  # of processor time, after which an input is not waited for
MAX_MEMORY = 64 * 1024 * 1024  # bytes that one input may make a target hold
ROOM = 2 * 1024**3  # address space above today's: who asks for more meets MemoryError
TRACED_EVERY = 16  # one input in so many is run again slowly, to see which lines it reaches
MAX_POOL = 2_000  # inputs to mutate; the corpus is far smaller
SHRINK_RUNS = 400  # attempts to make a crasher smaller

_SOURCE = str(Path(furymesh.__file__).parent)

Errors = tuple[type[BaseException], ...]


@dataclass(frozen=True)
class Target:
    """A parser, the errors it may raise, and words of its language.

    `seeds` makes its corpus; see `make_corpus`.
    """

    name: str
    run: Callable[[bytes], object]
    seeds: Callable[[], dict[str, bytes]]
    errors: Errors = ()
    tokens: tuple[bytes, ...] = ()

    def corpus(self) -> dict[str, bytes]:
        """The committed inputs, by file name."""
        return {path.name: path.read_bytes() for path in sorted((CORPUS / self.name).iterdir())}


@dataclass(frozen=True)
class Crash:
    """An input that a target did not bear."""

    target: str
    data: bytes
    kind: str
    reason: str
    traceback: str = ""


class Hang(BaseException):
    """The input was still at work after HANG_SECONDS; no parser may catch this."""


def attempt(target: Target, data: bytes) -> Crash | None:
    """Run one input; what was wrong with it, if anything was."""
    peak = _peak()
    before = time.thread_time()
    crash = None
    signal.setitimer(signal.ITIMER_VIRTUAL, HANG_SECONDS)
    try:
        target.run(data)
    except target.errors as error:
        if not str(error).isprintable():
            crash = Crash(target.name, data, "message", f"told {str(error)!a}")
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        crash = _crash(target, data, error)
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    if crash is not None:
        return crash
    if (took := time.thread_time() - before) > MAX_SECONDS:
        return Crash(target.name, data, "slow", f"took {took:.1f} s")
    if _peak() - peak > MAX_MEMORY // 4:  # what was free before hides the rest
        return weigh(target, data)
    return None


def weigh(target: Target, data: bytes) -> Crash | None:
    """Run one input and count what it allocates: exact, and slow."""
    gc.collect()
    tracemalloc.start()
    try:
        start, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        with contextlib.suppress(*target.errors):
            target.run(data)
        used = tracemalloc.get_traced_memory()[1] - start
    finally:
        tracemalloc.stop()
    if used > MAX_MEMORY:
        return Crash(target.name, data, "memory", f"held {used >> 20} MiB")
    return None


def _crash(target: Target, data: bytes, error: BaseException) -> Crash:
    told = "".join(traceback.format_exception(error, limit=-8))
    return Crash(target.name, data, type(error).__name__, f"{type(error).__name__}: {error}", told)


def _peak() -> int:
    """The most memory this process ever had, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@contextlib.contextmanager
def guarded() -> Iterator[None]:
    """Inside, hangs end and allocations beyond all measure fail."""

    def give_up(signum: int, frame: FrameType | None) -> None:
        raise Hang(f"still at work after {HANG_SECONDS:.0f} s of processor time")

    with open("/proc/self/statm", "rb") as file:
        size = int(file.read().split()[0]) * resource.getpagesize()
    before, hard = resource.getrlimit(resource.RLIMIT_AS)
    handler = signal.signal(signal.SIGVTALRM, give_up)
    resource.setrlimit(resource.RLIMIT_AS, (size + ROOM, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (before, hard))
        signal.signal(signal.SIGVTALRM, handler)


@dataclass
class Report:
    """What came of fuzzing one target."""

    target: str
    seed: int
    inputs: int = 0
    lines: int = 0  # pairs of lines that followed each other, seen in the traced runs
    crash: Crash | None = None

    def __str__(self) -> str:
        outcome = self.crash.reason if self.crash else "no crash"
        ways = f", {self.lines} line pairs" if self.lines else ""
        return f"{self.target}: seed {self.seed}, {self.inputs} inputs{ways}, {outcome}"

    def told(self) -> str:
        """The report; a crash is kept, and told with its traceback and how to see it again."""
        if self.crash is None:
            return str(self)
        path = keep(self.crash, CRASHERS)
        return (
            f"{self.crash.traceback}{self}\n"
            f"  input: {path}\n"
            f"  again: python -m tests.fuzz {self.target} --input {path}"
        )


def fuzz(
    target: Target, *, seed: int, count: int | None = None, seconds: float | None = None
) -> Report:
    """The corpus, then `count` mutated inputs or as many as `seconds` allow; the first crash.

    With `count` only, the corpus does not grow. With `seconds`, inputs that
    reach lines in a new order join the pool. The sequence of inputs depends on
    the seed alone.
    """
    rng = Random(f"{seed} {target.name}")
    report = Report(target.name, seed)
    pool = list(target.corpus().values())
    mutator = Mutator(rng, pool, target.tokens)
    coverage = Coverage() if seconds is not None else None
    end = math.inf if seconds is None else time.monotonic() + seconds
    with guarded():
        for data in list(pool):
            report.inputs += 1
            report.crash = report.crash or attempt(target, data) or weigh(target, data)
            if coverage:
                coverage.news(target, data)
        for number in itertools.count() if count is None else range(count):
            if report.crash or time.monotonic() >= end:
                break
            data = mutator.next()
            report.inputs += 1
            report.crash = attempt(target, data)
            if (
                coverage
                and not report.crash
                and number % TRACED_EVERY == 0
                and coverage.news(target, data)
                and len(pool) < MAX_POOL
            ):
                pool.append(data)
        if report.crash:
            report.crash = shrink(target, report.crash)
    report.lines = len(coverage.seen) if coverage else 0
    return report


def shrink(target: Target, crash: Crash) -> Crash:
    """A smaller input that crashes in the same way, found by leaving parts out."""
    best, runs = crash, 0
    size = len(crash.data) // 2
    while size:
        at = 0
        while at < len(best.data) and runs < SHRINK_RUNS:
            runs += 1
            shorter = best.data[:at] + best.data[at + size :]
            found = attempt(target, shorter)
            if found is not None and found.kind == best.kind:
                best = found
            else:
                at += size
        size //= 2
    return best


def keep(crash: Crash, directory: Path) -> Path:
    """Write a crasher to a file named after what is in it."""
    directory.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256(crash.data).hexdigest()[:12]
    path = directory / f"{crash.target}-{digest}"
    path.write_bytes(crash.data)
    return path


class Coverage:
    """Which lines of furymesh followed which, over all inputs seen."""

    def __init__(self) -> None:
        self.seen: set[tuple[CodeType, int, int]] = set()
        self._last = 0

    def news(self, target: Target, data: bytes) -> bool:
        """Run an input under a tracer; whether it went a way that none went before."""
        known = len(self.seen)
        sys.settrace(self._enter)
        try:
            with contextlib.suppress(Exception):
                target.run(data)
        finally:
            sys.settrace(None)
        return len(self.seen) > known

    def _enter(self, frame: FrameType, event: str, argument: Any) -> Any:
        return self._step if frame.f_code.co_filename.startswith(_SOURCE) else None

    def _step(self, frame: FrameType, event: str, argument: Any) -> Any:
        if event == "line":
            self.seen.add((frame.f_code, self._last, frame.f_lineno))
            self._last = frame.f_lineno
        return self._step
