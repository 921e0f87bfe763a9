from __future__ import annotations

import math
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import pytest
import trio
import trio.testing

from furymesh.core.errors import (
    FuryMeshError,
    InternalError,
    LinkClosedError,
    PeerError,
    ProtocolError,
    SourceChangedError,
)
from furymesh.core.ids import FileId
from furymesh.net import secure_link, writing
from furymesh.net.connect import Endpoint
from furymesh.net.handler import Piece
from furymesh.net.identity import load_or_create
from furymesh.net.secure_link import SecureLink
from furymesh.wire import codec
from furymesh.wire import messages as m
from tests.waiting import until

FILE_ID = FileId(bytes(32))
CHUNK = 3 * codec.MAX_PIECE + 17
LIMIT = 100.0  # seconds of the links' time, over which a test may jump


@dataclass
class Part:
    """A piece of `data`, read as it is told to."""

    message: m.Data
    data: bytes
    now: bool = True
    error: FuryMeshError | None = None

    def read_now(self, view: memoryview) -> bool:
        if self.error is not None or not self.now:
            return False
        self._fill(view)
        return True

    async def read(self, view: memoryview) -> None:
        await trio.lowlevel.checkpoint()
        if self.error is not None:
            raise self.error
        self._fill(view)

    def _fill(self, view: memoryview) -> None:
        view[:] = self.data[self.message.offset : self.message.offset + self.message.length]


@dataclass
class Handler:
    """Sends what is in `outbox`, keeps what comes."""

    outbox: list[Part] = field(default_factory=list)
    messages: list[m.Message] = field(default_factory=list)
    inbox: bytearray = field(default_factory=lambda: bytearray(CHUNK))
    filled_bytes: int = 0
    full: int = 0  # how many times there is no room at first
    refused: list[FuryMeshError] = field(default_factory=list)
    on_message: Callable[[m.Message], None] = lambda message: None

    def message(self, link: SecureLink, message: m.Message) -> None:
        self.messages.append(message)
        if isinstance(message, m.Join):
            link.session.accept(message, FILE_ID)
        self.on_message(message)

    def sink(self, link: SecureLink, data: m.Data) -> memoryview | None:
        if self.full:
            self.full -= 1
            return None
        return memoryview(self.inbox)[data.offset : data.offset + data.length]

    async def room(self, link: SecureLink, data: m.Data) -> None:
        await trio.lowlevel.checkpoint()

    def filled(self, link: SecureLink, data: m.Data) -> None:
        self.filled_bytes += data.length

    def departing(self, link: SecureLink) -> None:
        """Nothing to add."""

    def piece(self, link: SecureLink, room: int) -> Piece | None:
        return self.outbox.pop(0) if self.outbox else None

    def unreadable(self, link: SecureLink, piece: Piece, error: FuryMeshError) -> None:
        self.refused.append(error)


@dataclass
class End:
    link: SecureLink
    handler: Handler


@asynccontextmanager
async def linked(place: Path) -> AsyncIterator[tuple[End, End, trio.Nursery]]:
    """Two ends of a link that has joined one share, not yet running."""
    homes = [place / "one", place / "two"]
    for home in homes:
        home.mkdir()
    one, two = (Endpoint(load_or_create(home)) for home in homes)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        dialled = socket.create_connection(listener.getsockname())
        accepted, remote = listener.accept()
    ends: list[SecureLink] = []

    async def establish(endpoint: Endpoint, sock: socket.socket, initiator: bool) -> None:
        ends.append(await endpoint.establish(sock, remote, initiator=initiator))

    with trio.fail_after(LIMIT):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(establish, one, dialled, True)
            nursery.start_soon(establish, two, accepted, False)
        ends.sort(key=lambda link: not link.initiator)
        for link in ends:
            link.send(link.session.join(FILE_ID))
        async with trio.open_nursery() as nursery:
            a, b = (End(link, Handler()) for link in ends)
            try:
                yield a, b, nursery
            finally:
                a.link.close()
                b.link.close()


def start(nursery: trio.Nursery, *ends: End) -> None:
    for end in ends:
        nursery.start_soon(end.link.run, end.handler)


