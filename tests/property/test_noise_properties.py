"""The handshake under arbitrary keys, payloads and interference."""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from furymesh.core.errors import HandshakeError
from furymesh.wire.noise import MAX_MESSAGE, Handshake

keys = st.binary(min_size=32, max_size=32).map(X25519PrivateKey.from_private_bytes)
payloads = st.binary(max_size=300)
maybe_psk = st.none() | st.binary(min_size=32, max_size=32)


def pair(
    drawn: list[X25519PrivateKey], prologue: bytes, psk: bytes | None
) -> tuple[Handshake, Handshake]:
    first, second = (
        Handshake(
            initiator=initiator,
            static=drawn[0 if initiator else 1],
            ephemeral=drawn[2 if initiator else 3],
            prologue=prologue,
            psk=psk,
        )
        for initiator in (True, False)
    )
    return first, second


@given(
    drawn=st.lists(keys, min_size=4, max_size=4),
    prologue=st.binary(max_size=100),
    psk=maybe_psk,
    contents=st.tuples(payloads, payloads, payloads),
)
@settings(max_examples=60, deadline=None)
def test_any_two_sides_with_the_same_secrets_agree(
    drawn: list[X25519PrivateKey],
    prologue: bytes,
    psk: bytes | None,
    contents: tuple[bytes, bytes, bytes],
) -> None:
    first, second = pair(drawn, prologue, psk)
    for payload in contents:
        writer, reader = (first, second) if first.my_turn else (second, first)
        assert reader.read_message(writer.write_message(payload)) == payload
    assert first.complete
    assert second.complete
    assert first.handshake_hash == second.handshake_hash
    assert first.split() == second.split()[::-1]


@given(
    psk=maybe_psk,
    step=st.integers(0, 2),
    garbage=st.binary(max_size=MAX_MESSAGE + 10),
)
@settings(max_examples=150, deadline=None)
def test_garbage_never_completes_and_raises_only_what_it_should(
    psk: bytes | None, step: int, garbage: bytes
) -> None:
    fixed = [X25519PrivateKey.from_private_bytes(bytes([n]) * 32) for n in range(1, 5)]
    first, second = pair(fixed, b"", psk)
    try:
        for now in range(3):
            writer, reader = (first, second) if first.my_turn else (second, first)
            raw = writer.write_message(b"")
            reader.read_message(garbage if now == step else raw)
    except HandshakeError:
        return
    raise AssertionError("a handshake went through with a message replaced")
