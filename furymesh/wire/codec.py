"""Control records to messages and back. Generated protobuf stays within these modules.

Decoding is where a peer's bytes become trusted values, so every length, count
and range that does not depend on the share is checked here. Whatever breaks a
rule raises ProtocolError. Unknown fields are ignored and unknown messages come
out as ``Unknown``: a newer peer may say more than we understand.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from google.protobuf.message import DecodeError

from furymesh.core.errors import ProtocolError
from furymesh.core.geometry import MAX_CHUNK_SIZE, PAGE_SIZE
from furymesh.core.ids import ID_SIZE, INSTANCE_SIZE
from furymesh.wire import messages as m
from furymesh.wire import sync_codec
from furymesh.wire.coding import encoder, need, text
from furymesh.wire.pb import furymesh_pb2 as pb

# Bytes in one Data message: a control message never waits behind more.
MAX_PIECE = 1024 * 1024
MAX_INDEX = 2**31  # above any chunk index the geometry allows
MAX_INDICES = 4096  # one message; more is sent as several
MAX_BITMAP = 64 * 1024  # bytes in one Bitmap message: half a million chunks
MAX_HEADER = 64 * 1024  # no manifest header is longer
MAX_PAGES_ASKED = 32  # 2 MiB of answers: a second, on a line of 20 Mbit/s
MAX_PEERS = 100  # as in BitTorrent's PEX: enough to find a swarm, too few to flood with
MAX_TEXT = 255  # bytes; a name hint is one file name
MAX_DETAIL = 200  # bytes of explanation sent with a Goodbye: one line for a person
MAX_FEATURES = 32  # names of extensions; there are three yet
MAX_TAGS = 1024  # in one Rendezvous: more shares than a node has that is not itself public
TOKEN_SIZE = 16  # not to be guessed in the seconds that it is good for
MAX_SUGGEST = 16  # more would bind the requester too early
# The largest message is a manifest page; anything longer cannot be honest.
MAX_FRAME = PAGE_SIZE + 1024


def encode(message: m.Message) -> bytes:
    """One Frame; the caller seals it as one record."""
    return _ENCODERS[type(message)](message)


def decode(raw: bytes) -> m.Message:
    """Read one Frame; raises ProtocolError for anything the protocol forbids."""
    if len(raw) > MAX_FRAME:
        raise ProtocolError(f"control message of {len(raw)} bytes")
    try:
        frame = pb.Frame.FromString(raw)
    except DecodeError:
        raise ProtocolError("control message is not valid protobuf") from None
    kind = frame.WhichOneof("body")
    if kind is None:
        return m.Unknown()
    return _DECODERS[kind](getattr(frame, kind))


def _indices(values: Any, limit: int = MAX_INDICES) -> tuple[int, ...]:
    need(len(values) <= limit, "too many indices in one message")
    out = tuple(values)
    need(not out or max(out) < MAX_INDEX, "index out of range")
    return out


def _reason(value: int) -> m.Reason:
    try:
        return m.Reason(value)
    except ValueError:  # a newer peer's reason
        return m.Reason.UNSPECIFIED


def _ip(raw: bytes, *, optional: bool) -> bytes:
    need(len(raw) in (4, 16) or (optional and not raw), "IP address of odd length")
    return raw


def _port(value: int, *, optional: bool) -> int:
    need(value < 65536 and (optional or value > 0), "port out of range")
    return value


def _sized(raw: bytes, size: int, what: str) -> bytes:
    need(len(raw) == size, f"{what} of wrong length")
    return raw


def _node_id(raw: bytes) -> bytes:
    return _sized(raw, ID_SIZE, "node id")


def _instance(raw: bytes) -> bytes:
    return _sized(raw, INSTANCE_SIZE, "instance id")


def _token(raw: bytes) -> bytes:
    return _sized(raw, TOKEN_SIZE, "token")


def _hello(p: pb.Hello) -> m.Hello:
    need(0 < p.min_version <= p.version, "version range is empty")
    need(len(p.features) <= MAX_FEATURES, "too many features")
    return m.Hello(
        version=p.version,
        min_version=p.min_version,
        instance=_instance(p.instance),
        listen_port=_port(p.listen_port, optional=True),
        agent=text(p.agent, MAX_TEXT),
        features=tuple(text(feature, MAX_TEXT) for feature in p.features),
        observed_ip=_ip(p.observed_ip, optional=True),
        observed_port=_port(p.observed_port, optional=True),
    )


def _join(p: pb.Join) -> m.Join:
    tag, proof = _sized(p.tag, ID_SIZE, "tag"), _sized(p.proof, ID_SIZE, "proof")
    return m.Join(p.share, tag, proof, p.leaves)


def _get_manifest(p: pb.GetManifest) -> m.GetManifest:
    return m.GetManifest(p.share, p.header, _indices(p.pages, MAX_PAGES_ASKED))


def _manifest_header(p: pb.ManifestHeader) -> m.ManifestHeader:
    need(len(p.header) <= MAX_HEADER, "manifest header too long")
    return m.ManifestHeader(p.share, p.header, text(p.name, MAX_TEXT), p.executable)


def _manifest_page(p: pb.ManifestPage) -> m.ManifestPage:
    need(len(p.data) <= PAGE_SIZE, "manifest page too long")
    need(p.page < MAX_INDEX, "page index out of range")
    return m.ManifestPage(p.share, p.page, p.data)


def _bitmap(p: pb.Bitmap) -> m.Bitmap:
    need(len(p.bits) <= MAX_BITMAP, "bitmap too long")
    need(p.first % 8 == 0 and p.first < MAX_INDEX, "bitmap does not start on a byte")
    need(not (p.all and (p.bits or p.first)), "bitmap says all and lists bits")
    return m.Bitmap(p.share, p.first, p.bits, p.all)


def _data(p: pb.Data) -> m.Data:
    need(p.chunk < MAX_INDEX, "chunk index out of range")
    need(0 < p.length <= MAX_PIECE, "data length out of range")
    need(p.offset + p.length <= MAX_CHUNK_SIZE, "data beyond the largest chunk")
    return m.Data(p.share, p.chunk, p.offset, p.length)


def _reject(p: pb.Reject) -> m.Reject:
    return m.Reject(
        p.share, _indices(p.chunks), _reason(p.reason), _indices(p.suggest, MAX_SUGGEST)
    )


def _peers(p: pb.Peers) -> m.Peers:
    need(len(p.peers) <= MAX_PEERS, "too many peers in one message")
    return m.Peers(p.share, tuple(_peer(peer) for peer in p.peers))


def _peer(p: pb.PeerAddress) -> m.PeerAddress:
    return m.PeerAddress(
        _ip(p.ip, optional=False),
        _port(p.port, optional=False),
        p.node_id and _node_id(p.node_id),
    )


def _rendezvous(p: pb.Rendezvous) -> m.Rendezvous:
    need(len(p.tags) <= MAX_TAGS, "too many tags in one message")
    return m.Rendezvous(tuple(_sized(tag, ID_SIZE, "tag") for tag in p.tags))


def _introduction(p: pb.Introduction) -> m.Introduction:
    return m.Introduction(
        _sized(p.tag, ID_SIZE, "tag"),
        _node_id(p.node_id),
        _instance(p.instance),
        _ip(p.ip, optional=False),
        _port(p.port, optional=False),
    )


def _summons(p: pb.Summons) -> m.Summons:
    need(bool(p.ip) == bool(p.port), "half an address")
    return m.Summons(
        _token(p.token),
        _node_id(p.node_id),
        _instance(p.instance),
        _ip(p.ip, optional=True),
        _port(p.port, optional=True),
    )


def _goodbye(p: pb.Goodbye) -> m.Goodbye:
    return m.Goodbye(_reason(p.reason), text(p.detail, MAX_TEXT))


_DECODERS: dict[str, Callable[[Any], m.Message]] = {
    "hello": _hello,
    "join": _join,
    "refuse": lambda p: m.Refuse(p.share, _reason(p.reason)),
    "leave": lambda p: m.Leave(p.share, _reason(p.reason)),
    "get_manifest": _get_manifest,
    "manifest_header": _manifest_header,
    "manifest_page": _manifest_page,
    "bitmap": _bitmap,
    "have": lambda p: m.Have(p.share, _indices(p.chunks)),
    "lost": lambda p: m.Lost(p.share, _indices(p.chunks)),
    "request": lambda p: m.Request(p.share, _indices(p.chunks)),
    "data": _data,
    "cancel": lambda p: m.Cancel(p.share, _indices(p.chunks)),
    "reject": _reject,
    "peers": _peers,
    "ping": lambda p: m.Ping(p.nonce),
    "pong": lambda p: m.Pong(p.nonce),
    "goodbye": _goodbye,
    "rendezvous": _rendezvous,
    "introduction": _introduction,
    "reach": lambda p: m.Reach(_node_id(p.node_id), _instance(p.instance)),
    "summons": _summons,
    "answer": lambda p: m.Answer(_token(p.token)),
    "spliced": lambda p: m.Spliced(),
    **sync_codec.DECODERS,
}


def _encode_peers(value: m.Peers) -> bytes:
    peers = [pb.PeerAddress(ip=p.ip, port=p.port, node_id=p.node_id) for p in value.peers]
    return pb.Frame(peers=pb.Peers(share=value.share, peers=peers)).SerializeToString()


_ENCODERS: dict[type, Callable[[Any], bytes]] = {
    m.Hello: encoder("hello", pb.Hello),
    m.Join: encoder("join", pb.Join),
    m.Refuse: encoder("refuse", pb.Refuse),
    m.Leave: encoder("leave", pb.Leave),
    m.GetManifest: encoder("get_manifest", pb.GetManifest),
    m.ManifestHeader: encoder("manifest_header", pb.ManifestHeader, name=MAX_TEXT),
    m.ManifestPage: encoder("manifest_page", pb.ManifestPage),
    m.Bitmap: encoder("bitmap", pb.Bitmap),
    m.Have: encoder("have", pb.Have),
    m.Lost: encoder("lost", pb.Lost),
    m.Request: encoder("request", pb.Request),
    m.Data: encoder("data", pb.Data),
    m.Cancel: encoder("cancel", pb.Cancel),
    m.Reject: encoder("reject", pb.Reject),
    m.Peers: _encode_peers,
    m.Ping: encoder("ping", pb.Ping),
    m.Pong: encoder("pong", pb.Pong),
    m.Goodbye: encoder("goodbye", pb.Goodbye, detail=MAX_DETAIL),
    m.Rendezvous: encoder("rendezvous", pb.Rendezvous),
    m.Introduction: encoder("introduction", pb.Introduction),
    m.Reach: encoder("reach", pb.Reach),
    m.Summons: encoder("summons", pb.Summons),
    m.Answer: encoder("answer", pb.Answer),
    m.Spliced: encoder("spliced", pb.Spliced),
    **sync_codec.ENCODERS,
}