@pytest.fixture
def clock() -> trio.testing.MockClock:
    """Time that runs as ever and can be jumped over."""
    return trio.testing.MockClock(rate=1.0)


async def pass_by(clock: trio.testing.MockClock, seconds: float) -> None:
    """Let these seconds pass at once, with all the looks at a link that fall into them."""
    for _ in range(math.ceil(seconds / secure_link.PING_SECONDS)):
        clock.jump(secure_link.PING_SECONDS)
        await trio.testing.wait_all_tasks_blocked()


def pieces(data: bytes, number: int, *, now: bool = True) -> list[Part]:
    size = codec.MAX_PIECE
    return [
        Part(m.Data(number, 0, at, min(size, len(data) - at)), data, now)
        for at in range(0, len(data), size)
    ]


@pytest.mark.parametrize("now", [True, False], ids=["from memory", "from disk"])
async def test_chunk_bytes_land_in_their_sink(tmp_path: Path, now: bool) -> None:
    data = Random(1).randbytes(CHUNK)
    async with linked(tmp_path) as (one, two, nursery):
        start(nursery, one, two)
        await until(lambda: one.link.session.live(FILE_ID) and two.link.session.live(FILE_ID))
        one.handler.outbox = pieces(data, one.link.session.number(FILE_ID), now=now)
        two.handler.full = 3
        one.link.poke()
        await until(lambda: two.handler.filled_bytes == CHUNK)
        assert two.handler.inbox == data
        assert two.link.traffic.payload_received == CHUNK


async def test_diverted_piece_lands_nowhere_from_then_on(tmp_path: Path) -> None:
    size = 1000

    async def bring(end: End, *records: bytes) -> None:
        sealed = memoryview(bytearray(3 * size))
        at = 0
        for record in records:
            at += end.link.sealing.seal_into(record, sealed, at)
        await end.link._stream.send_all(sealed[:at])

    async with linked(tmp_path) as (one, two, nursery):
        start(nursery, one, two)
        await until(lambda: one.link.session.live(FILE_ID) and two.link.session.live(FILE_ID))
        data = m.Data(one.link.session.number(FILE_ID), 0, 0, 2 * size)
        await bring(one, codec.encode(data), b"a" * size)
        await until(lambda: two.link.traffic.payload_received == size)
        two.link.divert()
        await bring(one, b"b" * size)
        await until(lambda: two.handler.filled_bytes)
        assert two.handler.inbox[: 2 * size] == b"a" * size + bytes(size)
        # The next one is not concerned.
        await bring(one, codec.encode(data), b"c" * size, b"d" * size)
        await until(lambda: two.handler.filled_bytes == 4 * size)
        assert two.handler.inbox[: 2 * size] == b"c" * size + b"d" * size


async def test_piece_that_cannot_be_read_is_skipped(tmp_path: Path) -> None:
    async with linked(tmp_path) as (one, two, nursery):
        start(nursery, one, two)
        await until(lambda: one.link.session.live(FILE_ID))
        number = one.link.session.number(FILE_ID)
        bad = Part(m.Data(number, 0, 0, 10), b"", error=SourceChangedError("changed"))
        one.handler.outbox = [bad, Part(m.Data(number, 1, 0, 5), b"hello")]
        one.link.poke()
        await until(lambda: two.handler.filled_bytes == 5)
        assert [str(error) for error in one.handler.refused] == ["changed"]
        assert one.link.closed_because is None


async def test_messages_overtake_chunk_bytes(tmp_path: Path) -> None:
    data = bytes(CHUNK)
    async with linked(tmp_path) as (one, two, nursery):
        start(nursery, one, two)
        await until(lambda: two.link.session.live(FILE_ID) and one.link.session.live(FILE_ID))
        before: list[int] = []
        two.handler.on_message = lambda message: (
            before.append(two.handler.filled_bytes) if isinstance(message, m.Ping) else None
        )
        one.handler.outbox = pieces(data, one.link.session.number(FILE_ID)) * 20
        one.link.poke()
        await until(lambda: two.handler.filled_bytes)
        one.link.send(m.Ping(7))
        await until(lambda: before)
        assert before[0] < 20 * CHUNK


