"""Every limit of the codec: at it a message passes, above it a peer is at fault."""

from __future__ import annotations

from typing import Any

import pytest

from furymesh.core.errors import ProtocolError
from furymesh.core.geometry import MAX_CHUNK_SIZE, PAGE_SIZE
from furymesh.wire import codec
from furymesh.wire import messages as m
from furymesh.wire.pb import furymesh_pb2 as pb
from tests.protobuf import length_delimited

HELLO = m.Hello(1, 1, b"instance")
PEER = m.PeerAddress(b"\x7f\0\0\1", 7000)
MANY = tuple(range(codec.MAX_INDICES))


def hello(**values: object) -> m.Hello:
    fields: dict[str, object] = {"version": 1, "min_version": 1, "instance": b"instance"}
    return m.Hello(**{**fields, **values})  # type: ignore[arg-type]


PASS: list[m.Message] = [
    HELLO,
    hello(version=2**32 - 1),
    hello(listen_port=65535, observed_port=65535),
    hello(observed_ip=bytes(4)),
    hello(observed_ip=bytes(16)),
    hello(agent="a" * codec.MAX_TEXT),
    hello(features=("f" * codec.MAX_TEXT,) * codec.MAX_FEATURES),
    m.Join(2**32 - 1, bytes(32), bytes(32)),
    m.GetManifest(1, True, tuple(range(codec.MAX_PAGES_ASKED))),
    m.ManifestHeader(1, bytes(codec.MAX_HEADER), "é" * (codec.MAX_TEXT // 2), True),
    m.ManifestPage(1, codec.MAX_INDEX - 1, bytes(PAGE_SIZE)),
    m.ManifestPage(1, 0, b""),
    m.Bitmap(1, codec.MAX_INDEX - 8, b"\xff" * codec.MAX_BITMAP, False),
    m.Bitmap(1, 0, b"", True),
    m.Bitmap(1, 0, b"", False),
    m.Have(1, MANY),
    m.Lost(1, tuple(codec.MAX_INDEX - 1 - index for index in MANY)),
    m.Request(1, MANY),
    m.Cancel(1, MANY),
    m.Reject(1, MANY, m.Reason.ELSEWHERE, tuple(range(codec.MAX_SUGGEST))),
    m.Data(1, codec.MAX_INDEX - 1, MAX_CHUNK_SIZE - codec.MAX_PIECE, codec.MAX_PIECE),
    m.Data(1, 0, MAX_CHUNK_SIZE - 1, 1),
    m.Peers(1, (m.PeerAddress(bytes(16), 65535, bytes(32)),) * codec.MAX_PEERS),
    m.Ping(2**64 - 1),
    m.Goodbye(m.Reason.PROTOCOL, "x" * codec.MAX_DETAIL),
    m.Rendezvous((bytes(32),) * codec.MAX_TAGS),
    m.Rendezvous(()),
    m.Introduction(bytes(32), bytes(32), bytes(8), bytes(16), 65535),
    m.Reach(bytes(32), bytes(8)),
    m.Summons(bytes(16), bytes(32), bytes(8), bytes(4), 1),
    m.Summons(bytes(16), bytes(32), bytes(8)),
    m.Answer(bytes(16)),
    m.Spliced(),
]
FAIL: list[tuple[str, m.Message]] = [
    ("instance", hello(instance=bytes(7))),
    ("instance", hello(instance=bytes(9))),
    ("version range", hello(min_version=0)),
    ("version range", hello(min_version=2)),
    ("port", hello(listen_port=65536)),
    ("port", hello(observed_port=65536)),
    ("IP address", hello(observed_ip=bytes(5))),
    ("text", hello(agent="a" * (codec.MAX_TEXT + 1))),
    ("text", hello(agent="é" * (codec.MAX_TEXT // 2 + 1))),
    ("text", hello(features=("f" * (codec.MAX_TEXT + 1),))),
    ("features", hello(features=("f",) * (codec.MAX_FEATURES + 1))),
    ("tag", m.Join(1, bytes(31), bytes(32))),
    ("proof", m.Join(1, bytes(32), bytes(33))),
    ("indices", m.GetManifest(1, False, tuple(range(codec.MAX_PAGES_ASKED + 1)))),
    ("index", m.GetManifest(1, False, (codec.MAX_INDEX,))),
    ("header", m.ManifestHeader(1, bytes(codec.MAX_HEADER + 1), "", False)),
    ("page", m.ManifestPage(1, 0, bytes(PAGE_SIZE + 1))),
    ("index", m.ManifestPage(1, codec.MAX_INDEX, b"")),
    ("bitmap", m.Bitmap(1, 0, bytes(codec.MAX_BITMAP + 1), False)),
    ("start", m.Bitmap(1, 4, b"\1", False)),
    ("start", m.Bitmap(1, codec.MAX_INDEX, b"\1", False)),
    ("all", m.Bitmap(1, 0, b"\1", True)),
    ("all", m.Bitmap(1, 8, b"", True)),
    *[
        (what, kind(1, chunks))
        for kind in (m.Have, m.Lost, m.Request, m.Cancel)
        for what, chunks in (("indices", (*MANY, 0)), ("index", (codec.MAX_INDEX,)))
    ],
    ("indices", m.Reject(1, (*MANY, 0), m.Reason.BUSY)),
    ("index", m.Reject(1, (codec.MAX_INDEX,), m.Reason.BUSY)),
    ("indices", m.Reject(1, (), m.Reason.BUSY, tuple(range(codec.MAX_SUGGEST + 1)))),
    ("index", m.Reject(1, (), m.Reason.BUSY, (codec.MAX_INDEX,))),
    ("length", m.Data(1, 0, 0, 0)),
    ("length", m.Data(1, 0, 0, codec.MAX_PIECE + 1)),
    ("beyond", m.Data(1, 0, MAX_CHUNK_SIZE, 1)),
    ("beyond", m.Data(1, 0, 2**32 - 1, 1)),
    ("index", m.Data(1, codec.MAX_INDEX, 0, 1)),
    ("peers", m.Peers(1, (PEER,) * (codec.MAX_PEERS + 1))),
    ("IP address", m.Peers(1, (m.PeerAddress(b"", 1),))),
    ("IP address", m.Peers(1, (m.PeerAddress(bytes(5), 1),))),
    ("port", m.Peers(1, (m.PeerAddress(bytes(4), 0),))),
    ("port", m.Peers(1, (m.PeerAddress(bytes(4), 65536),))),
    ("node id", m.Peers(1, (m.PeerAddress(bytes(4), 1, bytes(31)),))),
    ("tags", m.Rendezvous((bytes(32),) * (codec.MAX_TAGS + 1))),
    ("tag", m.Rendezvous((bytes(31),))),
    ("tag", m.Introduction(bytes(33), bytes(32), bytes(8), bytes(4), 1)),
    ("node id", m.Introduction(bytes(32), bytes(31), bytes(8), bytes(4), 1)),
    ("instance", m.Introduction(bytes(32), bytes(32), bytes(9), bytes(4), 1)),
    ("IP address", m.Introduction(bytes(32), bytes(32), bytes(8), b"", 1)),
    ("port", m.Introduction(bytes(32), bytes(32), bytes(8), bytes(4), 0)),
    ("node id", m.Reach(b"", bytes(8))),
    ("instance", m.Reach(bytes(32), b"")),
    ("token", m.Summons(bytes(15), bytes(32), bytes(8))),
    ("half an address", m.Summons(bytes(16), bytes(32), bytes(8), bytes(4), 0)),
    ("half an address", m.Summons(bytes(16), bytes(32), bytes(8), b"", 1)),
    ("port", m.Summons(bytes(16), bytes(32), bytes(8), bytes(4), 65536)),
    ("token", m.Answer(bytes(17))),
]


def name(value: object) -> str:
    return type(value).__name__ if not isinstance(value, str) else value


@pytest.mark.parametrize("message", PASS, ids=name)
def test_at_the_limit_a_message_passes(message: m.Message) -> None:
    raw = codec.encode(message)
    assert len(raw) <= codec.MAX_FRAME
    assert codec.decode(raw) == message


@pytest.mark.parametrize(("what", "message"), FAIL, ids=name)
def test_above_the_limit_the_peer_is_at_fault(what: str, message: m.Message) -> None:
    with pytest.raises(ProtocolError, match=what):
        codec.decode(codec.encode(message))


def test_a_frame_has_a_limit() -> None:
    # An unknown field fills the frame: whatever is inside, its size counts first.
    room = codec.MAX_FRAME - len(codec.encode(m.Ping(1)))
    filler = length_delimited(99, bytes(room - 5))
    whole = codec.encode(m.Ping(1)) + filler
    assert len(whole) == codec.MAX_FRAME
    assert codec.decode(whole) == m.Ping(1)
    with pytest.raises(ProtocolError, match="control message of"):
        codec.decode(whole + b"\0")


def test_what_is_no_protobuf_is_refused() -> None:
    for raw in (b"\xff", b"\x0a\x05", b"\x0a\xff\xff\xff\xff\x0f", b"\x0b", bytes(10)):
        with pytest.raises(ProtocolError, match="protobuf"):
            codec.decode(raw)


def test_groups_nested_without_end_are_refused() -> None:
    with pytest.raises(ProtocolError, match="protobuf"):
        codec.decode(b"\x9b\x06" * 20_000)


def test_a_frame_without_a_body_is_skipped() -> None:
    assert codec.decode(b"") == m.Unknown()
    assert codec.decode(bytes.fromhex("fa3f020801")) == m.Unknown()


@pytest.mark.parametrize("number", [13, 2**31 - 1, -1])
def test_an_unknown_reason_is_unspecified(number: int) -> None:
    for field, kind in (("leave", pb.Leave), ("refuse", pb.Refuse), ("goodbye", pb.Goodbye)):
        body: Any = kind()
        body.reason = number
        message = codec.decode(pb.Frame(**{field: body}).SerializeToString())
        assert isinstance(message, m.Leave | m.Refuse | m.Goodbye)
        assert message.reason is m.Reason.UNSPECIFIED
    reject: Any = pb.Reject(share=1, chunks=[2])
    reject.reason = number
    assert codec.decode(pb.Frame(reject=reject).SerializeToString()) == m.Reject(
        1, (2,), m.Reason.UNSPECIFIED
    )


def test_text_above_the_limit_is_refused_whoever_sends_it() -> None:
    text = "x" * (codec.MAX_TEXT + 1)
    for frame in (
        pb.Frame(goodbye=pb.Goodbye(detail=text)),
        pb.Frame(manifest_header=pb.ManifestHeader(share=1, name=text)),
    ):
        with pytest.raises(ProtocolError, match="text"):
            codec.decode(frame.SerializeToString())


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ("x" * 1000, "x" * 200),
        ("é" * 1000, "é" * 100),
        ("x" + "é" * 1000, "x" + "é" * 99),  # never half a character
        ("\udcff not UTF-8", "? not UTF-8"),
    ],
)
def test_explanations_are_cut_to_fit(given: str, sent: str) -> None:
    assert codec.decode(codec.encode(m.Goodbye(m.Reason.PROTOCOL, given))) == m.Goodbye(
        m.Reason.PROTOCOL, sent
    )


def test_name_hints_are_cut_to_fit() -> None:
    header = codec.decode(codec.encode(m.ManifestHeader(1, b"h", "a" * 300 + "\udc80", False)))
    assert header == m.ManifestHeader(1, b"h", "a" * codec.MAX_TEXT, False)
