"""Who may not have a link gets none, and not one application byte of theirs is read."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from random import Random

import pytest
import trio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from furymesh.core.errors import FuryMeshError, HandshakeError, LinkClosedError
from furymesh.core.ids import FileId, node_id_text
from furymesh.core.link import Address
from furymesh.net.connect import Endpoint, _exactly, listen
from furymesh.net.identity import Identity
from furymesh.net.secure_link import SecureLink
from furymesh.net.stream import TcpStream
from furymesh.wire import codec
from furymesh.wire import messages as m
from furymesh.wire.authentication import (
    LENGTH_SIZE,
    PROLOGUE,
    IdentityPayload,
    check_payload,
    frame_message,
    make_payload,
)
from furymesh.wire.noise import Handshake
from furymesh.wire.records import OVERHEAD, Sealing
from furymesh.wire.session import Session
from tests.e2e.mesh import Mesh
from tests.hostile.attacker import ANSWER_SECONDS, connect, new_endpoint

SEED = 20
END_SECONDS = 5.0  # half of what a handshake may take: a deadline is no refusal
SHORT_BENDS = 12  # bytes of each handshake message that are changed, one at a time
MESSAGES = ("first", "third")  # of the handshake, those that the dialler sends
Record = Callable[[str, object], None]


def new_identity() -> Identity:
    return Identity(Ed25519PrivateKey.generate())


@dataclass(frozen=True, slots=True)
class Place:
    """A private node: one listed identity, one pre-shared key."""

    address: Address
    listed: Identity
    psk: bytes


@dataclass(slots=True)
class Taped:
    """What one end sent and heard during a dial."""

    sent: list[bytes] = field(default_factory=list)
    second: bytes = b""  # the node's handshake message
    rest: bytes = b""  # whatever the node sent after it


@dataclass(frozen=True, slots=True)
class Dial:
    """How to shake hands; the defaults are those of an honest, listed peer."""

    identity: Identity | None = None
    psk: bytes | None = b""  # empty: the right one
    payload: Callable[[Place, X25519PrivateKey], bytes] | None = None
    bend: Callable[[str, bytes], bytes] = lambda name, raw: raw
    records: Callable[[list[bytes]], list[bytes]] = lambda records: records


async def shake(place: Place, how: Dial) -> Taped:
    """Shake hands, then say Hello, join and ask for a manifest, whatever the node answers."""
    taped = Taped()
    tcp = TcpStream(await connect(place.address))

    async def send(raw: bytes) -> None:
        taped.sent.append(raw)
        await tcp.send_all(memoryview(raw))

    static = X25519PrivateKey.generate()
    noise = Handshake(
        initiator=True,
        static=static,
        prologue=PROLOGUE,
        psk=place.psk if how.psk == b"" else how.psk,
        ephemeral=X25519PrivateKey.generate(),
    )
    identity = how.identity or place.listed
    public = static.public_key().public_bytes_raw()
    payload = make_payload(identity.private, public)
    if how.payload is not None:
        payload = how.payload(place, static)
    try:
        with suppress(LinkClosedError):
            first = frame_message(noise.write_message(b""))
            await send(how.bend("first", first))
            if (
                len(taped.sent[0]) < len(first)
                or taped.sent[0][:LENGTH_SIZE] != first[:LENGTH_SIZE]
            ):
                tcp._socket.shutdown(socket.SHUT_WR)  # it would wait for the rest
            header = await _exactly(tcp, LENGTH_SIZE)
            taped.second = await _exactly(tcp, int.from_bytes(header, "big"))
            with suppress(HandshakeError):
                check_payload(noise.read_message(taped.second), noise.remote_static)
                third = frame_message(noise.write_message(payload))
                await send(how.bend("third", third))
                if len(taped.sent[1]) < len(third):
                    tcp._socket.shutdown(socket.SHUT_WR)
                send_key, _ = noise.split()
                for record in how.records(_application(Sealing(send_key), noise)):
                    await send(record)
        taped.rest = await _until_the_end(tcp)
    finally:
        tcp.close()
    return taped


def _application(sealing: Sealing, noise: Handshake) -> list[bytes]:
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


async def _until_the_end(tcp: TcpStream) -> bytes:
    """Everything that still comes; the node has to end it, within a moment."""
    out, buffer = bytearray(), memoryview(bytearray(65536))
    with suppress(LinkClosedError), trio.move_on_after(END_SECONDS) as patience:
        with suppress(OSError):  # the other end may be quicker
            tcp._socket.shutdown(socket.SHUT_WR)
        while True:
            await tcp.wait_readable()
            size = tcp.receive_nowait(buffer)
            out += buffer[: size or 0]
    assert not patience.cancelled_caught, "the node keeps the connection open"
    return bytes(out)


def count_records(raw: bytes) -> int:
    """How many records these bytes are."""
    count = at = 0
    while at < len(raw):
        at += 4 + int.from_bytes(raw[at : at + 4], "big")
        count += 1
    return count


# --- what goes wrong in each case -----------------------------------------------------


def _claims_the_listed_node(place: Place, static: X25519PrivateKey) -> bytes:
    mine = make_payload(new_identity().private, static.public_key().public_bytes_raw())
    return IdentityPayload(place.listed.node_id, mine[32:]).encode()


def _borrows_a_signature(place: Place, static: X25519PrivateKey) -> bytes:
    """What the listed node sent in a handshake of its own."""
    other = X25519PrivateKey.generate().public_key().public_bytes_raw()
    return make_payload(place.listed.private, other)


def _bent_at(name: str, position: int) -> Callable[[str, bytes], bytes]:
    def bend(message: str, raw: bytes) -> bytes:
        if message != name:
            return raw
        bent = bytearray(raw)
        bent[position % len(raw)] ^= 1
        return bytes(bent)

    return bend


def _cut_at(name: str, size: int) -> Callable[[str, bytes], bytes]:
    return lambda message, raw: raw[: size % len(raw)] if message == name else raw


WRONG: dict[str, Dial] = {
    "unlisted node": Dial(identity=new_identity()),
    "no pre-shared key": Dial(psk=None),
    "wrong pre-shared key": Dial(psk=b"w" * 32),
    "claims the listed node": Dial(payload=_claims_the_listed_node),
    "borrowed signature": Dial(payload=_borrows_a_signature),
    "no identity": Dial(payload=lambda place, static: b""),
    "identity too long": Dial(payload=lambda place, static: b"x" * 97),
}
BAD_RECORDS: dict[str, Callable[[list[bytes]], list[bytes]]] = {
    "tampered": lambda records: [records[0][:-1] + bytes([records[0][-1] ^ 1])],
    "tampered length": lambda records: [bytes([records[0][0] ^ 1]) + records[0][1:]],
    "truncated": lambda records: [records[0][:-1]],
    "out of order": lambda records: [records[1], records[0]],
    "first missing": lambda records: records[1:],
}


async def replayed(place: Place) -> Taped:
    """All that an honest peer sent, once more, byte for byte."""
    honest = await shake(place, Dial())
    assert honest.rest, "the honest peer was not let in"
    taped = Taped()
    tcp = TcpStream(await connect(place.address))
    try:
        with suppress(LinkClosedError):
            for raw in honest.sent:
                await tcp.send_all(memoryview(raw))
            header = await _exactly(tcp, LENGTH_SIZE)
            taped.second = await _exactly(tcp, int.from_bytes(header, "big"))
        taped.rest = await _until_the_end(tcp)
    finally:
        tcp.close()
    return taped


async def reflected(place: Place) -> Taped:
    """The node's own message, sent back to it."""
    node = await shake(place, Dial(bend=lambda name, raw: raw if name == "first" else b""))
    echo = frame_message(node.second)
    return await shake(place, Dial(bend=lambda name, raw: echo if name == "third" else raw))


