"""What a link and the swarm ask of each other.

A link carries out and a handler decides: every method of the handler but `room` is
synchronous, so a link never sees a half-made decision.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import trio

from furymesh.core.errors import FuryMeshError, ProtocolError
from furymesh.wire import messages as m

if TYPE_CHECKING:
    from furymesh.net.secure_link import SecureLink

# What announces bytes: Data where shares are live, ArchiveData where folders are synced.
# No link carries both, so a handler names the one that it knows.
Announced = Any


class Piece(Protocol):
    """A run of bytes of one chunk or of some files, on its way out."""

    @property
    def message(self) -> m.Data | m.ArchiveData:
        """Which bytes these are."""

    def read_now(self, view: memoryview) -> bool:
        """Fill `view` without blocking; False if the disk would have to be asked."""

    async def read(self, view: memoryview) -> None:
        """Fill `view`, waiting for the disk."""


class LinkHandler(Protocol):
    """What a link asks of the swarm. Every method may raise PeerError to end the link."""

    def message(self, link: SecureLink, message: m.Message) -> None:
        """A legal control message arrived."""

    def sink(self, link: SecureLink, data: Announced) -> memoryview | None:
        """Where the announced bytes go, exactly `data.length` long; None: wait for room."""

    async def room(self, link: SecureLink, data: Announced) -> None:
        """Return when `sink` should be asked again."""

    def filled(self, link: SecureLink, data: Announced) -> None:
        """The bytes announced by `data` are all in their sink."""

    def departing(self, link: SecureLink) -> None:
        """Something is about to be sent: a good time to `send` what was not worth it alone."""

    def piece(self, link: SecureLink, room: int) -> Piece | None:
        """The next piece to send, of at most `room` bytes; None if there is none now."""

    def unreadable(self, link: SecureLink, piece: Piece, error: FuryMeshError) -> None:
        """A piece could not be read; nothing of it was sent."""


class Shareless:
    """The handler of a link on which no share is ever live, and no message means anything."""

    def message(self, link: SecureLink, message: m.Message) -> None:
        """Ignored."""

    def sink(self, link: SecureLink, data: Announced) -> memoryview | None:
        raise ProtocolError("chunk bytes that nobody asked for")

    async def room(self, link: SecureLink, data: Announced) -> None:
        await trio.lowlevel.checkpoint()

    def filled(self, link: SecureLink, data: Announced) -> None:
        """Never asked."""

    def departing(self, link: SecureLink) -> None:
        """Nothing to add."""

    def piece(self, link: SecureLink, room: int) -> Piece | None:
        return None

    def unreadable(self, link: SecureLink, piece: Piece, error: FuryMeshError) -> None:
        """Never asked."""


@dataclass(slots=True)
class Traffic:
    """Bytes that came over a link, records and all; `payload_received` of chunks alone."""

    received: int = 0
    payload_received: int = 0
