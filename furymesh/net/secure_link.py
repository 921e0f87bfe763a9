"""One secure link: records in and out, control messages ahead of chunk bytes.

A link runs two tasks, a reader and a writer. The reader opens records from
the node's shared receive buffer: control records become messages for the
handler, chunk bytes are decrypted straight into the slab that the handler
names. The writer seals whatever control messages wait, then as many pieces of
chunks as fit, and sends them with one call. Neither copies a chunk byte, and
each yields to the event loop about once per mebibyte.

The handler decides everything; its methods are synchronous, so a link never
sees a half-made decision.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

import trio

from furymesh.core.errors import (
    FuryMeshError,
    InternalError,
    LinkClosedError,
    PeerError,
    ProtocolError,
)
from furymesh.core.ids import NodeId, node_id_text
from furymesh.core.paths import shown
from furymesh.net.buffers import SEND_SIZE, Buffers
from furymesh.net.stream import ByteStream
from furymesh.wire import codec
from furymesh.wire import messages as m
from furymesh.wire.records import (
    HEADER_SIZE,
    MAX_PLAINTEXT,
    MAX_RECORD,
    TAG_SIZE,
    Opening,
    Sealing,
    ciphertext_size,
    sealed_size,
)
from furymesh.wire.session import Session

# A peer that does not read lets our messages pile up; past this it is cut off. The
# pages that it may ask for at once are two mebibytes.
MAX_CONTROL_BYTES = 3 * 1024 * 1024
MESSAGE_COST = 64  # bytes of memory for a queued message, besides its own
MAX_PONGS = 8  # unsent answers to Pings; of more, only the newest are of use
CONTROL_BATCH = 192 * 1024  # control bytes sealed into one send, within SEND_SLACK
# Bytes sealed ahead of the network: about this much time at the measured rate,
# so that a control message or a cancel is never far behind.
AHEAD_SECONDS = 0.01
MIN_BATCH = MAX_PLAINTEXT
# While chunk bytes are due, the reader is woken for whole records of them, about
# this much time's worth: each wake-up costs as much as copying 100 KiB, and part
# of a record is of no use.
WAKE_SECONDS = 0.05
MAX_WAKE_RECORDS = 4  # half of what one receive takes in
RATE_SECONDS = 0.25  # over which the rate of arrival is measured
PING_SECONDS = 5.0  # between pings on a quiet link
IDLE_SECONDS = 30.0  # without a single record: the peer is gone
# Bytes wait and the peer takes none of them: it does not read, or is gone. In TCP
# that is five or more retries.
REFUSED_SECONDS = 10.0
GOODBYE_SECONDS = 0.5  # to get the last word out
CLOSE_DETAIL = 200  # characters of an explanation that travel in a Goodbye


class Piece(Protocol):
    """A run of bytes of one chunk, on its way out."""

    @property
    def message(self) -> m.Data:
        """Which bytes these are."""

    def read_now(self, view: memoryview) -> bool:
        """Fill `view` without blocking; False if the disk would have to be asked."""

    async def read(self, view: memoryview) -> None:
        """Fill `view`, waiting for the disk."""


class LinkHandler(Protocol):
    """What a link asks of the swarm. Every method may raise PeerError to end the link."""

    def message(self, link: SecureLink, message: m.Message) -> None:
        """A legal control message arrived."""

    def sink(self, link: SecureLink, data: m.Data) -> memoryview | None:
        """Where the announced bytes go, exactly `data.length` long; None: wait for room."""

    async def room(self, link: SecureLink, data: m.Data) -> None:
        """Return when `sink` should be asked again."""

    def filled(self, link: SecureLink, data: m.Data) -> None:
        """The bytes announced by `data` are all in their sink."""

    def departing(self, link: SecureLink) -> None:
        """Something is about to be sent: a good time to `send` what was not worth it alone."""

    def piece(self, link: SecureLink, room: int) -> Piece | None:
        """The next piece to send, of at most `room` bytes; None if there is none now."""

    def unreadable(self, link: SecureLink, piece: Piece, error: FuryMeshError) -> None:
        """A piece could not be read; nothing of it was sent."""


@dataclass(slots=True)
class Traffic:
    """Bytes that crossed a link, records and all."""

    received: int = 0
    sent: int = 0
    payload_received: int = 0
    payload_sent: int = 0


class SecureLink:
    """A link whose handshake is done. `run` it in a nursery; `send` is safe at any time."""

    def __init__(
        self,
        stream: ByteStream,
        session: Session,
        sealing: Sealing,
        opening: Opening,
        buffers: Buffers,
        *,
        node_id: NodeId,
        remote: tuple[str, int],
        initiator: bool,
    ) -> None:
        self.session = session
        self.node_id = node_id
        self.remote = remote
        self.initiator = initiator
        self.traffic = Traffic()
        self.hello: m.Hello | None = None
        self.closed_because: FuryMeshError | None = None
        self.farewell: m.Reason | None = None  # the reason of a Goodbye, either end's
        self._stream = stream
        self.sealing = sealing
        self.opening = opening
        self._buffers = buffers
        self._control: deque[bytes] = deque()
        self._control_bytes = 0
        self._pongs: deque[int] = deque(maxlen=MAX_PONGS)
        self._wake = trio.Event()
        self._carry = b""
        self._batch = MIN_BATCH
        self._unrested = 0  # bytes sent since the writer last let others run
        self._heard = trio.current_time()
        self._came = 0  # bytes received or waiting when `heard_at` last looked
        self._rate = 0.0  # bytes per second arriving, in the last sample
        self._sample = (0, self._heard)
        self._closing = False
        self._held = False  # it is we who do not read on: the peer's silence means nothing
        self._leaving = trio.Event()  # send what is queued, then close
        self._last_said = LinkClosedError("said goodbye")
        self._data = m.Data(0, 0, 0, 0)  # the piece that is arriving, and where it goes
        self._sink = memoryview(b"")

    @property
    def instance(self) -> bytes:
        return self.hello.instance if self.hello else b""

    @property
    def unwanted(self) -> bool:
        """Whether it ended because one end did not want this link at all."""
        return self.farewell in (m.Reason.DUPLICATE, m.Reason.FORBIDDEN, m.Reason.BUSY)

    @property
    def leaving(self) -> bool:
        """Whether the last word was said: what the peer says now changes nothing."""
        return self._closing or self._leaving.is_set()

    @property
    def heard_at(self) -> float:
        """When the last bytes came, or were first seen to wait in the kernel.

        Look at least once a second: the reader sleeps until its record is whole.
        """
        came = self.traffic.received + self._stream.waiting()
        if came > self._came:
            self._came, self._heard = came, trio.current_time()
        return self._heard

    def refused_for(self) -> float:
        """For how many seconds the peer has not taken a byte of those that wait for it."""
        return 0.0 if self._closing else self._stream.refused_for()

    def __repr__(self) -> str:
        arrow = "to" if self.initiator else "from"
        return f"<SecureLink {arrow} {node_id_text(self.node_id)[:8]} at {self.remote}>"

    # --- sending ------------------------------------------------------------------

    def send(self, message: m.Message) -> None:
        """Queue a control message; it overtakes chunk bytes that are not sealed yet."""
        if self.leaving:
            return
        raw = codec.encode(message)
        self._control.append(raw)
        self._control_bytes += len(raw) + MESSAGE_COST
        if self._control_bytes > MAX_CONTROL_BYTES:
            self.close(PeerError("the peer does not read what it is sent"))
        self._wake.set()

    def pong(self, nonce: int) -> None:
        """Answer a Ping, ahead of all else."""
        if nonce not in self._pongs:
            self._pongs.append(nonce)
        self._wake.set()

    def poke(self) -> None:
        """Tell the writer that the handler has pieces to send."""
        self._wake.set()

    def close(self, because: FuryMeshError | None = None) -> None:
        """End the link; `run` returns soon. The first reason given is kept."""
        if not self._closing:
            self._closing = True
            self.closed_because = self.closed_because or because
            self._stream.close()
            self._wake.set()

    def goodbye(self, reason: m.Reason, detail: str = "") -> None:
        """Say why, then close as soon as it is out, or after GOODBYE_SECONDS."""
        if not self.leaving:
            self.send(m.Goodbye(reason, detail[:CLOSE_DETAIL]))
            self.farewell = self.farewell or reason
            said = f"{reason.words} {detail}".strip()
            self._last_said = LinkClosedError(f"closed from this end ({said})")
            self._leaving.set()
            self._wake.set()

    # --- running ------------------------------------------------------------------

    async def run(self, handler: LinkHandler) -> None:
        """Serve the link until it ends; never raises for what a peer did.

        Why it ended is in `closed_because` afterwards.
        """
        try:
            async with trio.open_nursery() as nursery:
                for task in (self._reader, self._writer, self._keep_alive, self._leave_in_time):
                    nursery.start_soon(self._guard, task, handler, nursery.cancel_scope)
        finally:
            self.close()

    async def _guard(
        self,
        task: Callable[[LinkHandler], Awaitable[None]],
        handler: LinkHandler,
        scope: trio.CancelScope,
    ) -> None:
        """Run one of the link's tasks; its end is the end of the link."""
        try:
            await task(handler)
        except FuryMeshError as error:
            if isinstance(error, ProtocolError) and not self._closing:
                await self._last_word(error)
            self.close(error)
        except Exception as error:  # a bug here; it costs this link and no other
            self.close(InternalError(f"internal error on {self!r}: {error!r}"))
        finally:
            scope.cancel()

    async def _last_word(self, error: ProtocolError) -> None:
        """Tell the peer which rule it broke, if it still listens."""
        self.closed_because = error
        self.goodbye(m.Reason.PROTOCOL, str(error))
        with trio.move_on_after(GOODBYE_SECONDS):
            while self._control:
                await trio.sleep(GOODBYE_SECONDS / 10)

    async def _leave_in_time(self, handler: LinkHandler) -> None:
        """After a Goodbye a peer that does not read is not waited for."""
        await self._leaving.wait()
        await trio.sleep(GOODBYE_SECONDS)
        raise self._last_said

    # --- reading ------------------------------------------------------------------

    async def _reader(self, handler: LinkHandler) -> None:
        buffer = self._buffers.receive
        stream = self._stream
        waiting: m.Data | None = None
        full = True
        while True:
            carried = len(self._carry)
            if waiting is None:
                if not full:
                    await stream.wait_readable(self._due(carried))
                else:
                    await trio.lowlevel.checkpoint()
                buffer[:carried] = self._carry
                size = stream.receive_nowait(buffer[carried:])
                if size is None:
                    full = False
                    continue
                full = carried + size == len(buffer)
                self._heard = trio.current_time()
                self.traffic.received += size
            else:
                self._held = True
                await handler.room(self, waiting)
                self._held = False
                self._heard = trio.current_time()
                buffer[:carried] = self._carry
                size = 0
            used, waiting = self._consume(handler, carried + size, waiting)
            self._carry = bytes(buffer[used : carried + size])

    def _due(self, carried: int) -> int:
        """How many bytes to be woken for: whole records of those that are sure to come."""
        left = self.session.payload_left
        if not left:
            return 1
        received, then = self._sample
        elapsed = self._heard - then
        if elapsed >= RATE_SECONDS:
            self._rate = (self.traffic.received - received) / elapsed
            self._sample = (self.traffic.received, self._heard)
        records = min(int(self._rate * WAKE_SECONDS / MAX_RECORD), MAX_WAKE_RECORDS)
        return max(sealed_size(min(left, max(records, 1) * MAX_PLAINTEXT)) - carried, 1)

    def _consume(
        self, handler: LinkHandler, end: int, data: m.Data | None
    ) -> tuple[int, m.Data | None]:
        """Open every whole record in the receive buffer.

        Returns how far it came and, if it stopped for want of a slab, the Data
        message whose bytes need one.
        """
        buffer = self._buffers.receive
        at = 0
        if data is not None and not self._begin(handler, data):
            return at, data
        while end - at >= HEADER_SIZE:
            size = ciphertext_size(buffer, at)
            start = at + HEADER_SIZE
            if end - start < size:
                break
            cipher = buffer[start : start + size]
            at = start + size
            if self.session.payload_left:
                self._open_payload(handler, cipher)
                continue
            message = self.session.received(self.opening.open(cipher))
            if isinstance(message, m.Data):
                if not self._begin(handler, message):
                    return at, message
            else:
                handler.message(self, message)
                if isinstance(message, m.Goodbye):
                    self.farewell = message.reason
                    words = f"{message.reason.words} {shown(message.detail)}".strip()
                    raise LinkClosedError(f"the peer closed the link ({words})")
        return at, None

    def _begin(self, handler: LinkHandler, data: m.Data) -> bool:
        sink = handler.sink(self, data)
        if sink is None:
            return False
        self._sink = sink
        self._data = data
        return True

    def _open_payload(self, handler: LinkHandler, cipher: memoryview) -> None:
        left = self.session.payload_left
        size = len(cipher) - TAG_SIZE
        if size > left:
            raise ProtocolError("more chunk bytes than announced")
        at = self._data.length - left
        self.opening.open_into(cipher, self._sink[at : at + size])
        self.traffic.payload_received += size
        if not self.session.payload_received(size):
            handler.filled(self, self._data)

    # --- writing ------------------------------------------------------------------

    async def _writer(self, handler: LinkHandler) -> None:
        while not self._closing:
            piece = None
            if not self._control and not self._pongs and not self._leaving.is_set():
                # Before asking: the answer may queue a message and be None.
                self._wake = trio.Event()
                piece = handler.piece(self, self._batch)
                if piece is None:
                    await self._wake.wait()
                    continue
            handler.departing(self)
            buffer = self._buffers.take_send()
            try:
                at = self._seal_control(buffer)
                if self._leaving.is_set():
                    await self._stream.send_all(buffer[:at])
                    if self._control:
                        continue
                    raise self._last_said
                at = await self._seal_pieces(handler, buffer, at, piece)
                await self._send(buffer[:at])
            finally:
                self._buffers.give_send(buffer)

    def _seal_control(self, buffer: memoryview) -> int:
        at = 0
        while self._pongs:
            at += self.sealing.seal_into(codec.encode(m.Pong(self._pongs.popleft())), buffer, at)
        while self._control and at < CONTROL_BATCH - codec.MAX_FRAME:
            raw = self._control.popleft()
            self._control_bytes -= len(raw) + MESSAGE_COST
            at += self.sealing.seal_into(raw, buffer, at)
        return at

    async def _seal_pieces(
        self, handler: LinkHandler, buffer: memoryview, at: int, piece: Piece | None
    ) -> int:
        """Seal pieces until the batch is full; control that comes meanwhile goes next."""
        room = self._batch
        while room > 0:
            if piece is None:
                # What was queued meanwhile may end the chunk before this one.
                piece = None if self._control else handler.piece(self, room)
                if piece is None:
                    break
            length = piece.message.length
            plain = self._buffers.scratch[:length]
            try:
                if not piece.read_now(plain):
                    plain = memoryview(bytearray(length))
                    await piece.read(plain)
            except FuryMeshError as error:
                handler.unreadable(self, piece, error)
                piece = None
                continue
            at += self.sealing.seal_into(codec.encode(piece.message), buffer, at)
            for start in range(0, length, MAX_PLAINTEXT):
                at += self.sealing.seal_into(plain[start : start + MAX_PLAINTEXT], buffer, at)
            self.traffic.payload_sent += length
            room -= length
            piece = None
        return at

    async def _send(self, sealed: memoryview) -> None:
        started = trio.current_time()
        await self._stream.send_all(sealed)
        self.traffic.sent += len(sealed)
        elapsed = trio.current_time() - started
        if len(sealed) >= self._batch:  # a full batch measures the link
            fitting = int(AHEAD_SECONDS * len(sealed) / max(elapsed, 1e-6))
            self._batch = min(max(fitting, MIN_BATCH, self._batch // 2), 2 * self._batch, SEND_SIZE)
            self._stream.keep_unsent(fitting)
        self._unrested += len(sealed)
        if self._unrested >= SEND_SIZE:
            self._unrested = 0
            await trio.lowlevel.checkpoint()

    # --- being there --------------------------------------------------------------

    async def _keep_alive(self, handler: LinkHandler) -> None:
        while True:
            await trio.sleep(PING_SECONDS)
            if self.refused_for() > REFUSED_SECONDS:
                raise LinkClosedError("the peer does not read what it is sent")
            silence = 0.0 if self._held else trio.current_time() - self.heard_at
            if silence > IDLE_SECONDS:
                raise LinkClosedError(f"the peer said nothing for {IDLE_SECONDS:.0f} s")
            if silence > PING_SECONDS:
                self.send(m.Ping(0))