# --- against a node in this process, where it is seen what is parsed ------------------


@dataclass(slots=True)
class Seen:
    """What a node took in."""

    parsed: list[bytes] = field(default_factory=list)
    links: list[SecureLink] = field(default_factory=list)


@asynccontextmanager
async def private_node(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Place, Seen]]:
    listed, psk, seen = new_identity(), b"k" * 32, Seen()
    allowed = frozenset({listed.node_id})
    endpoint = Endpoint(new_identity(), allow=allowed, psk=psk)
    received = Session.received

    def spying(session: Session, raw: bytes) -> m.Message:
        seen.parsed.append(raw)
        return received(session, raw)

    monkeypatch.setattr(Session, "received", spying)

    async def keep(link: SecureLink) -> None:
        seen.links.append(link)
        link.close()

    listeners = listen(Address("127.0.0.1", 0))
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(endpoint.serve, listeners, keep)
            yield Place(Address("127.0.0.1", listeners[0].getsockname()[1]), listed, psk), seen
            nursery.cancel_scope.cancel()
    finally:
        for sock in listeners:
            sock.close()


async def test_listed_peer_with_the_key_is_let_in(monkeypatch: pytest.MonkeyPatch) -> None:
    async with private_node(monkeypatch) as (place, seen):
        taped = await shake(place, Dial())
        assert count_records(taped.rest) == 1
        assert len(seen.links) == len(seen.parsed) == 1


