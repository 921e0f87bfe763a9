"""Who may not have a link gets none, and not one application byte of theirs is read."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from random import Random

import pytest
import trio
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from furymesh.core.errors import FuryMeshError
from furymesh.core.ids import node_id_text
from furymesh.core.link import Address
from furymesh.net.connect import Endpoint
from furymesh.net.secure_link import SecureLink
from furymesh.wire import messages as m
from furymesh.wire.authentication import LENGTH_SIZE, frame_message, make_payload
from furymesh.wire.session import Session
from tests.e2e.mesh import Mesh
from tests.hostile.attacker import listening, new_endpoint, new_handshake, new_identity
from tests.hostile.dialling import (
    BAD_RECORDS,
    MESSAGES,
    REFUSED,
    Dial,
    Place,
    bent_at,
    count_records,
    cut_at,
    shake,
)
from tests.waiting import until

SEED = 20
SHORT_BENDS = 12  # bytes of each handshake message that are changed, one at a time
Record = Callable[[str, object], None]


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

    async with listening(endpoint, keep) as address:
        yield Place(address, listed, psk), seen


async def test_listed_peer_with_the_key_is_let_in(monkeypatch: pytest.MonkeyPatch) -> None:
    async with private_node(monkeypatch) as (place, seen):
        tape = await shake(place, Dial())
        assert count_records(tape.rest) == 1
        assert len(seen.links) == len(seen.parsed) == 1


@pytest.mark.parametrize("case", REFUSED)
async def test_wrong_handshake_is_refused_before_anything_is_parsed(
    case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with private_node(monkeypatch) as (place, seen):
        tape = await REFUSED[case](place)
        honest = 1 if case == "replayed" else 0  # whoever sent first what is sent again
        assert tape.rest == b""
        assert len(seen.links) == len(seen.parsed) == honest


@pytest.mark.parametrize("case", BAD_RECORDS)
async def test_bad_first_record_is_refused_before_anything_is_parsed(
    case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with private_node(monkeypatch) as (place, seen):
        tape = await shake(place, Dial(records=BAD_RECORDS[case]))
        assert count_records(tape.rest) <= 1, "more than its Hello"
        assert seen == Seen()


async def bend_and_cut(place: Place, positions: Callable[[int], list[int]]) -> int:
    """Change one bit of handshake messages, and cut them; the number of cases."""
    honest = await shake(place, Dial())
    count = 0
    for name, raw in zip(MESSAGES, honest.sent, strict=False):
        for position in positions(len(raw)):
            for bend in (bent_at(name, position), cut_at(name, position)):
                tape = await shake(place, Dial(bend=bend))
                assert tape.rest == b"", f"{name} message, byte {position} (SEED {SEED})"
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
    record_property("cases", count + len(REFUSED) + len(BAD_RECORDS))
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
    assert trio.run(shake, place, Dial()).rest, "the listed peer was not let in"
    for case, attempt in REFUSED.items():
        assert trio.run(attempt, place).rest == b"", case
    assert node.process.stop().code == 0


# --- the other way round --------------------------------------------------------------


async def test_dialler_hangs_up_on_the_wrong_node() -> None:
    """Pinned to a node, it says nothing to another: not even who it is."""
    heard: list[bytes] = []
    server = await trio.open_tcp_listeners(0, host="127.0.0.1")
    address = Address(*server[0].socket.getsockname())
    identity, wrong = new_identity(), replace(address, node_id=new_identity().node_id)

    async def answer(stream: trio.SocketStream) -> None:
        static = X25519PrivateKey.generate()
        noise = new_handshake(static, initiator=False)
        noise.read_message((await stream.receive_some())[LENGTH_SIZE:])
        payload = make_payload(identity.private, static.public_key().public_bytes_raw())
        await stream.send_all(frame_message(noise.write_message(payload)))
        heard.append(await stream.receive_some())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, answer, server)
        with pytest.raises(FuryMeshError, match="not the expected"):
            await new_endpoint().dial(wrong)
        await until(lambda: heard)
        nursery.cancel_scope.cancel()
    assert heard == [b""]