async def test_protocol_error_is_told_to_the_peer_and_kept_as_the_reason(tmp_path: Path) -> None:
    async with linked(tmp_path) as (one, two, nursery):
        start(nursery, one, two)

        def refuse(message: m.Message) -> None:
            if isinstance(message, m.Ping):
                raise ProtocolError("no pings here")

        two.handler.on_message = refuse
        one.link.send(m.Ping(1))
        await until(lambda: one.link.closed_because and two.link.closed_because)
        assert isinstance(two.link.closed_because, ProtocolError)
        goodbye = one.handler.messages[-1]
        assert isinstance(goodbye, m.Goodbye)
        assert (goodbye.reason, goodbye.detail) == (m.Reason.PROTOCOL, "no pings here")


async def test_bug_in_a_handler_costs_its_link_only(tmp_path: Path) -> None:
    async with linked(tmp_path) as (one, two, nursery):
        start(nursery, one, two)

        def fail(message: m.Message) -> None:
            raise KeyError("oops")

        two.handler.on_message = fail
        await until(lambda: two.link.closed_because)
        assert isinstance(two.link.closed_because, InternalError)


async def test_goodbye_gets_out_and_ends_both(tmp_path: Path) -> None:
    async with linked(tmp_path) as (one, two, nursery):
        start(nursery, one, two)
        await until(lambda: one.link.session.live(FILE_ID))
        one.link.goodbye(m.Reason.SHUTTING_DOWN)
        one.link.send(m.Ping(5))  # after the last word nothing matters
        await until(lambda: one.link.closed_because and two.link.closed_because)
        goodbyes = [x for x in two.handler.messages if isinstance(x, m.Goodbye)]
        assert [goodbye.reason for goodbye in goodbyes] == [m.Reason.SHUTTING_DOWN]


async def test_peer_that_does_not_read_is_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "MAX_CONTROL_BYTES", 10_000)
    async with linked(tmp_path) as (one, _, nursery):
        start(nursery, one)
        for nonce in range(20_000):
            one.link.send(m.Ping(nonce))
        assert isinstance(one.link.closed_because, PeerError)


async def test_silence_ends_the_link(tmp_path: Path, clock: trio.testing.MockClock) -> None:
    async with linked(tmp_path) as (one, _, nursery):
        start(nursery, one)  # the other end is there and never runs
        await trio.testing.wait_all_tasks_blocked()
        await pass_by(clock, secure_link.IDLE_SECONDS - secure_link.PING_SECONDS)
        assert one.link.closed_because is None
        await pass_by(clock, 3 * secure_link.PING_SECONDS)
        assert "said nothing" in str(one.link.closed_because)


async def test_quiet_link_is_kept_alive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secure_link, "PING_SECONDS", 0.02)
    async with linked(tmp_path) as (one, two, nursery):
        start(nursery, one, two)
        await until(lambda: sum(isinstance(x, m.Ping) for x in two.handler.messages) >= 3)
        assert one.link.closed_because is None


async def test_broken_connection_ends_it_plainly(tmp_path: Path) -> None:
    async with linked(tmp_path) as (one, two, nursery):
        start(nursery, one)
        two.link.close()
        await until(lambda: one.link.closed_because)
        assert isinstance(one.link.closed_because, LinkClosedError)


class Stuffed(Handler):
    """Takes no chunk bytes, so that nothing more is read."""

    def sink(self, link: SecureLink, data: m.Data) -> memoryview | None:
        return None

    async def room(self, link: SecureLink, data: m.Data) -> None:
        await trio.sleep_forever()


async def stuff(one: End, two: End, nursery: trio.Nursery) -> None:
    """Make `two` a peer that does not read, with bytes of `one` on their way to it."""
    two.handler = Stuffed()
    start(nursery, one, two)
    await until(lambda: one.link.session.live(FILE_ID) and two.link.session.live(FILE_ID))
    one.handler.outbox = pieces(bytes(CHUNK), one.link.session.number(FILE_ID)) * 20
    one.link.poke()
    await until(lambda: one.link.refused_for() > 0.02)