@pytest.mark.parametrize("case", [*WRONG, "replayed", "reflected"])
async def test_wrong_handshake_is_refused_before_anything_is_parsed(
    case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with private_node(monkeypatch) as (place, seen):
        if case in WRONG:
            taped = await shake(place, WRONG[case])
        else:
            taped = await (replayed if case == "replayed" else reflected)(place)
            del (
                seen.links[: case == "replayed"],
                seen.parsed[: case == "replayed"],
            )  # the honest one
        assert taped.rest == b""
        assert seen == Seen()


@pytest.mark.parametrize("case", BAD_RECORDS)
async def test_bad_first_record_is_refused_before_anything_is_parsed(
    case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with private_node(monkeypatch) as (place, seen):
        taped = await shake(place, Dial(records=BAD_RECORDS[case]))
        assert count_records(taped.rest) <= 1, "more than its Hello"
        assert seen == Seen()


async def bend_and_cut(place: Place, positions: Callable[[int], list[int]]) -> int:
    """Change one bit of handshake messages, and cut them; the number of cases."""
    honest = await shake(place, Dial())
    count = 0
    for name, raw in zip(MESSAGES, honest.sent, strict=False):
        for position in positions(len(raw)):
            for bend in (_bent_at(name, position), _cut_at(name, position)):
                taped = await shake(place, Dial(bend=bend))
                assert taped.rest == b"", f"{name} message, byte {position}"
                count += 1
    return count


async def test_bent_or_cut_handshake_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = Random(SEED)
    async with private_node(monkeypatch) as (place, seen):
        await bend_and_cut(place, lambda size: sorted(rng.sample(range(size), SHORT_BENDS)))
        assert len(seen.links) == len(seen.parsed) == 1, "only the honest one"


@pytest.mark.slow
async def test_handshake_bent_or_cut_anywhere_is_refused(
    monkeypatch: pytest.MonkeyPatch, record_property: Record
) -> None:
    async with private_node(monkeypatch) as (place, seen):
        count = await bend_and_cut(place, lambda size: list(range(size)))
        assert len(seen.links) == len(seen.parsed) == 1, "only the honest one"
    record_property("row", 20)
    record_property("cases", count + len(WRONG) + len(BAD_RECORDS) + 2)
    record_property("result", "all refused before any application byte was parsed")


# --- against a process ----------------------------------------------------------------


def test_private_node_lets_in_the_listed_peer_alone(mesh: Mesh) -> None:
    listed = new_identity()
    psk_file = mesh.root / "psk"
    psk_file.touch(0o600)
    psk_file.write_text("ab" * 32)
    allow = f"node: {{allow: [{node_id_text(listed.node_id)}], psk_file: {psk_file}}}\n"
    node = mesh.node(mesh.home("private", allow))
    place = Place(Address.parse(node.address), listed, bytes.fromhex("ab" * 32))

    def answer(attack: Callable[[], Awaitable[Taped]]) -> bytes:
        async def run() -> bytes:
            return (await attack()).rest

        return trio.run(run)

    assert answer(lambda: shake(place, Dial())), "the listed peer was not let in"
    for case, how in WRONG.items():
        assert answer(lambda how=how: shake(place, how)) == b"", case  # type: ignore[misc]
    assert answer(lambda: replayed(place)) == b""
    assert answer(lambda: reflected(place)) == b""
    assert node.process.stop().code == 0


async def test_dialler_hangs_up_on_the_wrong_node(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pinned to a node, it says nothing to another: not even who it is."""
    heard: list[bytes] = []
    server = await trio.open_tcp_listeners(0, host="127.0.0.1")
    address = Address(*server[0].socket.getsockname())
    identity, wrong = new_identity(), replace(address, node_id=new_identity().node_id)

    async def answer(stream: trio.SocketStream) -> None:
        static = X25519PrivateKey.generate()
        noise = Handshake(
            initiator=False,
            static=static,
            prologue=PROLOGUE,
            psk=None,
            ephemeral=X25519PrivateKey.generate(),
        )
        noise.read_message((await stream.receive_some())[LENGTH_SIZE:])
        public = static.public_key().public_bytes_raw()
        await stream.send_all(
            frame_message(noise.write_message(make_payload(identity.private, public)))
        )
        heard.append(await stream.receive_some())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, answer, server)
        with pytest.raises(FuryMeshError, match="not the expected"):
            await new_endpoint().dial(wrong)
        with trio.fail_after(ANSWER_SECONDS):
            while not heard:
                await trio.sleep(0.005)
        nursery.cancel_scope.cancel()
    assert heard == [b""]
