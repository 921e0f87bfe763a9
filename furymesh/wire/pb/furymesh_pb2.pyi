from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Reason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    REASON_UNSPECIFIED: _ClassVar[Reason]
    REASON_NOT_FOUND: _ClassVar[Reason]
    REASON_NOT_HELD: _ClassVar[Reason]
    REASON_ELSEWHERE: _ClassVar[Reason]
    REASON_BUSY: _ClassVar[Reason]
    REASON_SHUTTING_DOWN: _ClassVar[Reason]
    REASON_PROTOCOL: _ClassVar[Reason]
    REASON_BAD_DATA: _ClassVar[Reason]
    REASON_DUPLICATE: _ClassVar[Reason]
    REASON_VERSION: _ClassVar[Reason]
    REASON_DONE: _ClassVar[Reason]
    REASON_IDLE: _ClassVar[Reason]
    REASON_FORBIDDEN: _ClassVar[Reason]
REASON_UNSPECIFIED: Reason
REASON_NOT_FOUND: Reason
REASON_NOT_HELD: Reason
REASON_ELSEWHERE: Reason
REASON_BUSY: Reason
REASON_SHUTTING_DOWN: Reason
REASON_PROTOCOL: Reason
REASON_BAD_DATA: Reason
REASON_DUPLICATE: Reason
REASON_VERSION: Reason
REASON_DONE: Reason
REASON_IDLE: Reason
REASON_FORBIDDEN: Reason

