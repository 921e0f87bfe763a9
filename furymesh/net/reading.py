"""The reading half of a link: from the socket to messages, and to bytes in their slab.

Records are opened out of the receive buffer that all links of a node share:
control records become messages for the handler, chunk bytes are decrypted
straight into the memory that the handler names. What is left of an unfinished
record is kept aside until the rest of it has come.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from furymesh.core.errors import LinkClosedError, ProtocolError
from furymesh.core.paths import shown
from furymesh.net.buffers import Buffers
from furymesh.net.handler import Announced, LinkHandler, Traffic
from furymesh.net.stream import ByteStream
from furymesh.wire import messages as m
from furymesh.wire.records import (
    HEADER_SIZE,
    MAX_PLAINTEXT,
    MAX_RECORD,
    TAG_SIZE,
    Opening,
    ciphertext_size,
    sealed_size,
)
from furymesh.wire.session import Session

if TYPE_CHECKING:
    from furymesh.net.secure_link import SecureLink

# While chunk bytes are due, the reader is woken for whole records of them, about
# this much time's worth: each wake-up costs as much as copying 100 KiB, and part
# of a record is of no use.
WAKE_SECONDS = 0.05
MAX_WAKE_RECORDS = 8  # half of what one receive takes in
RATE_SECONDS = 0.25  # over which the rate of arrival is measured


class LinkReader:
    """Reads one link. It yields to the event loop about once per mebibyte."""

    def __init__(
        self,
        stream: ByteStream,
        session: Session,
        opening: Opening,
        buffers: Buffers,
        traffic: Traffic,
    ) -> None:
        self.held = False  # it is we who do not read on: the peer's silence means nothing
        self._stream = stream
        self._session = session
        self._opening = opening
        self._buffers = buffers
        self._traffic = traffic
        self._carry = memoryview(b"")
        self._heard = trio.current_time()
        self._came = 0  # bytes received or waiting when `heard_at` last looked
        self._rate = 0.0  # bytes per second arriving, in the last sample
        self._sample = (0, self._heard)
        self._data: Announced = m.Data(0, 0, 0, 0)  # the piece that is arriving, and where it goes
        self._sink = memoryview(b"")

    @property
    def heard_at(self) -> float:
        """When the last bytes came, or were first seen to wait in the kernel.

        Look at least once a second: the reader sleeps until its record is whole.
        """
        came = self._traffic.received + self._stream.waiting()
        if came > self._came:
            self._came, self._heard = came, trio.current_time()
        return self._heard

    def divert(self) -> None:
        """Whoever named the memory for the piece that is arriving wants it back."""
        self._sink = self._buffers.discard

    async def run(self, link: SecureLink, handler: LinkHandler) -> None:
        """Read until the link ends; raises ProtocolError and LinkClosedError."""
        buffer = self._buffers.receive
        stream = self._stream
        full = True
        while True:
            carried = len(self._carry)
            if full:
                await trio.lowlevel.checkpoint()
            else:
                await stream.wait_readable(self._due(carried))
            buffer[:carried] = self._carry
            size = stream.receive_nowait(buffer[carried:])
            if size is None:
                full = False
                continue
            full = carried + size == len(buffer)
            self._heard = trio.current_time()
            self._traffic.received += size
            used, waiting = self._consume(link, handler, buffer[: carried + size])
            self._carry = memoryview(bytes(buffer[used : carried + size]))
            while waiting is not None or link.owes_answers:
                self.held = True
                await (handler.room(link, waiting) if waiting else link.answers_taken())
                self.held = False
                self._heard = trio.current_time()
                if waiting is None or self._begin(link, handler, waiting):
                    used, waiting = self._consume(link, handler, self._carry)
                    self._carry = self._carry[used:]

    def _due(self, carried: int) -> int:
        """How many bytes to be woken for: whole records of those that are sure to come."""
        left = self._session.payload_left
        if not left:
            return 1
        received, then = self._sample
        elapsed = self._heard - then
        if elapsed >= RATE_SECONDS:
            self._rate = (self._traffic.received - received) / elapsed
            self._sample = (self._traffic.received, self._heard)
        records = min(int(self._rate * WAKE_SECONDS / MAX_RECORD), MAX_WAKE_RECORDS)
        return max(sealed_size(min(left, max(records, 1) * MAX_PLAINTEXT)) - carried, 1)

    def _consume(
        self, link: SecureLink, handler: LinkHandler, buffer: memoryview
    ) -> tuple[int, Announced | None]:
        """Open every whole record in a buffer, or those before the peer must take answers.

        Returns how far it came and, if it stopped for want of a slab, the Data
        message whose bytes need one.
        """
        at, end = 0, len(buffer)
        while end - at >= HEADER_SIZE:
            size = ciphertext_size(buffer, at)
            start = at + HEADER_SIZE
            if end - start < size:
                break
            cipher = buffer[start : start + size]
            at = start + size
            if self._session.payload_left:
                self._open_payload(link, handler, cipher)
                continue
            message = self._session.received(self._opening.open(cipher))
            if isinstance(message, m.Data | m.ArchiveData):
                if not self._begin(link, handler, message):
                    return at, message
            else:
                handler.message(link, message)
                if isinstance(message, m.Goodbye):
                    link.farewell = message.reason
                    words = f"{message.reason.words} {shown(message.detail)}".strip()
                    raise LinkClosedError(f"the peer closed the link ({words})")
                if link.owes_answers:
                    break
        return at, None

    def _begin(self, link: SecureLink, handler: LinkHandler, data: Announced) -> bool:
        sink = handler.sink(link, data)
        if sink is None:
            return False
        self._sink = sink
        self._data = data
        return True

    def _open_payload(self, link: SecureLink, handler: LinkHandler, cipher: memoryview) -> None:
        left = self._session.payload_left
        size = len(cipher) - TAG_SIZE
        if size > left:
            raise ProtocolError("more chunk bytes than announced")
        at = self._data.length - left
        self._opening.open_into(cipher, self._sink[at : at + size])
        self._traffic.payload_received += size
        if not self._session.payload_received(size):
            handler.filled(link, self._data)
