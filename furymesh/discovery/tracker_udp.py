"""Announcing over UDP."""

from __future__ import annotations

import errno
import os
from random import Random

import trio

from furymesh.core.errors import UnavailableError
from furymesh.core.link import Tracker
from furymesh.net.addresses import family_of
from furymesh.wire import tracker_udp as packets
from furymesh.wire.tracker import Announce, Answer, Refusal


class UdpAsker:
    """Asks one tracker over UDP.

    Always true: `_connection` is an id that came to `_socket`, and neither outlives
    a round without an answer: the tracker may have been restarted. Both last from one
    `close` to the next.
    """

    def __init__(self, tracker: Tracker, rng: Random) -> None:
        self._port = tracker.address.port
        self._rng = rng
        self._socket: trio.socket.SocketType | None = None
        self._connection: int | None = None
        self._expires = 0.0

    def close(self) -> None:
        """Keep nothing open; it may be asked again."""
        if self._socket is not None:
            self._socket.close()
        self._socket = self._connection = None

    async def ask(self, ip: str, announce: Announce) -> Answer | Refusal:
        """Announce to the tracker at `ip`; raises UnavailableError or ProtocolError."""
        done = False
        try:
            for wait in packets.RETRANSMIT_SECONDS:
                with trio.move_on_after(wait):
                    told = await self._round(ip, announce)
                    done = isinstance(told, Answer)
                    return told
                self.close()
        except OSError as error:
            code = error.errno or errno.EIO
            raise UnavailableError(f"no connection: {os.strerror(code).lower()}") from None
        finally:
            if not done:
                self.close()
        seconds = sum(packets.RETRANSMIT_SECONDS)
        raise UnavailableError(f"no answer within {seconds:g} s")

    async def _round(self, ip: str, announce: Announce) -> Answer | Refusal:
        """Connect if need be, and announce; with a new id if the tracker refuses the old one."""
        if self._connection is not None and trio.current_time() < self._expires:
            told = await self._announce(ip, self._connection, announce)
            if isinstance(told, Answer):
                return told
        connection = await self._connect(ip)
        if isinstance(connection, Refusal):
            return connection
        return await self._announce(ip, connection, announce)

    async def _connect(self, ip: str) -> int | Refusal:
        transaction = self._rng.getrandbits(32)
        packet = await self._exchange(ip, packets.connect_request(transaction), transaction)
        connection = packets.parse_connected(packet)
        if not isinstance(connection, Refusal):
            self._connection = connection
            self._expires = trio.current_time() + packets.CONNECTION_SECONDS
        return connection

    async def _announce(self, ip: str, connection: int, announce: Announce) -> Answer | Refusal:
        transaction = self._rng.getrandbits(32)
        question = packets.announce_request(connection, transaction, announce)
        packet = await self._exchange(ip, question, transaction)
        return packets.parse_announced(packet, ip_size=16 if ":" in ip else 4)

    async def _exchange(self, ip: str, question: bytes, transaction: int) -> bytes:
        """Send a packet and return its answer; other packets are passed over."""
        if self._socket is None:
            self._socket = trio.socket.socket(family_of(ip), trio.socket.SOCK_DGRAM)
            await self._socket.connect((ip, self._port))
        await self._socket.send(question)
        while True:
            packet = await self._socket.recv(packets.MAX_PACKET + 1)
            if packets.is_answer(packet, transaction):
                return packet