class Frame(_message.Message):
    __slots__ = ("hello", "join", "refuse", "leave", "get_manifest", "manifest_header", "manifest_page", "bitmap", "have", "lost", "request", "data", "cancel", "reject", "peers", "ping", "pong", "goodbye", "rendezvous", "introduction", "reach", "summons", "answer", "spliced", "identify", "busy", "ready", "archive_info", "archive_tasks", "archive_data", "archive_skip", "archive_written", "archive_failed", "archive_extras", "archive_gone", "next_sync")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    JOIN_FIELD_NUMBER: _ClassVar[int]
    REFUSE_FIELD_NUMBER: _ClassVar[int]
    LEAVE_FIELD_NUMBER: _ClassVar[int]
    GET_MANIFEST_FIELD_NUMBER: _ClassVar[int]
    MANIFEST_HEADER_FIELD_NUMBER: _ClassVar[int]
    MANIFEST_PAGE_FIELD_NUMBER: _ClassVar[int]
    BITMAP_FIELD_NUMBER: _ClassVar[int]
    HAVE_FIELD_NUMBER: _ClassVar[int]
    LOST_FIELD_NUMBER: _ClassVar[int]
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    CANCEL_FIELD_NUMBER: _ClassVar[int]
    REJECT_FIELD_NUMBER: _ClassVar[int]
    PEERS_FIELD_NUMBER: _ClassVar[int]
    PING_FIELD_NUMBER: _ClassVar[int]
    PONG_FIELD_NUMBER: _ClassVar[int]
    GOODBYE_FIELD_NUMBER: _ClassVar[int]
    RENDEZVOUS_FIELD_NUMBER: _ClassVar[int]
    INTRODUCTION_FIELD_NUMBER: _ClassVar[int]
    REACH_FIELD_NUMBER: _ClassVar[int]
    SUMMONS_FIELD_NUMBER: _ClassVar[int]
    ANSWER_FIELD_NUMBER: _ClassVar[int]
    SPLICED_FIELD_NUMBER: _ClassVar[int]
    IDENTIFY_FIELD_NUMBER: _ClassVar[int]
    BUSY_FIELD_NUMBER: _ClassVar[int]
    READY_FIELD_NUMBER: _ClassVar[int]
    ARCHIVE_INFO_FIELD_NUMBER: _ClassVar[int]
    ARCHIVE_TASKS_FIELD_NUMBER: _ClassVar[int]
    ARCHIVE_DATA_FIELD_NUMBER: _ClassVar[int]
    ARCHIVE_SKIP_FIELD_NUMBER: _ClassVar[int]
    ARCHIVE_WRITTEN_FIELD_NUMBER: _ClassVar[int]
    ARCHIVE_FAILED_FIELD_NUMBER: _ClassVar[int]
    ARCHIVE_EXTRAS_FIELD_NUMBER: _ClassVar[int]
    ARCHIVE_GONE_FIELD_NUMBER: _ClassVar[int]
    NEXT_SYNC_FIELD_NUMBER: _ClassVar[int]
    hello: Hello
    join: Join
    refuse: Refuse
    leave: Leave
    get_manifest: GetManifest
    manifest_header: ManifestHeader
    manifest_page: ManifestPage
    bitmap: Bitmap
    have: Have
    lost: Lost
    request: Request
    data: Data
    cancel: Cancel
    reject: Reject
    peers: Peers
    ping: Ping
    pong: Pong
    goodbye: Goodbye
    rendezvous: Rendezvous
    introduction: Introduction
    reach: Reach
    summons: Summons
    answer: Answer
    spliced: Spliced
    identify: Identify
    busy: Busy
    ready: Ready
    archive_info: ArchiveInfo
    archive_tasks: ArchiveTasks
    archive_data: ArchiveData
    archive_skip: ArchiveSkip
    archive_written: ArchiveWritten
    archive_failed: ArchiveFailed
    archive_extras: ArchiveExtras
    archive_gone: ArchiveGone
    next_sync: NextSync
    def __init__(self, hello: _Optional[_Union[Hello, _Mapping]] = ..., join: _Optional[_Union[Join, _Mapping]] = ..., refuse: _Optional[_Union[Refuse, _Mapping]] = ..., leave: _Optional[_Union[Leave, _Mapping]] = ..., get_manifest: _Optional[_Union[GetManifest, _Mapping]] = ..., manifest_header: _Optional[_Union[ManifestHeader, _Mapping]] = ..., manifest_page: _Optional[_Union[ManifestPage, _Mapping]] = ..., bitmap: _Optional[_Union[Bitmap, _Mapping]] = ..., have: _Optional[_Union[Have, _Mapping]] = ..., lost: _Optional[_Union[Lost, _Mapping]] = ..., request: _Optional[_Union[Request, _Mapping]] = ..., data: _Optional[_Union[Data, _Mapping]] = ..., cancel: _Optional[_Union[Cancel, _Mapping]] = ..., reject: _Optional[_Union[Reject, _Mapping]] = ..., peers: _Optional[_Union[Peers, _Mapping]] = ..., ping: _Optional[_Union[Ping, _Mapping]] = ..., pong: _Optional[_Union[Pong, _Mapping]] = ..., goodbye: _Optional[_Union[Goodbye, _Mapping]] = ..., rendezvous: _Optional[_Union[Rendezvous, _Mapping]] = ..., introduction: _Optional[_Union[Introduction, _Mapping]] = ..., reach: _Optional[_Union[Reach, _Mapping]] = ..., summons: _Optional[_Union[Summons, _Mapping]] = ..., answer: _Optional[_Union[Answer, _Mapping]] = ..., spliced: _Optional[_Union[Spliced, _Mapping]] = ..., identify: _Optional[_Union[Identify, _Mapping]] = ..., busy: _Optional[_Union[Busy, _Mapping]] = ..., ready: _Optional[_Union[Ready, _Mapping]] = ..., archive_info: _Optional[_Union[ArchiveInfo, _Mapping]] = ..., archive_tasks: _Optional[_Union[ArchiveTasks, _Mapping]] = ..., archive_data: _Optional[_Union[ArchiveData, _Mapping]] = ..., archive_skip: _Optional[_Union[ArchiveSkip, _Mapping]] = ..., archive_written: _Optional[_Union[ArchiveWritten, _Mapping]] = ..., archive_failed: _Optional[_Union[ArchiveFailed, _Mapping]] = ..., archive_extras: _Optional[_Union[ArchiveExtras, _Mapping]] = ..., archive_gone: _Optional[_Union[ArchiveGone, _Mapping]] = ..., next_sync: _Optional[_Union[NextSync, _Mapping]] = ...) -> None: ...

