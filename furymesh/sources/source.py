"""What a server of files is, to whoever wants ranges of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from furymesh.core.errors import PeerError, UnavailableError
from furymesh.core.layout import Entry

# Takes bytes in their order, at once and without raising.
Take = Callable[[bytes], None]


class UnfitMirrorError(PeerError):
    """A mirror has not what it should, or cannot give ranges of it: it is of no use."""


class MirrorBusyError(UnavailableError):
    """A mirror wants to be left alone for `seconds`; None: it does not say for how long."""

    def __init__(self, what: str, seconds: float | None) -> None:
        super().__init__(what)
        self.seconds = seconds


@dataclass(frozen=True, slots=True)
class Found:
    """A file, whose path is "", or a folder as a share has it; equal while it does not change.

    `skipped` are paths that a share leaves out, `times` those of the files' last
    changes where they are told, in seconds.
    """

    entries: tuple[Entry, ...]
    single: bool = False
    skipped: tuple[str, ...] = ()
    times: tuple[int, ...] = ()


class Server(Protocol):
    """One mirror. Several reads may run at once; any may be cancelled.

    A file is named by its path in the shared folder; "" is the mirror's own URL. All
    raise UnfitMirrorError, UnavailableError (try again later) and MirrorBusyError; the
    message says what is wrong with the mirror, in words that follow its name.
    """

    async def read(self, path: str, size: int, offset: int, length: int, take: Take) -> None:
        """Give `take` exactly these bytes of a file that has `size` of them, as they come."""

    async def size(self) -> int:
        """The size in bytes of the file at the mirror's own URL."""

    async def look(self) -> Found:
        """What is at the mirror's own URL."""
