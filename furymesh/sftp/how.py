"""What a caller asks of a transfer, and what came of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

from furymesh.core.errors import UsageError
from furymesh.core.paths import shown

Verify = Literal["tail", "full", "size"]
Progress = Callable[[int, int], None]  # bytes at their place, bytes in all

TEMP_SUFFIX = ".hussh.tmp"
MAX_SUFFIX_BYTES = 64  # names have 255 in all


@dataclass(frozen=True, slots=True)
class How:
    """The checked options of one call of `sftp_write` or `sftp_read`."""

    atomic: bool
    resume: bool
    verify: Verify
    temp_suffix: str

    def __post_init__(self) -> None:
        if self.verify not in get_args(Verify):
            raise UsageError(f"verify is one of tail, full and size, not {shown(str(self.verify))}")
        suffix = self.temp_suffix
        if not suffix or "/" in suffix or "\0" in suffix or len(suffix.encode()) > MAX_SUFFIX_BYTES:
            raise UsageError(
                f"temp_suffix is 1 to {MAX_SUFFIX_BYTES} bytes without a slash, like {TEMP_SUFFIX}"
            )


@dataclass(frozen=True, slots=True)
class Transferred:
    """What a call did: `moved` bytes went over the network, `reused` lay there already.

    `skipped` are the paths of links, pipes, sockets and devices in a folder.
    """

    files: int
    moved: int
    reused: int
    skipped: tuple[str, ...] = ()


class Meter:
    """Adds up the bytes of one call and tells its caller."""

    def __init__(self, total: int, progress: Progress | None) -> None:
        self.moved = 0
        self.reused = 0
        self._total = total
        self._progress = progress

    def reuse(self, count: int) -> None:
        self.reused += count
        self._tell()

    def move(self, count: int) -> None:
        self.moved += count
        self._tell()

    def _tell(self) -> None:
        if self._progress:
            self._progress(self.moved + self.reused, self._total)