async def test_peer_that_takes_no_bytes_is_left(
    tmp_path: Path, clock: trio.testing.MockClock
) -> None:
    async with linked(tmp_path) as (one, two, nursery):
        await stuff(one, two, nursery)
        await pass_by(clock, secure_link.REFUSED_SECONDS - secure_link.PING_SECONDS)
        assert one.link.closed_because is None
        await pass_by(clock, 3 * secure_link.PING_SECONDS)
        assert "does not read" in str(one.link.closed_because)


async def test_goodbye_waits_for_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secure_link, "GOODBYE_SECONDS", 0.05)
    async with linked(tmp_path) as (one, two, nursery):
        await stuff(one, two, nursery)
        one.link.goodbye(m.Reason.IDLE, "bored")
        await until(lambda: one.link.closed_because)
        assert "bored" in str(one.link.closed_because)


async def test_time_in_which_this_end_does_not_read_is_not_the_peers_silence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: trio.testing.MockClock
) -> None:
    monkeypatch.setattr(secure_link, "REFUSED_SECONDS", math.inf)  # or the peer would leave
    async with linked(tmp_path) as (one, two, nursery):
        await stuff(one, two, nursery)
        await pass_by(clock, secure_link.IDLE_SECONDS + 3 * secure_link.PING_SECONDS)
        assert two.link.closed_because is None


async def test_queued_messages_are_charged_for_what_they_take(tmp_path: Path) -> None:
    async with linked(tmp_path) as (one, _, _nursery):
        for _ in range(writing.MAX_CONTROL_BYTES // writing.MESSAGE_COST):
            one.link.send(m.Pong(0))
        assert isinstance(one.link.closed_because, PeerError)


async def test_flood_of_pings_does_not_pile_up_answers(tmp_path: Path) -> None:
    async with linked(tmp_path) as (one, two, nursery):
        for nonce in range(100_000):
            one.link.pong(nonce)
        start(nursery, one, two)
        await until(lambda: m.Pong(99_999) in two.handler.messages)
        pongs = [x for x in two.handler.messages if isinstance(x, m.Pong)]
        assert len(pongs) == writing.MAX_PONGS


class Withdrawer(Handler):
    """Rejects a chunk when asked for a piece of it, and has nothing else."""

    def piece(self, link: SecureLink, room: int) -> Piece | None:
        if self.outbox:
            link.send(m.Ping(int(self.outbox.pop().message.offset)))
        return None


async def test_message_queued_while_there_is_no_piece_is_sent(tmp_path: Path) -> None:
    async with linked(tmp_path) as (one, two, nursery):
        one.handler = Withdrawer()
        start(nursery, one, two)
        await until(lambda: one.link.session.live(FILE_ID) and two.link.session.live(FILE_ID))
        one.handler.outbox = [Part(m.Data(1, 0, 77, 1), b"")]
        one.link.poke()
        await until(lambda: m.Ping(77) in two.handler.messages)


class Ender(Handler):
    """Ends the chunk of which a piece could not be read."""

    def unreadable(self, link: SecureLink, piece: Piece, error: FuryMeshError) -> None:
        link.send(m.Ping(1))


async def test_end_of_a_chunk_is_told_before_the_next_begins(tmp_path: Path) -> None:
    async with linked(tmp_path) as (one, two, nursery):
        one.handler = Ender()
        start(nursery, one, two)
        await until(lambda: one.link.session.live(FILE_ID) and two.link.session.live(FILE_ID))
        filled: list[int] = []
        two.handler.on_message = lambda message: (
            filled.append(two.handler.filled_bytes) if isinstance(message, m.Ping) else None
        )
        number = one.link.session.number(FILE_ID)
        bad = Part(m.Data(number, 0, 0, 10), b"", error=SourceChangedError("changed"))
        one.handler.outbox = [bad, Part(m.Data(number, 1, 0, 5), b"hello")]
        one.link.poke()
        await until(lambda: two.handler.filled_bytes == 5)
        assert filled == [0]
