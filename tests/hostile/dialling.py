"""Dials with something wrong: identities, keys, handshake messages and first records."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial

import trio
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from furymesh.core.errors import HandshakeError, LinkClosedError
from furymesh.core.ids import FileId
from furymesh.core.link import Address
from furymesh.net.identity import Identity
from furymesh.net.stream import TcpStream, receive_exactly
from furymesh.wire import codec
from furymesh.wire import messages as m
from furymesh.wire.authentication import (
    LENGTH_SIZE,
    IdentityPayload,
    check_payload,
    frame_message,
    make_payload,
)
from furymesh.wire.noise import Handshake
from furymesh.wire.records import HEADER_SIZE, OVERHEAD, Sealing
from furymesh.wire.session import Session
from tests.hostile.attacker import connect, new_handshake, new_identity

END_SECONDS = 5.0  # half of what a handshake may take: a deadline is no refusal
MESSAGES = ("first", "third")  # of the handshake, those that the dialler sends


@dataclass(frozen=True, slots=True)
class Place:
    """A private node: one listed identity, one pre-shared key."""

    address: Address
    listed: Identity
    psk: bytes


Bend = Callable[[str, bytes], bytes]  # what is sent for the message of this name


@dataclass(frozen=True, slots=True)
class Dial:
    """How to shake hands; the defaults are those of an honest, listed peer."""

    identity: Identity | None = None
    psk: bytes | None = b""  # empty: the right one
    payload: Callable[[Place, X25519PrivateKey], bytes] | None = None
    bend: Bend = lambda name, raw: raw
    records: Callable[[list[bytes]], list[bytes]] = lambda records: records


@dataclass(slots=True)
class Tape:
    """A connection to a node, and what was sent on it."""

    tcp: TcpStream
    sent: list[bytes] = field(default_factory=list)
    second: bytes = b""  # the node's handshake message
    rest: bytes = b""  # whatever the node sent after it

    async def send(self, raw: bytes) -> None:
        self.sent.append(raw)
        await self.tcp.send_all(memoryview(raw))

    async def hear_second(self) -> None:
        header = await receive_exactly(self.tcp, LENGTH_SIZE)
        self.second = await receive_exactly(self.tcp, int.from_bytes(header, "big"))

    def say_no_more(self) -> None:
        with suppress(OSError):  # the other end may be quicker
            self.tcp._socket.shutdown(socket.SHUT_WR)

    async def hear_the_rest(self) -> None:
        """Everything that still comes; the node has to end it, within a moment."""
        self.say_no_more()
        out, buffer = bytearray(), memoryview(bytearray(65536))
        with suppress(LinkClosedError), trio.move_on_after(END_SECONDS) as patience:
            while True:
                await self.tcp.wait_readable()
                size = self.tcp.receive_nowait(buffer)
                out += buffer[: size or 0]
        assert not patience.cancelled_caught, "the node keeps the connection open"
        self.rest = bytes(out)


@asynccontextmanager
async def taped(place: Place) -> AsyncIterator[Tape]:
    """Connect; the node may hang up at any time, and has to at the end of the block."""
    tape = Tape(TcpStream(await connect(place.address)))
    try:
        with suppress(LinkClosedError):
            yield tape
        await tape.hear_the_rest()
    finally:
        tape.tcp.close()


async def shake(place: Place, how: Dial) -> Tape:
    """Shake hands, then say Hello, join and ping, whatever the node answers."""
    static = X25519PrivateKey.generate()
    noise = new_handshake(static, psk=place.psk if how.psk == b"" else how.psk)
    if how.payload is not None:
        payload = how.payload(place, static)
    else:
        payload = _payload(how.identity or place.listed, static)
    async with taped(place) as tape:

        async def say(name: str, message: bytes) -> None:
            raw = how.bend(name, frame_message(message))
            await tape.send(raw)
            if len(raw) - LENGTH_SIZE < int.from_bytes(raw[:LENGTH_SIZE], "big"):
                tape.say_no_more()  # the node would wait for the rest

        await say("first", noise.write_message(b""))
        await tape.hear_second()
        with suppress(HandshakeError):
            check_payload(noise.read_message(tape.second), noise.remote_static)
            await say("third", noise.write_message(payload))
            for record in how.records(_application(noise)):
                await tape.send(record)
    return tape


def _payload(identity: Identity, static: X25519PrivateKey) -> bytes:
    return make_payload(identity.private, static.public_key().public_bytes_raw())


def _application(noise: Handshake) -> list[bytes]:
    """The records in which a peer says Hello, joins a share and pings."""
    send_key, _ = noise.split()
    sealing = Sealing(send_key)
    session = Session(initiator=True, handshake_hash=noise.handshake_hash)
    said: list[m.Message] = [
        m.Hello(1, 1, b"instance"),
        session.join(FileId(b"f" * 32)),
        m.Ping(1),
    ]
    records = []
    for message in said:
        raw = codec.encode(message)
        out = memoryview(bytearray(len(raw) + OVERHEAD))
        sealing.seal_into(raw, out, 0)
        records.append(bytes(out))
    return records


def count_records(raw: bytes) -> int:
    """How many records these bytes are."""
    count = at = 0
    while at < len(raw):
        at += HEADER_SIZE + int.from_bytes(raw[at : at + HEADER_SIZE], "big")
        count += 1
    return count


# --- what goes wrong in each case -----------------------------------------------------


def _claims_the_listed_node(place: Place, static: X25519PrivateKey) -> bytes:
    mine = IdentityPayload.decode(_payload(new_identity(), static))
    return IdentityPayload(place.listed.node_id, mine.signature).encode()


def _borrows_a_signature(place: Place, static: X25519PrivateKey) -> bytes:
    """What the listed node sent in a handshake of its own."""
    return _payload(place.listed, X25519PrivateKey.generate())


async def replayed(place: Place) -> Tape:
    """All that an honest peer sent, once more, byte for byte."""
    honest = await shake(place, Dial())
    assert honest.rest, "the honest peer was not let in"
    async with taped(place) as tape:
        for raw in honest.sent:
            await tape.send(raw)
        await tape.hear_second()
    return tape


async def reflected(place: Place) -> Tape:
    """The node's own message, sent back to it."""
    node = await shake(place, Dial(bend=cut_at("third", 0)))
    echo = frame_message(node.second)
    return await shake(place, Dial(bend=lambda name, raw: echo if name == "third" else raw))


