"""Targets of a link that is made: records, messages, the session, the reader."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import trio

from furymesh.core.errors import LinkClosedError, PeerError, ProtocolError
from furymesh.core.ids import FileId, access_proof, discovery_tag
from furymesh.net.addresses import may_mean, unpacked_ip
from furymesh.net.handler import Traffic
from furymesh.net.reading import LinkReader
from furymesh.wire import codec, records
from furymesh.wire import messages as m
from furymesh.wire.records import HEADER_SIZE, MAX_CIPHERTEXT, Opening, Sealing
from furymesh.wire.session import Session
from tests.fuzz.engine import Target

HASH = b"h" * 32
KEY = b"k" * 32
FILES = (FileId(b"a" * 32), FileId(b"b" * 32))


def record_stream(data: bytes) -> None:
    """Records end to end, as they come off the wire."""
    opening = Opening(KEY)
    at = 0
    while len(data) - at >= HEADER_SIZE:
        size = records.ciphertext_size(data, at)
        assert size <= MAX_CIPHERTEXT
        at += HEADER_SIZE
        if len(data) - at < size:
            return
        assert opening.open(data[at : at + size])
        at += size


def sealed_records(*plains: bytes) -> bytes:
    sealing = Sealing(KEY)
    out = bytearray()
    for plain in plains:
        buffer = bytearray(len(plain) + records.OVERHEAD)
        sealing.seal_into(plain, memoryview(buffer), 0)
        out += buffer
    return bytes(out)


def message(data: bytes) -> None:
    """What is understood can be said again."""
    read = codec.decode(data)
    if not isinstance(read, m.Unknown):
        assert codec.decode(codec.encode(read)) == read or isinstance(read, m.Goodbye)


def parts_of(data: bytes) -> Iterator[bytes]:
    """The input cut into parts, each after its length in two bytes."""
    at = 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 2], "big")
        yield data[at + 2 : at + 2 + size]
        at += 2 + size


def joined(*parts: bytes) -> bytes:
    return b"".join(len(part).to_bytes(2, "big") + part for part in parts)


class Answering:
    """A link and its handler at once: takes part in one share, as a swarm would."""

    owes_answers = False  # what it says is taken at once

    def __init__(self) -> None:
        self.session = Session(initiator=False, handshake_hash=HASH)
        self.remote = ("192.0.2.1", 7)
        self.farewell: m.Reason | None = None
        self._memory = memoryview(bytearray(codec.MAX_PIECE))

    def message(self, link: object, message: m.Message) -> None:
        session = self.session
        match message:
            case m.Join():
                if session.proves(message, FILES[0]):
                    session.accept(message, FILES[0])
                    if not session.joined(FILES[0]):
                        session.join(FILES[0])
            case m.Refuse():
                session.refused(message)
            case m.Leave():
                file_id = session.left(message)
                if session.joined(file_id):
                    session.leave(file_id, m.Reason.DONE)
            case m.Peers():
                for peer in message.peers:
                    may_mean(unpacked_ip(peer.ip), self.remote[0])
            case m.Introduction() | m.Summons():
                if message.port:
                    may_mean(unpacked_ip(message.ip), self.remote[0])
            case m.Hello() | m.Ping() | m.Pong() | m.Goodbye() | m.Unknown():
                pass
            case m.Rendezvous() | m.Reach() | m.Answer() | m.Spliced():
                pass
            case _:
                assert isinstance(message, m.ShareMessage)
                assert session.share_of(message) == FILES[0]

    def sink(self, link: object, data: m.Data) -> memoryview | None:
        assert self.session.share_of(data) == FILES[0]
        return self._memory[: data.length]

    async def room(self, link: object, data: m.Data) -> None:
        raise AssertionError("there is always room")

    def filled(self, link: object, data: m.Data) -> None:
        assert not self.session.payload_left


def session(data: bytes) -> None:
    """Control messages one after the other, from a peer with good keys."""
    end = Answering()
    for part in parts_of(data):
        if end.session.payload_left:
            end.session.payload_received(len(part))
            continue
        read = end.session.received(part)
        if not isinstance(read, m.Data):
            end.message(None, read)


class EndOfInput(LinkClosedError):
    """The peer said nothing more."""


class Bytes:
    """A stream that has come already, to be received in parts."""

    def __init__(self, data: bytes, step: int) -> None:
        self._left = data
        self._step = step

    async def wait_readable(self, at_least: int = 1) -> None:
        if not self._left:
            raise EndOfInput("the end")
        await trio.lowlevel.checkpoint()

    def receive_nowait(self, view: memoryview) -> int | None:
        part = self._left[: min(self._step, len(view))]
        view[: len(part)] = part
        self._left = self._left[len(part) :]
        return len(part) or None

    def waiting(self) -> int:
        return len(self._left)


class SmallBuffers:
    """Stands in for a node's buffers of megabytes."""

    def __init__(self) -> None:
        self.receive = memoryview(bytearray(2 * records.MAX_RECORD))
        self.discard = memoryview(bytearray(codec.MAX_PIECE))


