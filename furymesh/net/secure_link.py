"""One secure link: its two halves, its messages, and how it ends.

A reader and a writer run beside each other; see `reading` and `writing`. Neither
copies a chunk byte. Which messages come and go is the handler's business.
"""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from functools import partial

import trio

from furymesh.core.errors import (
    FuryMeshError,
    InternalError,
    LinkClosedError,
    PeerError,
    ProtocolError,
)
from furymesh.core.ids import NodeId, Process, node_id_text
from furymesh.net.addresses import is_loopback, same_machine
from furymesh.net.buffers import Buffers
from furymesh.net.handler import LinkHandler, Traffic
from furymesh.net.reading import LinkReader
from furymesh.net.stream import ByteStream, receive_exactly
from furymesh.net.throttle import Budget, ThrottledStream
from furymesh.net.writing import LinkWriter
from furymesh.wire import codec
from furymesh.wire import messages as m
from furymesh.wire.records import HEADER_SIZE, OVERHEAD, Opening, Sealing, ciphertext_size
from furymesh.wire.session import Session

PING_SECONDS = 5.0  # between pings on a quiet link
IDLE_SECONDS = 30.0  # without a single record: the peer is gone
# Bytes wait and the peer takes none of them: it does not read, or is gone. In TCP
# that is five or more retries.
REFUSED_SECONDS = 10.0
GOODBYE_SECONDS = 0.5  # to get the last word out
CLOSE_DETAIL = 200  # characters of an explanation that travel in a Goodbye


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
        self.found = "incoming"  # how this end came to it, in one word; whoever dialled knows
        self.traffic = Traffic()
        self.hello: m.Hello | None = None
        self.relayed = False  # it leads through a relay, which `remote` then is
        self.socket: socket.socket | None = None  # below it, for who goes on with that alone
        self.closed_because: FuryMeshError | None = None
        self.farewell: m.Reason | None = None  # the reason of a Goodbye, either end's
        self._stream = stream
        self.sealing = sealing
        self.opening = opening
        self._reader = LinkReader(stream, session, opening, buffers, self.traffic)
        self._writer = LinkWriter(stream, sealing, buffers)
        self._closing = False
        self._leaving = trio.Event()
        self._last_said = LinkClosedError("said goodbye")

    @property
    def instance(self) -> bytes:
        return self.hello.instance if self.hello else b""

    @property
    def process(self) -> Process:
        """Whom it leads to."""
        return self.node_id, self.instance

    @property
    def machine(self) -> str:
        """The machine at the other end, as `same_machine` has it.

        Empty if the address says nothing of that: one of this host, or of a relay.
        """
        host = self.remote[0]
        return "" if self.relayed or is_loopback(host) else same_machine(host)

    @property
    def party(self) -> str:
        """Whose part of a limit it takes: its machine's or, if that is not known, its node's."""
        return self.machine or self.node_id.hex()

    @property
    def leaving(self) -> bool:
        """Whether the last word was said: what the peer says now changes nothing."""
        return self._closing or self._leaving.is_set()

    @property
    def heard_at(self) -> float:
        """When the last bytes came; look about once a second."""
        return self._reader.heard_at

    def charge(self, budget: Budget | None) -> None:
        """Hold what comes from now on to this budget too, if the stream is one with limits."""
        if isinstance(self._stream, ThrottledStream):
            self._stream.charge(budget)

    def divert(self) -> None:
        """Write nothing more of the piece that is arriving into the handler's memory."""
        self._reader.divert()

    def refused_for(self) -> float:
        """For how many seconds the peer has not taken a byte of those that wait for it."""
        return 0.0 if self._closing else self._stream.refused_for()

    def round_trip(self) -> float:
        """Seconds until the other end's acknowledgement; 0 if not known."""
        return self._stream.round_trip()

    def __repr__(self) -> str:
        arrow = "to" if self.initiator else "from"
        return f"<SecureLink {arrow} {node_id_text(self.node_id)[:8]} at {self.remote}>"

    # --- sending ------------------------------------------------------------------

    def send(self, message: m.Message, *, answer: bool = False) -> None:
        """Queue a control message; it overtakes chunk bytes that are not sealed yet.

        It is an `answer` if the peer can ask for as many as it likes: while too many of
        those wait, nothing more is read.
        """
        if self.leaving:
            return
        if not self._writer.queue(codec.encode(message), answer=answer):
            self.close(PeerError("the peer does not read what it is sent"))

    @property
    def owes_answers(self) -> bool:
        """Whether nothing more is to be read until the peer has taken some answers."""
        return self._writer.owes_answers

    async def answers_taken(self) -> None:
        """Return when more may be read."""
        await self._writer.answers_taken()

    def pong(self, nonce: int) -> None:
        """Answer a Ping, ahead of all else."""
        self._writer.pong(nonce)

    def poke(self) -> None:
        """Tell the writer that the handler has pieces to send."""
        self._writer.poke()

    def close(self, because: FuryMeshError | None = None) -> None:
        """End the link; `run` returns soon. The first reason given is kept."""
        if not self._closing:
            self._closing = True
            self.closed_because = self.closed_because or because
            self._stream.close()
            self._writer.close()

    def goodbye(self, reason: m.Reason, detail: str = "") -> None:
        """Say why, then close as soon as it is out, or after GOODBYE_SECONDS."""
        if not self.leaving:
            self.send(m.Goodbye(reason, detail[:CLOSE_DETAIL]))
            self.farewell = self.farewell or reason
            said = f"{reason.words} {detail}".strip()
            self._last_said = LinkClosedError(f"closed from this end ({said})")
            self._leaving.set()
            self._writer.end(self._last_said)

    # --- one message at a time, instead of running ---------------------------------

    async def say(self, message: m.Message) -> None:
        """Send one message now; raises LinkClosedError."""
        raw = codec.encode(message)
        record = memoryview(bytearray(len(raw) + OVERHEAD))
        self.sealing.seal_into(raw, record, 0)
        await self._stream.send_all(record)

    async def hear(self) -> m.Message:
        """Read one message and not one byte beyond; raises LinkClosedError, ProtocolError."""
        size = ciphertext_size(await receive_exactly(self._stream, HEADER_SIZE))
        return self.session.received(self.opening.open(await receive_exactly(self._stream, size)))

    # --- running ------------------------------------------------------------------

    async def run(self, handler: LinkHandler) -> None:
        """Serve the link until it ends; never raises for what a peer did.

        Why it ended is in `closed_because` afterwards.
        """
        try:
            async with trio.open_nursery() as nursery:
                reader = partial(self._reader.run, self, handler)
                writer = partial(self._writer.run, self, handler)
                for task in (reader, writer, self._keep_alive, self._leave_in_time):
                    nursery.start_soon(self._guard, task, nursery.cancel_scope)
        finally:
            self.close()

    async def _guard(self, task: Callable[[], Awaitable[None]], scope: trio.CancelScope) -> None:
        """Run one of the link's tasks; its end is the end of the link."""
        try:
            await task()
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
            while not self._writer.idle:
                await trio.sleep(GOODBYE_SECONDS / 10)

    async def _leave_in_time(self) -> None:
        """After a Goodbye a peer that does not read is not waited for."""
        await self._leaving.wait()
        await trio.sleep(GOODBYE_SECONDS)
        raise self._last_said

    # --- being there --------------------------------------------------------------

    async def _keep_alive(self) -> None:
        while True:
            await trio.sleep(PING_SECONDS)
            if self.refused_for() > REFUSED_SECONDS:
                raise LinkClosedError("the peer does not read what it is sent")
            silence = 0.0 if self._reader.held else trio.current_time() - self.heard_at
            if silence > IDLE_SECONDS:
                raise LinkClosedError(f"the peer said nothing for {IDLE_SECONDS:.0f} s")
            if silence > PING_SECONDS:
                self.send(m.Ping(0))
