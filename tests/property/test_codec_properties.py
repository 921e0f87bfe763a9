"""Whatever arrives, decoding ends in a valid message or in ProtocolError."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from furymesh.core.errors import ProtocolError
from furymesh.core.geometry import MAX_CHUNK_SIZE
from furymesh.wire import codec
from furymesh.wire import messages as m

u32 = st.integers(0, 2**32 - 1)
index = st.integers(0, codec.MAX_INDEX - 1)
port = st.integers(0, 65535)
indices = st.lists(index, max_size=20).map(tuple)
text = st.text(max_size=40).filter(lambda value: len(value.encode()) <= codec.MAX_DETAIL)
digest = st.binary(min_size=32, max_size=32)
instance = st.binary(min_size=8, max_size=8)
token = st.binary(min_size=16, max_size=16)
ip = st.binary(min_size=4, max_size=4) | st.binary(min_size=16, max_size=16)
reasons = st.sampled_from(m.Reason)
peers = st.builds(m.PeerAddress, ip, st.integers(1, 65535), st.just(b"") | digest)


def hellos() -> st.SearchStrategy[m.Message]:
    return st.tuples(st.integers(1, 2**32 - 1), st.integers(1, 2**32 - 1)).flatmap(
        lambda pair: st.builds(
            m.Hello,
            version=st.just(max(pair)),
            min_version=st.just(min(pair)),
            instance=st.binary(min_size=8, max_size=8),
            listen_port=port,
            agent=text,
            features=st.lists(text, max_size=4).map(tuple),
            observed_ip=st.just(b"") | ip,
            observed_port=port,
        )
    )


def pieces() -> st.SearchStrategy[m.Message]:
    return st.integers(1, codec.MAX_PIECE).flatmap(
        lambda length: st.builds(
            m.Data, u32, index, st.integers(0, MAX_CHUNK_SIZE - length), st.just(length)
        )
    )


messages: st.SearchStrategy[Any] = st.one_of(
    hellos(),
    st.builds(m.Join, u32, digest, digest, u32),
    st.builds(m.Refuse, u32, reasons),
    st.builds(m.Leave, u32, reasons),
    st.builds(m.GetManifest, u32, st.booleans(), indices),
    st.builds(m.ManifestHeader, u32, st.binary(max_size=100), text, st.booleans()),
    st.builds(m.ManifestPage, u32, index, st.binary(max_size=100)),
    st.builds(
        m.Bitmap,
        u32,
        st.integers(0, codec.MAX_INDEX // 8 - 1).map(lambda byte: byte * 8),
        st.binary(max_size=100),
        st.just(False),
    ),
    st.builds(m.Bitmap, u32, st.just(0), st.just(b""), st.just(True)),
    st.builds(m.Have, u32, indices),
    st.builds(m.Lost, u32, indices),
    st.builds(m.Request, u32, indices),
    pieces(),
    st.builds(m.Cancel, u32, indices),
    st.builds(m.Reject, u32, indices, reasons, st.lists(index, max_size=16).map(tuple)),
    st.builds(m.Peers, u32, st.lists(peers, max_size=5).map(tuple)),
    st.builds(m.Ping, st.integers(0, 2**64 - 1)),
    st.builds(m.Pong, st.integers(0, 2**64 - 1)),
    st.builds(m.Goodbye, reasons, text),
    st.builds(m.Rendezvous, st.lists(digest, max_size=20).map(tuple)),
    st.builds(m.Introduction, digest, digest, instance, ip, st.integers(1, 65535)),
    st.builds(m.Reach, digest, instance),
    st.builds(m.Summons, token, digest, instance),
    st.builds(m.Summons, token, digest, instance, ip, st.integers(1, 65535)),
    st.builds(m.Answer, token),
    st.just(m.Spliced()),
)


def decode(raw: bytes) -> m.Message | None:
    """The message, or None for ProtocolError; every other exception is a bug."""
    try:
        return codec.decode(raw)
    except ProtocolError:
        return None


@given(messages)
@settings(max_examples=400, deadline=None)
def test_every_message_comes_back(message: m.Message) -> None:
    assert codec.decode(codec.encode(message)) == message


@given(st.binary(max_size=200))
@settings(max_examples=300, deadline=None)
def test_arbitrary_bytes_end_in_a_message_or_a_protocol_error(raw: bytes) -> None:
    decode(raw)


@given(messages, st.data())
@settings(max_examples=400, deadline=None)
def test_damaged_messages_never_surprise(message: m.Message, data: st.DataObject) -> None:
    raw = bytearray(codec.encode(message))
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(raw)))
    for damaged in (bytes(raw), bytes(raw[:cut])):
        heard = decode(damaged)
        if heard is not None and not isinstance(heard, m.Unknown):
            # What is accepted is within every limit, so it can be said again.
            assert codec.decode(codec.encode(heard)) is not None


@given(messages, st.binary(max_size=40))
@settings(max_examples=200, deadline=None)
def test_unknown_fields_change_nothing(message: m.Message, content: bytes) -> None:
    unknown = bytes([0x9A, 0x06, len(content)]) + content  # field 99
    assert codec.decode(codec.encode(message) + unknown) == message
    assert codec.decode(unknown + codec.encode(message)) == message