class Hello(_message.Message):
    __slots__ = ("version", "min_version", "features", "instance", "listen_port", "agent", "observed_ip", "observed_port")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    MIN_VERSION_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    LISTEN_PORT_FIELD_NUMBER: _ClassVar[int]
    AGENT_FIELD_NUMBER: _ClassVar[int]
    OBSERVED_IP_FIELD_NUMBER: _ClassVar[int]
    OBSERVED_PORT_FIELD_NUMBER: _ClassVar[int]
    version: int
    min_version: int
    features: _containers.RepeatedScalarFieldContainer[str]
    instance: bytes
    listen_port: int
    agent: str
    observed_ip: bytes
    observed_port: int
    def __init__(self, version: _Optional[int] = ..., min_version: _Optional[int] = ..., features: _Optional[_Iterable[str]] = ..., instance: _Optional[bytes] = ..., listen_port: _Optional[int] = ..., agent: _Optional[str] = ..., observed_ip: _Optional[bytes] = ..., observed_port: _Optional[int] = ...) -> None: ...

class Join(_message.Message):
    __slots__ = ("share", "tag", "proof", "leaves")
    SHARE_FIELD_NUMBER: _ClassVar[int]
    TAG_FIELD_NUMBER: _ClassVar[int]
    PROOF_FIELD_NUMBER: _ClassVar[int]
    LEAVES_FIELD_NUMBER: _ClassVar[int]
    share: int
    tag: bytes
    proof: bytes
    leaves: int
    def __init__(self, share: _Optional[int] = ..., tag: _Optional[bytes] = ..., proof: _Optional[bytes] = ..., leaves: _Optional[int] = ...) -> None: ...

class Refuse(_message.Message):
    __slots__ = ("share", "reason")
    SHARE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    share: int
    reason: Reason
    def __init__(self, share: _Optional[int] = ..., reason: _Optional[_Union[Reason, str]] = ...) -> None: ...

class Leave(_message.Message):
    __slots__ = ("share", "reason")
    SHARE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    share: int
    reason: Reason
    def __init__(self, share: _Optional[int] = ..., reason: _Optional[_Union[Reason, str]] = ...) -> None: ...

class GetManifest(_message.Message):
    __slots__ = ("share", "header", "pages")
    SHARE_FIELD_NUMBER: _ClassVar[int]
    HEADER_FIELD_NUMBER: _ClassVar[int]
    PAGES_FIELD_NUMBER: _ClassVar[int]
    share: int
    header: bool
    pages: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, share: _Optional[int] = ..., header: _Optional[bool] = ..., pages: _Optional[_Iterable[int]] = ...) -> None: ...

class ManifestHeader(_message.Message):
    __slots__ = ("share", "header", "name", "executable")
    SHARE_FIELD_NUMBER: _ClassVar[int]
    HEADER_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    EXECUTABLE_FIELD_NUMBER: _ClassVar[int]
    share: int
    header: bytes
    name: str
    executable: bool
    def __init__(self, share: _Optional[int] = ..., header: _Optional[bytes] = ..., name: _Optional[str] = ..., executable: _Optional[bool] = ...) -> None: ...

class ManifestPage(_message.Message):
    __slots__ = ("share", "page", "data")
    SHARE_FIELD_NUMBER: _ClassVar[int]
    PAGE_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    share: int
    page: int
    data: bytes
    def __init__(self, share: _Optional[int] = ..., page: _Optional[int] = ..., data: _Optional[bytes] = ...) -> None: ...

