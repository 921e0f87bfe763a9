"""What a caller asks of a transfer, and what came of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypedDict, get_args

from furymesh.core.errors import UsageError
from furymesh.core.paths import shown

Verify = Literal["tail", "full", "size"]
Progress = Callable[[int, int], None]  # bytes at their place, bytes in all

TEMP_SUFFIX = ".hussh.tmp"
OLD_SUFFIX = ".old"  # after that one: what had the name, while a rename cannot replace it
MAX_SUFFIX_BYTES = 64  # names have 255 in all
# Files of a folder under way at a time: a small one costs nine round trips, and each
# may have a window of requests in flight.
JOBS = 4
MAX_JOBS = 64
# Progress is told after so many bytes or seconds: for trio it costs a hop between threads.
TOLD_BYTES = 1024 * 1024
TOLD_SECONDS = 0.1


class More(TypedDict, total=False):
    """The keyword arguments of every transfer; `How` says what they mean."""

    verify: Verify
    progress: Progress | None
    temp_suffix: str
    jobs: int


@dataclass(frozen=True, slots=True)
class How:
    """The checked options of one call of `sftp_write` or `sftp_read`.

    `atomic`: a file lies at its name + `temp_suffix` until it is whole, and is
    renamed then. A failure removes that file, unless `resume` is to find it.

    `resume`: go on with what is there of a file. `verify` says what of that is
    compared with the source first: the "tail", or all if the source is younger;
    all ("full"); or nothing but the "size". What differs is moved anew. A file
    that is there with at least the source's size, and agrees, is complete.

    `progress` gets bytes done and bytes in all, and should be quick. `jobs` files
    of a folder are moved at a time.
    """

    atomic: bool = False
    resume: bool = False
    verify: Verify = "tail"
    progress: Progress | None = None
    temp_suffix: str = TEMP_SUFFIX
    jobs: int = JOBS

    def __post_init__(self) -> None:
        if self.verify not in get_args(Verify):
            raise UsageError(f"verify is one of tail, full and size, not {shown(str(self.verify))}")
        suffix = self.temp_suffix
        if not suffix or "/" in suffix or "\0" in suffix or len(suffix.encode()) > MAX_SUFFIX_BYTES:
            raise UsageError(
                f"temp_suffix is 1 to {MAX_SUFFIX_BYTES} bytes without a slash, like {TEMP_SUFFIX}"
            )
        if not 1 <= self.jobs <= MAX_JOBS:
            raise UsageError(f"jobs is a number from 1 to {MAX_JOBS}")


@dataclass(frozen=True, slots=True)
class Transferred:
    """What a call did: `moved` bytes went over the network, `reused` lay there already.

    `skipped` are the paths of links, pipes, sockets and devices in a folder;
    `notes` are lines about what could not be done as it should be.
    """

    files: int
    moved: int
    reused: int
    skipped: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


class Meter:
    """Adds up what one call does and tells its caller."""

    def __init__(self, total: int, progress: Progress | None) -> None:
        self.moved = 0
        self.reused = 0
        self._notes: dict[str, None] = {}
        self._total = total
        self._progress = progress
        self._told_bytes = 0
        self._told_at = 0.0

    def reuse(self, count: int) -> None:
        self.reused += count
        self._tell()

    def move(self, count: int) -> None:
        self.moved += count
        self._tell()

    def note(self, text: str) -> None:
        """A line for people; said once."""
        self._notes[text] = None

    def result(self, files: int, skipped: tuple[str, ...] = ()) -> Transferred:
        return Transferred(files, self.moved, self.reused, skipped, tuple(self._notes))

    def _tell(self) -> None:
        if not self._progress:
            return
        done, now = self.moved + self.reused, time.monotonic()
        early = done - self._told_bytes < TOLD_BYTES and now - self._told_at < TOLD_SECONDS
        if not early or done >= self._total:
            self._told_bytes, self._told_at = done, now
            self._progress(done, self._total)