def bent_at(name: str, position: int) -> Bend:
    """One bit of one byte of a message is another."""

    def bend(message: str, raw: bytes) -> bytes:
        if message != name:
            return raw
        bent = bytearray(raw)
        bent[position] ^= 1
        return bytes(bent)

    return bend


def cut_at(name: str, size: int) -> Bend:
    """A message of which only so many bytes come."""
    return lambda message, raw: raw[:size] if message == name else raw


_WRONG = {
    "unlisted node": Dial(identity=new_identity()),
    "no pre-shared key": Dial(psk=None),
    "wrong pre-shared key": Dial(psk=b"w" * 32),
    "claims the listed node": Dial(payload=_claims_the_listed_node),
    "borrowed signature": Dial(payload=_borrows_a_signature),
    "no identity": Dial(payload=lambda place, static: b""),
    "identity too long": Dial(payload=lambda place, static: b"x" * 97),
}
REFUSED: dict[str, Callable[[Place], Awaitable[Tape]]] = {
    **{case: partial(shake, how=how) for case, how in _WRONG.items()},
    "replayed": replayed,
    "reflected": reflected,
}
BAD_RECORDS: dict[str, Callable[[list[bytes]], list[bytes]]] = {
    "tampered": lambda records: [records[0][:-1] + bytes([records[0][-1] ^ 1])],
    "tampered length": lambda records: [bytes([records[0][0] ^ 1]) + records[0][1:]],
    "truncated": lambda records: [records[0][:-1]],
    "out of order": lambda records: [records[1], records[0]],
    "first missing": lambda records: records[1:],
}