class Bitmap(_message.Message):
    __slots__ = ("share", "first", "bits", "all")
    SHARE_FIELD_NUMBER: _ClassVar[int]
    FIRST_FIELD_NUMBER: _ClassVar[int]
    BITS_FIELD_NUMBER: _ClassVar[int]
    ALL_FIELD_NUMBER: _ClassVar[int]
    share: int
    first: int
    bits: bytes
    all: bool
    def __init__(self, share: _Optional[int] = ..., first: _Optional[int] = ..., bits: _Optional[bytes] = ..., all: _Optional[bool] = ...) -> None: ...

class Have(_message.Message):
    __slots__ = ("share", "chunks")
    SHARE_FIELD_NUMBER: _ClassVar[int]
    CHUNKS_FIELD_NUMBER: _ClassVar[int]
    share: int
    chunks: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, share: _Optional[int] = ..., chunks: _Optional[_Iterable[int]] = ...) -> None: ...

class Lost(_message.Message):
    __slots__ = ("share", "chunks")
    SHARE_FIELD_NUMBER: _ClassVar[int]
    CHUNKS_FIELD_NUMBER: _ClassVar[int]
    share: int
    chunks: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, share: _Optional[int] = ..., chunks: _Optional[_Iterable[int]] = ...) -> None: ...

class Request(_message.Message):
    __slots__ = ("share", "chunks")
    SHARE_FIELD_NUMBER: _ClassVar[int]
    CHUNKS_FIELD_NUMBER: _ClassVar[int]
    share: int
    chunks: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, share: _Optional[int] = ..., chunks: _Optional[_Iterable[int]] = ...) -> None: ...

class Data(_message.Message):
    __slots__ = ("share", "chunk", "offset", "length")
    SHARE_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    LENGTH_FIELD_NUMBER: _ClassVar[int]
    share: int
    chunk: int
    offset: int
    length: int
    def __init__(self, share: _Optional[int] = ..., chunk: _Optional[int] = ..., offset: _Optional[int] = ..., length: _Optional[int] = ...) -> None: ...

class Cancel(_message.Message):
    __slots__ = ("share", "chunks")
    SHARE_FIELD_NUMBER: _ClassVar[int]
    CHUNKS_FIELD_NUMBER: _ClassVar[int]
    share: int
    chunks: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, share: _Optional[int] = ..., chunks: _Optional[_Iterable[int]] = ...) -> None: ...

class Reject(_message.Message):
    __slots__ = ("share", "chunks", "reason", "suggest")
    SHARE_FIELD_NUMBER: _ClassVar[int]
    CHUNKS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    SUGGEST_FIELD_NUMBER: _ClassVar[int]
    share: int
    chunks: _containers.RepeatedScalarFieldContainer[int]
    reason: Reason
    suggest: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, share: _Optional[int] = ..., chunks: _Optional[_Iterable[int]] = ..., reason: _Optional[_Union[Reason, str]] = ..., suggest: _Optional[_Iterable[int]] = ...) -> None: ...

class PeerAddress(_message.Message):
    __slots__ = ("ip", "port", "node_id")
    IP_FIELD_NUMBER: _ClassVar[int]
    PORT_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    ip: bytes
    port: int
    node_id: bytes
    def __init__(self, ip: _Optional[bytes] = ..., port: _Optional[int] = ..., node_id: _Optional[bytes] = ...) -> None: ...

class Peers(_message.Message):
    __slots__ = ("share", "peers")
    SHARE_FIELD_NUMBER: _ClassVar[int]
    PEERS_FIELD_NUMBER: _ClassVar[int]
    share: int
    peers: _containers.RepeatedCompositeFieldContainer[PeerAddress]
    def __init__(self, share: _Optional[int] = ..., peers: _Optional[_Iterable[_Union[PeerAddress, _Mapping]]] = ...) -> None: ...

class Ping(_message.Message):
    __slots__ = ("nonce",)
    NONCE_FIELD_NUMBER: _ClassVar[int]
    nonce: int
    def __init__(self, nonce: _Optional[int] = ...) -> None: ...

