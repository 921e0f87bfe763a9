"""What a download tells about itself, for whoever watches it.

Sizes are bytes, rates bytes per second, times seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from furymesh.core.ids import FileId, NodeId


@dataclass(frozen=True, slots=True)
class Attempt:
    """One address that was tried and what came of it."""

    address: str
    outcome: str


@dataclass(frozen=True, slots=True)
class Waiting:
    """No peer that could help is connected; sent every few seconds while that lasts.

    ``looked`` says where peers are looked for, "on the local network".
    """

    seconds: float
    timeout: float
    tried: tuple[Attempt, ...]
    looked: str = ""


@dataclass(frozen=True, slots=True)
class Trouble:
    """A way to find peers that does not work, or not yet, and why; once for each reason."""

    text: str


@dataclass(frozen=True, slots=True)
class Connected:
    """A peer was dialled and answered; ``found`` is how its address was come by, "lan".

    A mirror has no node id; its address is its URL, without a query.
    """

    node_id: NodeId | None
    address: str
    found: str


@dataclass(frozen=True, slots=True)
class Started:
    """The manifest is known and what is on disk was taken stock of."""

    file_id: FileId
    name: str
    size: int
    chunks_total: int
    chunks_done: int
    part: Path
    resumed: bool


@dataclass(frozen=True, slots=True)
class Progress:
    """About one a second while chunks come in."""

    chunks_done: int
    chunks_total: int
    bytes_done: int
    size: int
    rate: float
    peers: int

    @property
    def eta(self) -> float | None:
        """Seconds left at the present rate; None while nothing moves."""
        return (self.size - self.bytes_done) / self.rate if self.rate > 0 else None


@dataclass(frozen=True, slots=True)
class Checking:
    """Chunks are hashed on disk: before resuming, or before publishing."""

    chunks_done: int
    chunks_total: int
    final: bool


@dataclass(frozen=True, slots=True)
class Note:
    """One line worth knowing: a pause, a bad peer, a damaged file."""

    text: str


@dataclass(frozen=True, slots=True)
class PeerContribution:
    """What one peer brought; ``found`` is how its address was come by, "incoming" if it dialled.

    A mirror has no node id; its address is its URL, without a query.
    """

    node_id: NodeId | None
    address: str
    bytes: int
    chunks: int
    found: str = ""


@dataclass(frozen=True, slots=True)
class Result:
    """A finished download.

    ``bytes_fetched`` came over the network and verified, ``bytes_reused`` were
    on disk already, ``bytes_wasted`` came twice or did not verify. ``sealed``
    tells that an encrypted share was kept as ciphertext for want of its key.
    """

    file_id: FileId
    path: Path
    size: int
    seconds: float
    bytes_fetched: int
    bytes_reused: int
    bytes_wasted: int
    peers: tuple[PeerContribution, ...]
    sealed: bool = False


Event = Waiting | Trouble | Connected | Started | Progress | Checking | Note
