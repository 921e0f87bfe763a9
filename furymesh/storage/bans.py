"""The record of peers that sent bad chunks, so that a ban outlives the process.

One small file per node, because the processes of a data directory write beside
each other. Always true: a file that is damaged, or of another version, bans
nobody; at most MAX_BANS of them count, the newest.

The wall clock may jump. A ban whose time is far from now, before or after, is
over: no jump makes one last for ever, and at worst a bad peer spoils one more
chunk before it is banned again.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from furymesh.core.errors import EnvironmentFault, UsageError
from furymesh.core.ids import NodeId, node_id_text, parse_node_id
from furymesh.core.paths import shown
from furymesh.storage import checked_json
from furymesh.storage.files import atomic_write, make_private_directory, read_bytes, translating

# Identities cost nothing, but each ban costs a bad chunk sent, and two ban an address.
MAX_BANS = 1024
# Memory that goes bad at either end, not only malice, makes bad chunks: nobody stays
# out for ever.
BAN_SECONDS = 24 * 3600
MAX_RECORD = 512  # bytes; a record has about 250
MAX_MACHINE = 64  # characters of the key of an address
DIRECTORY = "banned"
_SUFFIX = ".ban"


@dataclass(frozen=True, slots=True)
class Ban:
    """A node that sent a bad chunk; `machine` is where from, empty if that says nothing."""

    node_id: NodeId
    machine: str


class BanStore:
    """The bans of one data directory. Methods block; they raise EnvironmentFault."""

    def __init__(self, data_dir: Path, clock: Callable[[], float] = time.time) -> None:
        self._directory = data_dir / DIRECTORY
        self._clock = clock

    def add(self, ban: Ban) -> None:
        """Keep a ban from now on, durably; the oldest may be forgotten for it."""
        make_private_directory(self._directory)
        path = self._directory / f"{node_id_text(ban.node_id)}{_SUFFIX}"
        atomic_write(path, _encode(ban, int(self._clock())))
        if len(self._paths()) > MAX_BANS:
            self.load()

    def load(self) -> tuple[list[Ban], list[str]]:
        """The bans in force, oldest first, and a line if some could not be read.

        What is over, or one too many, is removed.
        """
        now = int(self._clock())  # no float: a forged time may be beyond all of them
        dated: list[tuple[int, Path, Ban]] = []
        over: list[Path] = []
        damaged: list[Path] = []
        for path in self._paths():
            try:
                ban, at = _decode(read_bytes(path, MAX_RECORD) or b"")
            except (ValueError, EnvironmentFault):
                damaged.append(path)
                continue
            if abs(now - at) < BAN_SECONDS:
                dated.append((at, path, ban))
            else:
                over.append(path)
        dated.sort(key=lambda item: item[:2])
        spare = max(len(dated) - MAX_BANS, 0)
        over += [path for _, path, _ in dated[:spare]]
        for path in over:
            with contextlib.suppress(OSError):  # another process may have been first
                path.unlink()
        return [ban for _, _, ban in dated[spare:]], _complaint(damaged)

    def _paths(self) -> list[Path]:
        with translating(self._directory, "read"):
            return sorted(self._directory.glob(f"*{_SUFFIX}")) if self._directory.is_dir() else []


def _complaint(damaged: list[Path]) -> list[str]:
    if not damaged:
        return []
    more = f" and {len(damaged) - 1} more" if len(damaged) > 1 else ""
    return [f"{shown(str(damaged[0]))}{more}: not a readable ban, ignored; remove it"]


def _encode(ban: Ban, at: int) -> bytes:
    value = {
        "node_id": node_id_text(ban.node_id),
        "machine": ban.machine[:MAX_MACHINE],
        "banned_at": at,
    }
    return checked_json.encode(value)


def _decode(raw: bytes) -> tuple[Ban, int]:
    """A ban and when it was made, in seconds since 1970; raises ValueError."""
    try:
        value, checked = checked_json.decode(raw)
        at, machine = value["banned_at"], value["machine"]
        node_id = parse_node_id(value["node_id"])
    except (AttributeError, KeyError, TypeError, RecursionError, UsageError) as error:
        raise ValueError(str(error)) from None
    if not checked or type(at) is not int or not isinstance(machine, str):
        raise ValueError("of another form")
    return Ban(node_id, machine[:MAX_MACHINE]), at