class Pong(_message.Message):
    __slots__ = ("nonce",)
    NONCE_FIELD_NUMBER: _ClassVar[int]
    nonce: int
    def __init__(self, nonce: _Optional[int] = ...) -> None: ...

class Goodbye(_message.Message):
    __slots__ = ("reason", "detail")
    REASON_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    reason: Reason
    detail: str
    def __init__(self, reason: _Optional[_Union[Reason, str]] = ..., detail: _Optional[str] = ...) -> None: ...

class Rendezvous(_message.Message):
    __slots__ = ("tags",)
    TAGS_FIELD_NUMBER: _ClassVar[int]
    tags: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, tags: _Optional[_Iterable[bytes]] = ...) -> None: ...

class Introduction(_message.Message):
    __slots__ = ("tag", "node_id", "instance", "ip", "port")
    TAG_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    IP_FIELD_NUMBER: _ClassVar[int]
    PORT_FIELD_NUMBER: _ClassVar[int]
    tag: bytes
    node_id: bytes
    instance: bytes
    ip: bytes
    port: int
    def __init__(self, tag: _Optional[bytes] = ..., node_id: _Optional[bytes] = ..., instance: _Optional[bytes] = ..., ip: _Optional[bytes] = ..., port: _Optional[int] = ...) -> None: ...

class Reach(_message.Message):
    __slots__ = ("node_id", "instance")
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    node_id: bytes
    instance: bytes
    def __init__(self, node_id: _Optional[bytes] = ..., instance: _Optional[bytes] = ...) -> None: ...

class Summons(_message.Message):
    __slots__ = ("token", "node_id", "instance", "ip", "port")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    IP_FIELD_NUMBER: _ClassVar[int]
    PORT_FIELD_NUMBER: _ClassVar[int]
    token: bytes
    node_id: bytes
    instance: bytes
    ip: bytes
    port: int
    def __init__(self, token: _Optional[bytes] = ..., node_id: _Optional[bytes] = ..., instance: _Optional[bytes] = ..., ip: _Optional[bytes] = ..., port: _Optional[int] = ...) -> None: ...

class Answer(_message.Message):
    __slots__ = ("token",)
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    token: bytes
    def __init__(self, token: _Optional[bytes] = ...) -> None: ...

