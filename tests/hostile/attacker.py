"""The other end of a link, under full control: any bytes in any state, any number of links."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import trio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from furymesh.core.errors import FuryMeshError, LinkClosedError
from furymesh.core.ids import FileId
from furymesh.core.link import Address
from furymesh.net.connect import HANDSHAKE_SECONDS, Endpoint, _exchange_hello, listen
from furymesh.net.identity import Identity
from furymesh.net.secure_link import SecureLink
from furymesh.net.stream import TcpStream, receive_exactly
from furymesh.wire import codec
from furymesh.wire import messages as m
from furymesh.wire.authentication import PROLOGUE
from furymesh.wire.noise import Handshake
from furymesh.wire.records import HEADER_SIZE, OVERHEAD, ciphertext_size

ANSWER_SECONDS = 10.0  # for anything that a node does at once


def new_identity() -> Identity:
    return Identity(Ed25519PrivateKey.generate())


def new_endpoint() -> Endpoint:
    """A node of its own, never seen before."""
    return Endpoint(new_identity())


def new_handshake(
    static: X25519PrivateKey, *, initiator: bool = True, psk: bytes | None = None
) -> Handshake:
    """One end of a handshake, to be spoken message by message."""
    return Handshake(
        initiator=initiator,
        static=static,
        prologue=PROLOGUE,
        psk=psk,
        ephemeral=X25519PrivateKey.generate(),
    )


async def connect(address: Address, source: str = "", *, room: int = 0) -> socket.socket:
    """A plain connection, from another address of this machine if `source` names one.

    `room` is how many bytes the kernel takes for who does not read; 0 for as many as it likes.
    """
    sock = socket.socket()
    try:
        if room:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)
        sock.setblocking(False)
        if source:
            sock.bind((source, 0))
        sock.connect_ex((address.host, address.port))
        with trio.fail_after(ANSWER_SECONDS):
            await trio.lowlevel.wait_writable(sock)
    except BaseException:
        sock.close()
        raise
    return sock


def reset(sock: socket.socket) -> None:
    """Close with RST instead of FIN: what a machine that lost its power looks like later."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


class Wire:
    """A link whose handshake is done, spoken record by record."""

    def __init__(self, link: SecureLink, tcp: TcpStream) -> None:
        self.link = link
        self.tcp = tcp

    async def send(self, raw: bytes) -> None:
        """Seal and send these bytes as one record, whatever they are."""
        out = memoryview(bytearray(len(raw) + OVERHEAD))
        self.link.sealing.seal_into(raw, out, 0)
        await self.tcp.send_all(out)

    async def say(self, message: m.Message) -> None:
        await self.send(codec.encode(message))

    async def record(self) -> bytes:
        """The next record, opened; raises LinkClosedError at the end."""
        size = ciphertext_size(await receive_exactly(self.tcp, HEADER_SIZE))
        return self.link.opening.open(await receive_exactly(self.tcp, size))

    async def hear(self) -> m.Message:
        """The next message; chunk bytes are passed over."""
        message = codec.decode(await self.record())
        if isinstance(message, m.Data):
            left = message.length
            while left:
                left -= len(await self.record())
        return message

    async def await_message(self, *kinds: type) -> m.Message:
        """Read on until a message of one of these kinds comes."""
        with trio.fail_after(ANSWER_SECONDS):
            while True:
                message = await self.hear()
                if isinstance(message, kinds):
                    return message

    async def answers(self) -> bool:
        """Whether the link lives: a Ping is answered, rather than the link closed.

        Raises trio.TooSlowError if it is neither.
        """
        nonce = int.from_bytes(os.urandom(4), "big") | 1
        try:
            await self.say(m.Ping(nonce))
            with trio.fail_after(ANSWER_SECONDS):
                while await self.hear() != m.Pong(nonce):
                    pass
        except LinkClosedError:
            return False
        return True

    async def join(self, file_id: FileId) -> int:
        """Make a share live; our number for it."""
        message = self.link.session.join(file_id)
        await self.say(message)
        answer = await self.await_message(m.Join, m.Refuse)
        assert isinstance(answer, m.Join), answer
        return message.share

    def close(self) -> None:
        self.tcp.close()


@asynccontextmanager
async def wire(
    address: Address,
    endpoint: Endpoint | None = None,
    *,
    hello: bool = True,
    source: str = "",
    room: int = 0,
) -> AsyncIterator[Wire]:
    """Dial, and shake hands; without `hello` not one control record was sent."""
    endpoint = endpoint or new_endpoint()
    tcp = TcpStream(await connect(address, source, room=room))
    try:
        remote = (address.host, address.port)
        with trio.fail_after(HANDSHAKE_SECONDS):
            link = await endpoint._handshake(tcp, remote, True, address.node_id)
            if hello:
                await _exchange_hello(tcp, link, endpoint._hello(remote))
        yield Wire(link, tcp)
    finally:
        tcp.close()


@asynccontextmanager
async def listening(
    endpoint: Endpoint, take: Callable[[SecureLink], Awaitable[None]]
) -> AsyncIterator[Address]:
    """Let others dial an endpoint on a free port; what it does with their links is `take`."""
    listeners = listen(Address("127.0.0.1", 0))
    endpoint.listen_port = listeners[0].getsockname()[1]
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(endpoint.serve, listeners, take)
            yield Address("127.0.0.1", endpoint.listen_port)
            nursery.cancel_scope.cancel()
    finally:
        for sock in listeners:
            sock.close()


@asynccontextmanager
async def witness(address: Address, file_id: FileId) -> AsyncIterator[None]:
    """An honest member of a share for as long as the block takes; it must not be cut off."""
    async with wire(address) as link, trio.open_nursery() as nursery:
        await link.join(file_id)
        ended: list[FuryMeshError] = []

        async def live() -> None:
            try:
                while True:
                    message = await link.hear()
                    if isinstance(message, m.Ping):
                        await link.say(m.Pong(message.nonce))
            except FuryMeshError as error:
                ended.append(error)

        nursery.start_soon(live)
        yield
        assert not ended, f"an honest link was closed: {ended[0]}"
        nursery.cancel_scope.cancel()
