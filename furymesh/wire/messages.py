"""The control messages of a link as plain values.

They mirror proto/furymesh.proto field by field; every instance that comes out
of the codec has passed its length and range checks. ``share`` is always the
number that the *sender* chose in its Join.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class Reason(IntEnum):
    """Why something was refused or ended; numbers as on the wire."""

    UNSPECIFIED = 0
    NOT_FOUND = 1
    NOT_HELD = 2
    ELSEWHERE = 3
    BUSY = 4
    SHUTTING_DOWN = 5
    PROTOCOL = 6
    BAD_DATA = 7
    DUPLICATE = 8
    VERSION = 9
    DONE = 10
    IDLE = 11
    FORBIDDEN = 12

    @property
    def words(self) -> str:
        return self.name.lower().replace("_", " ")


@dataclass(frozen=True, slots=True)
class Hello:
    version: int
    min_version: int
    instance: bytes
    listen_port: int = 0
    agent: str = ""
    features: tuple[str, ...] = ()
    observed_ip: bytes = b""
    observed_port: int = 0


@dataclass(frozen=True, slots=True)
class Join:
    share: int
    tag: bytes
    proof: bytes
    leaves: int = 0  # Leave messages of the receiver that the sender had read


@dataclass(frozen=True, slots=True)
class Refuse:
    share: int  # the receiver's number, from the Join that is refused
    reason: Reason


@dataclass(frozen=True, slots=True)
class Leave:
    share: int
    reason: Reason


@dataclass(frozen=True, slots=True)
class GetManifest:
    share: int
    header: bool
    pages: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ManifestHeader:
    share: int
    header: bytes
    name: str
    executable: bool


@dataclass(frozen=True, slots=True)
class ManifestPage:
    share: int
    page: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Bitmap:
    share: int
    first: int
    bits: bytes
    all: bool


@dataclass(frozen=True, slots=True)
class Have:
    share: int
    chunks: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Lost:
    share: int
    chunks: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Request:
    share: int
    chunks: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Data:
    share: int
    chunk: int
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Cancel:
    share: int
    chunks: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Reject:
    share: int
    chunks: tuple[int, ...]
    reason: Reason
    suggest: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class PeerAddress:
    ip: bytes
    port: int
    node_id: bytes = b""


@dataclass(frozen=True, slots=True)
class Peers:
    share: int
    peers: tuple[PeerAddress, ...]


@dataclass(frozen=True, slots=True)
class Ping:
    nonce: int


@dataclass(frozen=True, slots=True)
class Pong:
    nonce: int


@dataclass(frozen=True, slots=True)
class Goodbye:
    reason: Reason
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Rendezvous:
    tags: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Introduction:
    tag: bytes
    node_id: bytes
    instance: bytes
    ip: bytes
    port: int


@dataclass(frozen=True, slots=True)
class Reach:
    node_id: bytes
    instance: bytes


@dataclass(frozen=True, slots=True)
class Summons:
    token: bytes
    node_id: bytes
    instance: bytes
    ip: bytes = b""
    port: int = 0


@dataclass(frozen=True, slots=True)
class Answer:
    token: bytes


@dataclass(frozen=True, slots=True)
class Spliced:
    """What follows on the connection comes from the other end of the splice."""


@dataclass(frozen=True, slots=True)
class Identify:
    client_id: str
    mirror: bool = False
    force: bool = False


@dataclass(frozen=True, slots=True)
class Busy:
    place: int


@dataclass(frozen=True, slots=True)
class Ready:
    """It is the client's turn."""


@dataclass(frozen=True, slots=True)
class ArchiveInfo:
    """Entries as columns: one call each instead of one for every field of every file."""

    paths: tuple[str, ...] = ()
    sizes: tuple[int, ...] = ()
    mtimes: tuple[int, ...] = ()
    modes: tuple[int, ...] = ()
    digests: bytes = b""
    last: bool = False


@dataclass(frozen=True, slots=True)
class ArchiveTasks:
    files: tuple[int, ...] = ()
    offsets: tuple[int, ...] = ()
    unhashed: tuple[int, ...] = ()
    later: tuple[int, ...] = ()
    copied: int = 0
    again: bool = False


@dataclass(frozen=True, slots=True)
class ArchiveData:
    files: tuple[int, ...]
    offsets: tuple[int, ...]
    lengths: tuple[int, ...]
    digests: bytes
    length: int


@dataclass(frozen=True, slots=True)
class ArchiveSkip:
    files: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ArchiveWritten:
    batches: int


@dataclass(frozen=True, slots=True)
class ArchiveFailed:
    file: int
    detail: str = ""


@dataclass(frozen=True, slots=True)
class ArchiveExtras:
    paths: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ArchiveGone:
    places: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class NextSync:
    seconds: int
    removed: int = 0
    notice: str = ""


@dataclass(frozen=True, slots=True)
class Unknown:
    """A message to skip: one that this version does not know, or one that is void."""


ShareMessage = (
    Leave
    | GetManifest
    | ManifestHeader
    | ManifestPage
    | Bitmap
    | Have
    | Lost
    | Request
    | Data
    | Cancel
    | Reject
    | Peers
)
RelayMessage = Rendezvous | Introduction | Reach | Summons | Answer | Spliced
SyncMessage = (
    Identify
    | Busy
    | Ready
    | ArchiveInfo
    | ArchiveTasks
    | ArchiveData
    | ArchiveSkip
    | ArchiveWritten
    | ArchiveFailed
    | ArchiveExtras
    | ArchiveGone
    | NextSync
)
LinkMessage = Hello | Join | Refuse | Ping | Pong | Goodbye | RelayMessage | SyncMessage | Unknown
Message = LinkMessage | ShareMessage
