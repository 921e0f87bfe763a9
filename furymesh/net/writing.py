"""The writing half of a link: control messages first, then as much of chunks as fits.

Whatever control messages wait are sealed into a send buffer, then pieces of
chunks until the batch is full, and one call sends it all. A batch is about as
much as the network takes in AHEAD_SECONDS, so that what is queued next, or a
cancel, is never far behind.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import trio

from furymesh.core.errors import FuryMeshError, LinkClosedError
from furymesh.net.buffers import SEND_SIZE, Buffers
from furymesh.net.handler import LinkHandler, Piece
from furymesh.net.stream import ByteStream
from furymesh.wire import codec
from furymesh.wire import messages as m
from furymesh.wire.records import MAX_PLAINTEXT, Sealing

if TYPE_CHECKING:
    from furymesh.net.secure_link import SecureLink

# A peer that does not read lets our messages pile up; past this it is cut off. Most is
# what a joined share begins with: half a mebibyte of Bitmaps for the largest.
MAX_CONTROL_BYTES = 3 * 1024 * 1024
# Of these, answers to what it asks for: at this, no more of what it says is read until it
# has taken some. The chunks that it may have queued of one share take half of it.
MAX_ANSWER_BYTES = 64 * 1024
MESSAGE_COST = 64  # bytes of memory for a queued message, besides its own
MAX_PONGS = 8  # unsent answers to Pings; of more, only the newest are of use
CONTROL_BATCH = 192 * 1024  # control bytes sealed into one send, within SEND_SLACK
# Bytes sealed ahead of the network: about this much time at the measured rate,
# so that a control message or a cancel is never far behind.
AHEAD_SECONDS = 0.01
MIN_BATCH = MAX_PLAINTEXT


class LinkWriter:
    """Writes one link. It yields to the event loop about once per mebibyte."""

    def __init__(self, stream: ByteStream, sealing: Sealing, buffers: Buffers) -> None:
        self._stream = stream
        self._sealing = sealing
        self._buffers = buffers
        self._control: deque[tuple[bytes, int]] = deque()
        self._control_bytes = 0
        self._answer_bytes = 0  # of them
        self._answers_taken = trio.Event()
        self._pongs: deque[int] = deque(maxlen=MAX_PONGS)
        self._wake = trio.Event()
        self._batch = MIN_BATCH
        self._unrested = 0  # bytes sent since others were last let run
        self._closed = False
        self._last_word: LinkClosedError | None = None  # send what is queued, then raise this

    @property
    def idle(self) -> bool:
        """Whether every control message was handed to the stream."""
        return not self._control

    def queue(self, raw: bytes, *, answer: bool = False) -> bool:
        """Queue an encoded control message; False if too many wait to be read."""
        cost = len(raw) + MESSAGE_COST
        self._control.append((raw, cost if answer else 0))
        self._control_bytes += cost
        if answer:
            self._answer_bytes += cost
        self._wake.set()
        return self._control_bytes <= MAX_CONTROL_BYTES

    @property
    def owes_answers(self) -> bool:
        """Whether so many answers wait that nothing more should be asked of this end."""
        return self._answer_bytes >= MAX_ANSWER_BYTES

    async def answers_taken(self) -> None:
        """Return when the peer may ask for more."""
        while self.owes_answers:
            self._answers_taken = trio.Event()
            await self._answers_taken.wait()

    def pong(self, nonce: int) -> None:
        """Answer a Ping, ahead of all else."""
        if nonce not in self._pongs:
            self._pongs.append(nonce)
        self._wake.set()

    def poke(self) -> None:
        """The handler has pieces to send."""
        self._wake.set()

    def end(self, because: LinkClosedError) -> None:
        """Send what is queued and nothing else, then raise `because` out of `run`."""
        self._last_word = because
        self._wake.set()

    def close(self) -> None:
        """The stream is closed."""
        self._closed = True
        self._wake.set()

    async def run(self, link: SecureLink, handler: LinkHandler) -> None:
        """Write until the link is closed, or its last word is out; raises LinkClosedError."""
        while not self._closed:
            piece = None
            if not self._control and not self._pongs and self._last_word is None:
                # Before asking: the answer may queue a message and be None.
                self._wake = trio.Event()
                piece = handler.piece(link, self._batch)
                if piece is None:
                    await self._wake.wait()
                    continue
            handler.departing(link)
            buffer = self._buffers.take_send()
            try:
                at = self._seal_control(buffer)
                if self._last_word is not None:
                    await self._stream.send_all(buffer[:at])
                    if self._control:
                        continue
                    raise self._last_word
                at = await self._seal_pieces(link, handler, buffer, at, piece)
                await self._send(buffer[:at])
            finally:
                self._buffers.give_send(buffer)

    def _seal_control(self, buffer: memoryview) -> int:
        at = 0
        while self._pongs:
            at += self._sealing.seal_into(codec.encode(m.Pong(self._pongs.popleft())), buffer, at)
        while self._control and at < CONTROL_BATCH - codec.MAX_FRAME:
            raw, answer = self._control.popleft()
            self._control_bytes -= len(raw) + MESSAGE_COST
            if answer:
                self._answer_bytes -= answer
                self._answers_taken.set()
            at += self._sealing.seal_into(raw, buffer, at)
        return at

    async def _seal_pieces(
        self,
        link: SecureLink,
        handler: LinkHandler,
        buffer: memoryview,
        at: int,
        piece: Piece | None,
    ) -> int:
        """Seal pieces until the batch is full; control that comes meanwhile goes next."""
        room = self._batch
        while room > 0:
            if piece is None:
                # What was queued meanwhile may end the chunk before this one.
                piece = None if self._control else handler.piece(link, room)
                if piece is None:
                    break
            length = piece.message.length
            plain = self._buffers.scratch[:length]
            try:
                if not piece.read_now(plain):
                    plain = memoryview(bytearray(length))
                    await piece.read(plain)
            except FuryMeshError as error:
                handler.unreadable(link, piece, error)
                piece = None
                continue
            at += self._sealing.seal_into(codec.encode(piece.message), buffer, at)
            for start in range(0, length, MAX_PLAINTEXT):
                at += self._sealing.seal_into(plain[start : start + MAX_PLAINTEXT], buffer, at)
            room -= length
            piece = None
        return at

    async def _send(self, sealed: memoryview) -> None:
        started = trio.current_time()
        await self._stream.send_all(sealed)
        elapsed = trio.current_time() - started
        if len(sealed) >= self._batch:  # a full batch measures the link
            rate = len(sealed) / max(elapsed, 1e-6)
            fitting = int(AHEAD_SECONDS * rate)
            self._batch = min(max(fitting, MIN_BATCH, self._batch // 2), 2 * self._batch, SEND_SIZE)
            self._stream.keep_unsent(AHEAD_SECONDS, rate)
        self._unrested += len(sealed)
        if self._unrested >= SEND_SIZE:
            self._unrested = 0
            await trio.lowlevel.checkpoint()
