"""The handshake against the published vectors, and against whoever alters it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from furymesh.core.errors import HandshakeError, IllegalStateError
from furymesh.wire.noise import MAX_MESSAGE, Handshake
from furymesh.wire.records import HEADER_SIZE, Opening, Sealing

VECTORS: list[dict[str, Any]] = json.loads(
    (Path(__file__).parents[2] / "vectors" / "noise.json").read_text()
)["vectors"]
PSK = bytes(range(32))
PAYLOADS = (b"", b"responder's identity", b"initiator's identity")

# The encodings of X25519 points whose agreement is always zero: small orders
# 1, 2, 4 and 8, and their forms that are not reduced modulo the prime.
LOW_ORDER = [
    bytes(32),
    (1).to_bytes(32, "little"),
    bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
    bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
    (2**255 - 20).to_bytes(32, "little"),
    (2**255 - 19).to_bytes(32, "little"),
    (2**255 - 18).to_bytes(32, "little"),
]


def key(number: int) -> X25519PrivateKey:
    return X25519PrivateKey.from_private_bytes(bytes([number]) * 32)


def make(initiator: bool, psk: bytes | None = None, **changes: Any) -> Handshake:
    number = 1 if initiator else 2
    arguments: dict[str, Any] = {
        "static": key(number),
        "ephemeral": key(number + 10),
        "prologue": b"test",
        "psk": psk,
    }
    return Handshake(initiator=initiator, **(arguments | changes))


def run(
    first: Handshake,
    second: Handshake,
    alter: Callable[[int, bytes], bytes] = lambda _step, raw: raw,
) -> list[bytes]:
    """Carry the three messages across, each through `alter`; returns the payloads read."""
    read = []
    for step, payload in enumerate(PAYLOADS):
        writer, reader = (first, second) if step % 2 == 0 else (second, first)
        read.append(reader.read_message(alter(step, writer.write_message(payload))))
    return read


def genuine(psk: bytes | None) -> list[bytes]:
    """The three messages of an undisturbed handshake."""
    messages: list[bytes] = []

    def keep(_step: int, raw: bytes) -> bytes:
        messages.append(raw)
        return raw

    run(make(True, psk), make(False, psk), keep)
    return messages


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_published_vectors(vector: dict[str, Any]) -> None:
    def side(initiator: bool) -> Handshake:
        role = "init" if initiator else "resp"
        return Handshake(
            initiator=initiator,
            static=X25519PrivateKey.from_private_bytes(bytes.fromhex(vector[f"{role}_static"])),
            ephemeral=X25519PrivateKey.from_private_bytes(
                bytes.fromhex(vector[f"{role}_ephemeral"])
            ),
            prologue=bytes.fromhex(vector["prologue"]),
            psk=bytes.fromhex(vector["psk"]) if vector["psk"] else None,
        )

    sides = (side(True), side(False))
    messages = [(bytes.fromhex(m["payload"]), m["ciphertext"]) for m in vector["messages"]]
    for step, (payload, expected) in enumerate(messages[:3]):
        raw = sides[step % 2].write_message(payload)
        assert raw.hex() == expected
        assert sides[(step + 1) % 2].read_message(raw) == payload

    # The messages after the handshake go on alternating; the record layer
    # carries the very same ciphertexts behind its length.
    keys = [side.split() for side in sides]
    sealings = [Sealing(sending) for sending, _ in keys]
    openings = [Opening(receiving) for _, receiving in keys]
    for step, (payload, expected) in enumerate(messages[3:], start=3):
        out = memoryview(bytearray(200))
        size = sealings[step % 2].seal_into(payload, out, 0)
        assert bytes(out[HEADER_SIZE:size]).hex() == expected
        assert openings[(step + 1) % 2].open(out[HEADER_SIZE:size]) == payload


@pytest.mark.parametrize("psk", [None, PSK], ids=["XX", "XXpsk3"])
def test_both_sides_agree(psk: bytes | None) -> None:
    first, second = make(True, psk), make(False, psk)
    assert run(first, second) == list(PAYLOADS)
    assert first.complete
    assert second.complete
    assert first.handshake_hash == second.handshake_hash
    assert first.remote_static == key(2).public_key().public_bytes_raw()
    assert second.remote_static == key(1).public_key().public_bytes_raw()
    sending, receiving = first.split()
    assert second.split() == (receiving, sending)
    assert sending != receiving


def test_another_ephemeral_makes_another_link() -> None:
    hashes: set[bytes] = set()
    keys: set[bytes] = set()
    for number in (20, 21):
        first, second = make(True, ephemeral=key(number)), make(False)
        run(first, second)
        hashes.add(first.handshake_hash)
        keys.update(first.split())
    assert len(hashes) == 2
    assert len(keys) == 4


@pytest.mark.parametrize("psk", [None, PSK], ids=["XX", "XXpsk3"])
@pytest.mark.parametrize("step", [0, 1, 2])
def test_every_altered_byte_is_noticed(psk: bytes | None, step: int) -> None:
    size = len(genuine(psk)[step])
    for position in range(size):

        def alter(now: int, raw: bytes, position: int = position) -> bytes:
            if now != step:
                return raw
            return raw[:position] + bytes([raw[position] ^ 0x80]) + raw[position + 1 :]

        first, second = make(True, psk), make(False, psk)
        with pytest.raises(HandshakeError):
            run(first, second, alter)
        assert not (first.complete and second.complete)


@pytest.mark.parametrize("psk", [None, PSK], ids=["XX", "XXpsk3"])
@pytest.mark.parametrize("step", [0, 1, 2])
def test_every_truncation_and_extension_is_noticed(psk: bytes | None, step: int) -> None:
    size = len(genuine(psk)[step])
    for keep in (*range(size), size + 1):

        def alter(now: int, raw: bytes, keep: int = keep) -> bytes:
            return (raw + b"x")[:keep] if now == step else raw

        with pytest.raises(HandshakeError):
            run(make(True, psk), make(False, psk), alter)


@pytest.mark.parametrize("psk", [None, PSK], ids=["XX", "XXpsk3"])
@pytest.mark.parametrize("step", [1, 2])
def test_a_message_of_another_handshake_is_refused(psk: bytes | None, step: int) -> None:
    recorded = genuine(psk)
    # The same two nodes; only the side that has to notice uses a fresh key.
    fresh = {"ephemeral": key(99)}
    first = make(True, psk, **(fresh if step == 1 else {}))
    second = make(False, psk, **(fresh if step == 2 else {}))
    with pytest.raises(HandshakeError):
        run(first, second, lambda now, raw: recorded[step] if now == step else raw)


def test_a_first_message_replayed_gets_no_further() -> None:
    recorded = genuine(None)
    second = make(False, ephemeral=key(99))
    second.read_message(recorded[0])
    second.write_message(b"")
    with pytest.raises(HandshakeError):
        second.read_message(recorded[2])


def test_a_message_reflected_at_its_sender_is_refused() -> None:
    first = make(True)
    raw = first.write_message(b"")
    with pytest.raises(HandshakeError):
        first.read_message(raw)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [(PSK, bytes(32)), (PSK, None), (None, PSK)],
    ids=["another", "only the dialler", "only the listener"],
)
def test_another_pre_shared_key_is_refused(ours: bytes | None, theirs: bytes | None) -> None:
    with pytest.raises(HandshakeError, match="pre-shared key"):
        run(make(True, ours), make(False, theirs))


def test_the_pre_shared_key_is_proven_even_where_all_else_is_known() -> None:
    # Only the last message depends on the key itself; the responder reads it.
    first, second = make(True, PSK), make(False, bytes(32))
    second.read_message(first.write_message(b""))
    first.read_message(second.write_message(b""))
    with pytest.raises(HandshakeError):
        second.read_message(first.write_message(b""))


def test_another_prologue_is_refused() -> None:
    with pytest.raises(HandshakeError):
        run(make(True), make(False, prologue=b"another version"))


@pytest.mark.parametrize("point", LOW_ORDER, ids=lambda point: point.hex()[:8])
def test_low_order_ephemeral_keys_are_refused(point: bytes) -> None:
    second = make(False)
    second.read_message(point)
    with pytest.raises(HandshakeError, match="agrees on nothing"):
        second.write_message(b"")

    first = make(True)
    first.write_message(b"")
    with pytest.raises(HandshakeError, match="agrees on nothing"):
        first.read_message(point + bytes(64))


def test_low_order_static_keys_are_refused() -> None:
    class Hostile(X25519PrivateKey):
        """A static key whose public half is all zeros, as a hostile peer may send."""

        def public_key(self) -> Any:
            return self

        def public_bytes_raw(self) -> bytes:
            return bytes(32)

        def exchange(self, _peer: Any) -> bytes:
            return bytes(32)

        public_bytes: Any = None
        private_bytes: Any = None
        private_bytes_raw: Any = None
        __copy__: Any = None
        __deepcopy__: Any = None

    first, second = make(True), make(False, static=Hostile())
    second.read_message(first.write_message(b""))
    with pytest.raises(HandshakeError, match="agrees on nothing"):
        first.read_message(second.write_message(b""))

    first, second = make(True, static=Hostile()), make(False)
    second.read_message(first.write_message(b""))
    first.read_message(second.write_message(b""))
    with pytest.raises(HandshakeError, match="agrees on nothing"):
        second.read_message(first.write_message(b""))


def test_calls_out_of_turn_are_our_own_bug() -> None:
    first, second = make(True), make(False)
    assert first.my_turn
    assert not second.my_turn
    with pytest.raises(IllegalStateError, match="turn"):
        first.read_message(b"")
    with pytest.raises(IllegalStateError, match="turn"):
        second.write_message(b"")
    with pytest.raises(IllegalStateError):
        first.split()
    with pytest.raises(IllegalStateError):
        _ = first.handshake_hash
    with pytest.raises(IllegalStateError):
        _ = first.remote_static
    # None of that has done harm.
    run(first, second)
    with pytest.raises(IllegalStateError, match="complete"):
        first.write_message(b"")
    with pytest.raises(IllegalStateError, match="complete"):
        second.read_message(b"")


def test_the_keys_are_given_out_once() -> None:
    first, second = make(True), make(False)
    run(first, second)
    first.split()
    with pytest.raises(IllegalStateError):
        first.split()


def test_a_failed_handshake_stays_failed() -> None:
    first, second = make(True), make(False)
    good = first.write_message(b"")
    with pytest.raises(HandshakeError):
        second.read_message(good[:-1])
    with pytest.raises(IllegalStateError, match="failed"):
        second.read_message(good)
    with pytest.raises(IllegalStateError, match="failed"):
        second.write_message(b"")
    assert not second.complete


def test_a_static_key_that_was_not_proven_is_not_shown() -> None:
    first, second = make(True), make(False)
    second.read_message(first.write_message(b""))
    with pytest.raises(HandshakeError):
        first.read_message(second.write_message(b"")[:-1])
    with pytest.raises(IllegalStateError):
        _ = first.remote_static


def test_messages_have_a_limit() -> None:
    with pytest.raises(HandshakeError, match=str(MAX_MESSAGE)):
        make(False).read_message(bytes(MAX_MESSAGE + 1))
    with pytest.raises(IllegalStateError, match=str(MAX_MESSAGE)):
        make(True).write_message(bytes(MAX_MESSAGE - 31))
    longest = make(True).write_message(bytes(MAX_MESSAGE - 32))
    assert len(longest) == MAX_MESSAGE
    assert make(False).read_message(longest) == bytes(MAX_MESSAGE - 32)


def test_a_pre_shared_key_has_32_bytes() -> None:
    with pytest.raises(IllegalStateError):
        make(True, b"short")


def test_nothing_secret_is_shown() -> None:
    shown = repr(make(True, PSK))
    assert PSK.hex() not in shown
    assert "psk" not in shown
