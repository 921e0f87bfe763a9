"""What folder sync tells about itself, at either end."""

from __future__ import annotations

from dataclasses import dataclass

from furymesh.core.ids import NodeId

# --- the client ---------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Found:
    """A server was chosen; `others` are those that answered as well."""

    node_id: NodeId
    address: str
    new: bool  # this client pins it from now on
    others: tuple[NodeId, ...] = ()


@dataclass(frozen=True, slots=True)
class Queued:
    """Others come first; 1 is next."""

    place: int


@dataclass(frozen=True, slots=True)
class Started:
    """The session begins."""


@dataclass(frozen=True, slots=True)
class Hashing:
    """Bytes that were hashed so far, of as many as there are to hash."""

    bytes_done: int
    bytes_total: int


@dataclass(frozen=True, slots=True)
class Comparing:
    """The server looks at what it has of so many files, and may have to hash it."""

    files: int


@dataclass(frozen=True, slots=True)
class Progress:
    """How far it is: of the files looked at so far those that travel."""

    looked: int
    files_done: int
    files: int
    bytes_done: int
    bytes: int
    rate: float  # bytes a second


@dataclass(frozen=True, slots=True)
class Report:
    """A session has ended as it should; `failed` are paths and reasons, the first of them.

    `left_out` are lines about what never travels, like links.
    """

    files: int  # sent
    bytes_sent: int
    skipped: int
    copied: int
    removed: int
    failed_count: int
    failed: tuple[tuple[str, str], ...]
    left_out: tuple[str, ...]
    notice: str
    seconds: float
    next_sync: int  # seconds from now


@dataclass(frozen=True, slots=True)
class Lost:
    """There is no server, or it went away; it is tried again."""

    reason: str
    retry: float  # seconds


# --- the server ---------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Came:
    """A client has identified itself; place 0 is its turn."""

    client_id: str
    node_id: NodeId
    address: str
    place: int


@dataclass(frozen=True, slots=True)
class Begun:
    """Its session begins."""

    client_id: str


@dataclass(frozen=True, slots=True)
class Planned:
    """Everything was announced; the documented line about what is taken up again."""

    client_id: str
    text: str


@dataclass(frozen=True, slots=True)
class Synced:
    """Its folder is in step; sizes in bytes."""

    client_id: str
    stored: int
    received: int
    kept: int
    copied: int
    removed: int
    failed: int
    seconds: float
    notice: str


@dataclass(frozen=True, slots=True)
class Gone:
    """It went before that."""

    client_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Note:
    """A line for the operator."""

    text: str


ClientEvent = Found | Queued | Started | Hashing | Comparing | Progress | Report | Lost | Note
ServerEvent = Came | Begun | Planned | Synced | Gone | Note