class Spliced(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Identify(_message.Message):
    __slots__ = ("client_id", "mirror", "force")
    CLIENT_ID_FIELD_NUMBER: _ClassVar[int]
    MIRROR_FIELD_NUMBER: _ClassVar[int]
    FORCE_FIELD_NUMBER: _ClassVar[int]
    client_id: str
    mirror: bool
    force: bool
    def __init__(self, client_id: _Optional[str] = ..., mirror: _Optional[bool] = ..., force: _Optional[bool] = ...) -> None: ...

class Busy(_message.Message):
    __slots__ = ("place",)
    PLACE_FIELD_NUMBER: _ClassVar[int]
    place: int
    def __init__(self, place: _Optional[int] = ...) -> None: ...

class Ready(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ArchiveInfo(_message.Message):
    __slots__ = ("paths", "sizes", "mtimes", "modes", "digests", "last")
    PATHS_FIELD_NUMBER: _ClassVar[int]
    SIZES_FIELD_NUMBER: _ClassVar[int]
    MTIMES_FIELD_NUMBER: _ClassVar[int]
    MODES_FIELD_NUMBER: _ClassVar[int]
    DIGESTS_FIELD_NUMBER: _ClassVar[int]
    LAST_FIELD_NUMBER: _ClassVar[int]
    paths: _containers.RepeatedScalarFieldContainer[str]
    sizes: _containers.RepeatedScalarFieldContainer[int]
    mtimes: _containers.RepeatedScalarFieldContainer[int]
    modes: _containers.RepeatedScalarFieldContainer[int]
    digests: bytes
    last: bool
    def __init__(self, paths: _Optional[_Iterable[str]] = ..., sizes: _Optional[_Iterable[int]] = ..., mtimes: _Optional[_Iterable[int]] = ..., modes: _Optional[_Iterable[int]] = ..., digests: _Optional[bytes] = ..., last: _Optional[bool] = ...) -> None: ...

class ArchiveTasks(_message.Message):
    __slots__ = ("files", "offsets", "unhashed", "later", "copied", "again")
    FILES_FIELD_NUMBER: _ClassVar[int]
    OFFSETS_FIELD_NUMBER: _ClassVar[int]
    UNHASHED_FIELD_NUMBER: _ClassVar[int]
    LATER_FIELD_NUMBER: _ClassVar[int]
    COPIED_FIELD_NUMBER: _ClassVar[int]
    AGAIN_FIELD_NUMBER: _ClassVar[int]
    files: _containers.RepeatedScalarFieldContainer[int]
    offsets: _containers.RepeatedScalarFieldContainer[int]
    unhashed: _containers.RepeatedScalarFieldContainer[int]
    later: _containers.RepeatedScalarFieldContainer[int]
    copied: int
    again: bool
    def __init__(self, files: _Optional[_Iterable[int]] = ..., offsets: _Optional[_Iterable[int]] = ..., unhashed: _Optional[_Iterable[int]] = ..., later: _Optional[_Iterable[int]] = ..., copied: _Optional[int] = ..., again: _Optional[bool] = ...) -> None: ...

class ArchiveData(_message.Message):
    __slots__ = ("files", "offsets", "lengths", "digests", "length")
    FILES_FIELD_NUMBER: _ClassVar[int]
    OFFSETS_FIELD_NUMBER: _ClassVar[int]
    LENGTHS_FIELD_NUMBER: _ClassVar[int]
    DIGESTS_FIELD_NUMBER: _ClassVar[int]
    LENGTH_FIELD_NUMBER: _ClassVar[int]
    files: _containers.RepeatedScalarFieldContainer[int]
    offsets: _containers.RepeatedScalarFieldContainer[int]
    lengths: _containers.RepeatedScalarFieldContainer[int]
    digests: bytes
    length: int
    def __init__(self, files: _Optional[_Iterable[int]] = ..., offsets: _Optional[_Iterable[int]] = ..., lengths: _Optional[_Iterable[int]] = ..., digests: _Optional[bytes] = ..., length: _Optional[int] = ...) -> None: ...

class ArchiveSkip(_message.Message):
    __slots__ = ("files",)
    FILES_FIELD_NUMBER: _ClassVar[int]
    files: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, files: _Optional[_Iterable[int]] = ...) -> None: ...

class ArchiveWritten(_message.Message):
    __slots__ = ("batches",)
    BATCHES_FIELD_NUMBER: _ClassVar[int]
    batches: int
    def __init__(self, batches: _Optional[int] = ...) -> None: ...

class ArchiveFailed(_message.Message):
    __slots__ = ("file", "detail")
    FILE_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    file: int
    detail: str
    def __init__(self, file: _Optional[int] = ..., detail: _Optional[str] = ...) -> None: ...

class ArchiveExtras(_message.Message):
    __slots__ = ("paths",)
    PATHS_FIELD_NUMBER: _ClassVar[int]
    paths: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, paths: _Optional[_Iterable[str]] = ...) -> None: ...

class ArchiveGone(_message.Message):
    __slots__ = ("places",)
    PLACES_FIELD_NUMBER: _ClassVar[int]
    places: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, places: _Optional[_Iterable[int]] = ...) -> None: ...

class NextSync(_message.Message):
    __slots__ = ("seconds", "removed", "notice")
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    REMOVED_FIELD_NUMBER: _ClassVar[int]
    NOTICE_FIELD_NUMBER: _ClassVar[int]
    seconds: int
    removed: int
    notice: str
    def __init__(self, seconds: _Optional[int] = ..., removed: _Optional[int] = ..., notice: _Optional[str] = ...) -> None: ...
