"""Who a share deals with: its members, the source of its chunks, its fetcher.

Always true: a member's `have` was checked against the geometry of its share.
Until that is known, what the member announces waits in `early`, and nothing is
decided by it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from furymesh.core.bitfield import mask_of
from furymesh.core.errors import ProtocolError
from furymesh.core.geometry import MAX_CHUNKS, Geometry
from furymesh.core.ids import NodeId
from furymesh.core.link import Address
from furymesh.net.secure_link import SecureLink
from furymesh.wire import messages as m


@dataclass(slots=True)
class Early:
    """What a member announced before the number of chunks was known."""

    everything: bool = False
    but: int = 0  # lost since it announced everything
    mask: int = 0

    def announced(self, message: m.Bitmap | m.Have | m.Lost) -> None:
        """Take in a message; ProtocolError if no share has so many chunks."""
        match message:
            case m.Bitmap(all=True):
                self.everything, self.but = True, 0
            case m.Bitmap(_, first, bits):
                if first + 8 * len(bits) > MAX_CHUNKS:
                    raise ProtocolError("bitmap of more chunks than any share has")
                self._add(int.from_bytes(bits, "little") << first)
            case m.Have(_, chunks):
                self._add(_any_mask(chunks))
            case m.Lost(_, chunks):
                self._remove(_any_mask(chunks))

    def settle(self, geometry: Geometry) -> int:
        """The chunks it has; ProtocolError if there are none of such numbers."""
        if (self.mask | self.but) >> geometry.chunk_count:
            raise ProtocolError("chunk index out of range")
        return self.mask | (geometry.all_chunks & ~self.but if self.everything else 0)

    def _add(self, mask: int) -> None:
        self.mask |= mask
        self.but &= ~mask

    def _remove(self, mask: int) -> None:
        self.mask &= ~mask
        if self.everything:
            self.but |= mask


def _any_mask(chunks: tuple[int, ...]) -> int:
    """The mask of chunk indices, as far as they can be checked without a geometry."""
    if chunks and max(chunks) >= MAX_CHUNKS:
        raise ProtocolError("chunk index above that of any share")
    return mask_of(chunks)


@dataclass(slots=True)
class Cancelled:
    """A chunk that a member was told not to send, until it confirms."""

    since: float
    left: int  # bytes that may still come


class Sender(Protocol):
    """Whoever brings a chunk, as far as its arrival concerns it."""

    @property
    def number(self) -> int:
        """By which the scheduler knows it."""

    @property
    def who(self) -> tuple[NodeId | None, str, str]:
        """Its node id, its address, and how that was come by."""

    def divert(self) -> None:
        """Nothing more may be written to where its bytes went."""


@dataclass(slots=True, eq=False)
class Member:
    """A peer with which a share is live, and what it did for us."""

    link: SecureLink
    number: int  # for the scheduler, unique in this process
    have: int = 0
    cancelled: dict[int, Cancelled] = field(default_factory=dict)  # oldest first
    early: Early = field(default_factory=Early)
    counted: int = 0  # bytes of its link that the download's clock was told of

    @property
    def who(self) -> tuple[NodeId | None, str, str]:
        return self.link.node_id, str(Address(*self.link.remote)), self.link.found

    def divert(self) -> None:
        self.link.divert()


class ChunkSource(Protocol):
    """Where the chunks of a share are read; every method is safe in a thread."""

    def resident_read_into(self, chunk: int, start: int, view: memoryview) -> bool:
        """Fill `view` from the chunk's offset `start` if that needs no disk; else False."""

    def read_into(self, chunk: int, start: int, view: memoryview) -> None:
        """Fill `view`; raises SourceChangedError or EnvironmentFault."""

    def close(self) -> None:
        """Let go of open files."""


class Fetcher(Protocol):
    """What a share tells its download."""

    def welcomes(self, link: SecureLink) -> bool:
        """Whether this link is one to fetch from."""

    def member_joined(self, member: Member) -> None: ...
    def member_left(self, member: Member) -> None: ...
    def member_has(self, member: Member, mask: int) -> None: ...
    def member_lost(self, member: Member, mask: int) -> None: ...
    def header(self, member: Member, message: m.ManifestHeader) -> None: ...
    def page(self, member: Member, message: m.ManifestPage) -> None: ...
    def rejected(self, member: Member, message: m.Reject) -> None: ...
    def sink(self, member: Member, data: m.Data) -> memoryview | None: ...
    async def room(self) -> None: ...
    def filled(self, member: Member, data: m.Data) -> None: ...
    def spoke(self, member: Member, round_trip: float | None) -> None: ...