def link_reader(data: bytes) -> None:
    """What a peer with good keys seals into records, read by a link in parts.

    The first byte says how large the parts are; if it is odd, the records are
    taken as they are rather than sealed first.
    """
    first = data[:1].rjust(1, b"\0")[0]
    parts = (part[: records.MAX_PLAINTEXT] for part in parts_of(data[1:]))
    raw = data[1:] if first & 1 else sealed_records(*filter(None, parts))
    # Whoever reads a byte at a time would only take longer.
    step = (7, 61, 1_000, 200_000)[(first >> 1) % 4] + len(raw) // 200

    async def read() -> None:
        end = Answering()
        reader = LinkReader(
            Bytes(raw, step),  # type: ignore[arg-type]
            end.session,
            Opening(KEY),
            SmallBuffers(),  # type: ignore[arg-type]
            Traffic(),
        )
        with contextlib.suppress(EndOfInput):
            await reader.run(end, end)  # type: ignore[arg-type]

    trio.run(read)


def _join(number: int, file_id: FileId = FILES[0]) -> m.Join:
    return m.Join(number, discovery_tag(file_id), access_proof(file_id, HASH, initiator=True))


EVERY_MESSAGE: tuple[m.Message, ...] = (
    m.Hello(1, 1, b"instance", 7654, "furymesh 0", ("x",), b"\x7f\0\0\1", 7654),
    _join(1),
    m.Refuse(1, m.Reason.NOT_FOUND),
    m.Leave(1, m.Reason.DONE),
    m.GetManifest(1, True, (0, 1, 31)),
    m.ManifestHeader(1, b"FMH1" + bytes(41), "film.mkv", True),
    m.ManifestPage(1, 3, bytes(64)),
    m.Bitmap(1, 8, b"\xff\x01", False),
    m.Bitmap(1, 0, b"", True),
    m.Have(1, (0, 5, 2**31 - 1)),
    m.Lost(1, (7,)),
    m.Request(1, (1, 2, 3)),
    m.Data(1, 4, 65_536, 700),
    m.Cancel(1, (1,)),
    m.Reject(1, (1, 2), m.Reason.BUSY, (3,)),
    m.Peers(1, (m.PeerAddress(b"\xc0\0\2\1", 7654, b"n" * 32), m.PeerAddress(bytes(16), 1))),
    m.Ping(1),
    m.Pong(2**64 - 1),
    m.Rendezvous((b"t" * 32, b"u" * 32)),
    m.Introduction(b"t" * 32, b"n" * 32, b"instance", b"\xc0\0\2\1", 7654),
    m.Reach(b"n" * 32, b"instance"),
    m.Summons(b"t" * 16, b"n" * 32, b"instance", b"\xc0\0\2\1", 7654),
    m.Answer(b"t" * 16),
    m.Spliced(),
    m.Goodbye(m.Reason.IDLE, "too quiet"),
)
_SPOKEN = tuple(map(codec.encode, EVERY_MESSAGE))
_TALK = (*_SPOKEN[:2], *(codec.encode(m.Have(1, (n,))) for n in (1, 300)))
_DATA = (codec.encode(m.Data(1, 4, 0, 700)), bytes(300), bytes(400), codec.encode(m.Ping(1)))
_LEAVING = (_SPOKEN[3], codec.encode(_join(2)), codec.encode(_join(3, FILES[1])))
_FRAMES = tuple(len(part).to_bytes(2, "big") + part for part in (*_SPOKEN, *_LEAVING))
# Varints at their borders and beyond, and protobuf's groups, which nobody uses.
_VARINTS = (b"\xff" * 4 + b"\x0f", b"\xff" * 9 + b"\x01", b"\x80" * 10, b"\x0b" * 150, b"\x0c")

TARGETS = (
    Target(
        "records",
        record_stream,
        lambda: {"two": sealed_records(b"one", b"t" * 300), "one": sealed_records(bytes(1_000))},
        (ProtocolError,),
        (b"\0\0\0\x11", b"\0\2\0\x10", b"\0\2\0\x11", b"\xff\xff\xff\xff"),
    ),
    Target(
        "message",
        message,
        lambda: {
            f"{number:02}-{type(each).__name__}": codec.encode(each)
            for number, each in enumerate(EVERY_MESSAGE)
        },
        (ProtocolError,),
        (*_SPOKEN, *_VARINTS),
    ),
    Target(
        "session",
        session,
        lambda: {
            "all": joined(*_TALK, *_SPOKEN[4:12], *_SPOKEN[13:]),
            "data": joined(*_TALK, *_DATA),
            "leaving": joined(*_TALK, *_LEAVING),
        },
        (ProtocolError,),
        (*_FRAMES, *_VARINTS),
    ),
    Target(
        "link_reader",
        link_reader,
        lambda: {
            "sealed": b"\0" + joined(*_TALK, *_SPOKEN[4:12], *_DATA, *_SPOKEN[13:]),
            "data": b"\2" + joined(*_TALK, *_DATA * 3),
            "raw": b"\5" + sealed_records(*_TALK, *_DATA),
        },
        (PeerError, LinkClosedError),
        (*_FRAMES, *_VARINTS),
    ),
)
