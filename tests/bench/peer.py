"""What the benchmarks ask of every program they compare.

A peer prepares its static state once, then starts seeds and leechers wherever a
`Place` says: on loopback or on a host of the lab. A leecher is started first and
released later, so that the time measured holds no interpreter start.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Protocol

from tests.bench.data import Source
from tests.bench.process import BenchError, Child, Crew
from tests.netns.lab import Host
from tests.waiting import BLOCKING_LOOK_SECONDS, looks

LAB_PORT = 7000  # every lab host has its ports to itself
READY_TIMEOUT = 120.0  # seconds: 33 interpreters may start at once on two cores


def free_port(address: str) -> int:
    """A port that was free a moment ago, for programs that cannot be told to choose one."""
    with socket.create_server((address, 0)) as probe:
        return int(probe.getsockname()[1])


def await_port(child: Child, address: str, port: int) -> None:
    """Return once somebody listens there. Raises BenchError after READY_TIMEOUT."""
    for _ in looks(BLOCKING_LOOK_SECONDS, READY_TIMEOUT):
        with suppress(OSError), socket.create_connection((address, port), 1):
            return
    raise child.error(f"never listened on {address}:{port}")


class Place(Protocol):
    """Where a process runs and which address it listens on."""

    @property
    def address(self) -> str: ...
    @property
    def port(self) -> int: ...
    def command(self, argv: Sequence[str]) -> list[str]: ...


@dataclass(frozen=True, slots=True)
class Loopback:
    """This machine; port 0 lets the kernel choose."""

    address: str = "127.0.0.1"
    port: int = 0

    def command(self, argv: Sequence[str]) -> list[str]:
        return list(argv)


@dataclass(frozen=True, slots=True)
class LabHost:
    """A host of the network lab."""

    host: Host

    @property
    def address(self) -> str:
        return self.host.address

    @property
    def port(self) -> int:
        return LAB_PORT

    def command(self, argv: Sequence[str]) -> list[str]:
        return self.host.command(argv)


@dataclass(frozen=True, slots=True)
class Seed:
    """A running seed and its host:port."""

    child: Child
    address: str


@dataclass(frozen=True, slots=True)
class Finish:
    """When the file was complete (monotonic seconds), where, and what it took."""

    at: float
    path: Path
    received: int | None  # payload bytes by the program's own count, None if it keeps none


class Leecher(Protocol):
    """A download that waits for its start."""

    @property
    def child(self) -> Child: ...

    def go(self) -> float:
        """Release it; returns the monotonic time."""

    def finish(self, timeout: float) -> Finish:
        """Wait until the file is complete. Raises BenchError."""


@dataclass(frozen=True, slots=True)
class Gated:
    """A leecher whose process is up, waits for a line and prints `complete` as JSON."""

    child: Child
    path: Path
    received: Callable[[Mapping[str, Any]], int | None] = lambda fields: None

    def go(self) -> float:
        return self.child.release()

    def finish(self, timeout: float) -> Finish:
        done = self.child.expect("complete", timeout)
        return Finish(done.at, self.path, self.received(done.fields))


@dataclass(slots=True)
class Ungated:
    """A leecher that is native and quick to start: it starts when released."""

    crew: Crew
    argv: list[str]
    path: Path
    started: Child | None = None

    @property
    def child(self) -> Child:
        if self.started is None:
            raise BenchError("the leecher has not been started")
        return self.started

    def go(self) -> float:
        now = time.monotonic()
        self.started = self.crew.spawn(self.argv)
        return now

    def finish(self, timeout: float) -> Finish:
        return Finish(self.child.ended(timeout), self.path, None)


@dataclass(frozen=True, slots=True)
class Download:
    """One download: where it may run, from whom, into which folder.

    `stay` keeps it serving afterwards; `rate` limits it, in bytes a second.
    """

    place: Place
    peers: Sequence[str]
    into: Path
    stay: bool = False
    rate: int | None = None

    def check_plain(self, name: str, *, one_source: bool) -> None:
        """Raises BenchError if more is asked for than a program can do that is only compared."""
        if self.stay or self.rate is not None or (one_source and len(self.peers) != 1):
            raise BenchError(f"{name} is only measured as a plain download")


class Peer(Protocol):
    """A program that moves a file from seeds to leechers."""

    @property
    def name(self) -> str: ...

    @property
    def leechers_listen(self) -> bool:
        """Whether its leechers can be reached where their place says.

        Otherwise they take any free port, and find each other through the seeds.
        """

    def prepare(self, source: Source, seeds: int, work: Path) -> None:
        """Make what can be made before any clock runs (torrents, catalogs)."""

    def seed(self, crew: Crew, place: Place, number: int) -> Seed:
        """Start seed `number` and wait until it serves."""

    def leech(self, crew: Crew, wanted: Download) -> Leecher:
        """Start a leecher, up to the point where it waits."""


def prepared(
    peers: Mapping[str, Peer], source: Source, seeds: int, work: Path
) -> Callable[[str], Peer]:
    """Peers by name, each prepared when it is asked for first: one may fail without the others."""

    @cache
    def named(name: str) -> Peer:
        peers[name].prepare(source, seeds, work)
        return peers[name]

    return named
