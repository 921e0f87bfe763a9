"""Dialling and listening: from an address or a socket to a secure link.

`Endpoint` holds what every link of a node needs: the identity, the rules of
whom to talk to, the shared buffers and budgets. A link is handed out only
after the Noise handshake, the identity check and both Hellos; before that a
stranger costs one task, a few hundred bytes and at most HANDSHAKE_SECONDS.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import trio
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from furymesh import __version__
from furymesh.core.errors import (
    EnvironmentFault,
    FuryMeshError,
    HandshakeError,
    LinkClosedError,
    UnavailableError,
)
from furymesh.core.ids import INSTANCE_SIZE, NodeId, Process, node_id_text
from furymesh.core.link import Address
from furymesh.net.addresses import may_be_mapped, packed_ip
from furymesh.net.buffers import Buffers
from furymesh.net.identity import Identity
from furymesh.net.outgoing import connect
from furymesh.net.resolving import resolved
from furymesh.net.secure_link import SecureLink
from furymesh.net.strangers import Strangers
from furymesh.net.stream import ByteStream, TcpStream, receive_exactly
from furymesh.net.throttle import Budget, ThrottledStream
from furymesh.wire import codec
from furymesh.wire import messages as m
from furymesh.wire.authentication import (
    LENGTH_SIZE,
    PROLOGUE,
    check_payload,
    frame_message,
    make_payload,
    message_size,
)
from furymesh.wire.noise import Handshake
from furymesh.wire.records import HEADER_SIZE, OVERHEAD, Opening, Sealing, ciphertext_size
from furymesh.wire.session import MIN_PROTOCOL_VERSION, PROTOCOL_VERSION, Session

HANDSHAKE_SECONDS = 10.0  # three messages and two Hellos; a trickling stranger is dropped
# For the other end to begin, if it dialled too: its first bytes take half a round trip
# from the moment that it was connected, and its process may be busy.
TURN_SECONDS = 0.3
TURN_ROUND_TRIPS = 3
BACKLOG = 128
MAX_LOOKUPS = 8  # names at once; a download dials five places
ACCEPT_PAUSE = 0.1  # seconds to wait when the process is out of descriptors

_OUT_OF_RESOURCES = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


@dataclass(slots=True)
class Endpoint:
    """What this node shows and demands when a link is made."""

    identity: Identity
    buffers: Buffers = field(default_factory=Buffers)
    instance: bytes = field(default_factory=lambda: os.urandom(INSTANCE_SIZE))
    allow: frozenset[NodeId] | None = None  # None: everybody
    psk: bytes | None = None
    upload: list[Budget] = field(default_factory=list)
    download: list[Budget] = field(default_factory=list)
    listen_port: int = 0
    public_port: int = 0  # that a router forwards to it, 0 for none
    features: tuple[str, ...] = ()  # offered to whoever dials this process
    name_threads: trio.CapacityLimiter = field(
        default_factory=lambda: trio.CapacityLimiter(MAX_LOOKUPS)
    )
    noise_key: X25519PrivateKey = field(default_factory=X25519PrivateKey.generate)

    @property
    def private(self) -> bool:
        """Whether it takes part in a private swarm: one with a pre-shared key or an allow-list."""
        return self.psk is not None or self.allow is not None

    @property
    def process(self) -> Process:
        """Whom a link to here leads to."""
        return self.identity.node_id, self.instance

    async def establish(
        self,
        sock: socket.socket,
        remote: tuple[str, int],
        *,
        initiator: bool,
        expected: NodeId | None = None,
        features: tuple[str, ...] = (),
        relayed: bool = False,
    ) -> SecureLink:
        """Make a connected socket a link; closes the socket on any failure.

        `features` are what this link is for, besides what is offered. A `relayed` one leads
        through a relay, which is what `remote` is then.

        Raises HandshakeError (wrong or unwelcome identity, bad messages) or
        LinkClosedError.
        """
        tcp = TcpStream(sock)
        try:
            with trio.fail_after(HANDSHAKE_SECONDS):
                link = await self._handshake(tcp, remote, initiator, expected)
                link.socket, link.relayed = sock, relayed
                offered = () if initiator else self.features
                hello = self._hello(None if relayed else remote, (*offered, *features))
                await _exchange_hello(tcp, link, hello)
                return link
        except trio.TooSlowError:
            tcp.close()
            raise HandshakeError("the handshake took too long") from None
        except BaseException:
            tcp.close()
            raise

    async def _handshake(
        self, tcp: TcpStream, remote: tuple[str, int], initiator: bool, expected: NodeId | None
    ) -> SecureLink:
        noise = Handshake(
            initiator=initiator,
            static=self.noise_key,
            prologue=PROLOGUE,
            psk=self.psk,
            ephemeral=X25519PrivateKey.generate(),
        )
        mine = make_payload(self.identity.private, self.noise_key.public_key().public_bytes_raw())
        if initiator:
            await _send(tcp, noise.write_message(b""))
            payload = await _receive(tcp, noise)
            node_id = check_payload(payload, noise.remote_static, expected=expected)
            self._check_allowed(node_id)
            await _send(tcp, noise.write_message(mine))
        else:
            if await _receive(tcp, noise):
                raise HandshakeError("the first handshake message carries a payload")
            await _send(tcp, noise.write_message(mine))
            payload = await _receive(tcp, noise)
            node_id = check_payload(payload, noise.remote_static, expected=expected)
            self._check_allowed(node_id)
        send_key, receive_key = noise.split()
        stream: ByteStream = tcp
        if self.upload or self.download:
            stream = ThrottledStream(tcp, upload=self.upload, download=self.download)
        return SecureLink(
            stream,
            Session(initiator=initiator, handshake_hash=noise.handshake_hash),
            Sealing(send_key),
            Opening(receive_key),
            self.buffers,
            node_id=node_id,
            remote=remote,
            initiator=initiator,
        )

    def _check_allowed(self, node_id: NodeId) -> None:
        if self.allow is not None and node_id not in self.allow:
            raise HandshakeError(f"node {node_id_text(node_id)} is not on the allow-list")

    def _hello(self, remote: tuple[str, int] | None, features: tuple[str, ...] = ()) -> m.Hello:
        return m.Hello(
            version=PROTOCOL_VERSION,
            min_version=MIN_PROTOCOL_VERSION,
            instance=self.instance,
            listen_port=self._port_for(remote[0]) if remote else self.listen_port,
            agent=f"furymesh/{__version__}",
            features=features,
            observed_ip=packed_ip(remote[0]) if remote else b"",
            observed_port=remote[1] if remote else 0,
        )

    def _port_for(self, host: str) -> int:
        """Where `host`, and whom it tells, can dial this process."""
        return (self.public_port if may_be_mapped(host) else 0) or self.listen_port

    # --- dialling -----------------------------------------------------------------

    async def dial(
        self, address: Address, *, features: tuple[str, ...] = (), local_port: int | None = None
    ) -> SecureLink:
        """Connect to an address, its name resolved and what came of it tried in turn.

        From `local_port` if given, see `connect`. Raises UnavailableError when nobody
        answers, HandshakeError when the wrong node does.
        """
        failure = UnavailableError("nobody answers")
        for host in await resolved(address, self.name_threads):
            remote = host, address.port
            try:
                sock = await connect(remote, local_port=local_port)
            except UnavailableError as error:
                failure = error
                continue
            return await self.establish(
                sock, remote, initiator=True, expected=address.node_id, features=features
            )
        raise failure

    async def meet(self, sock: socket.socket, remote: tuple[str, int], them: Process) -> SecureLink:
        """Make a link of a connection to a process that was dialling this one as well.

        Whether the other end accepted it or dialled it too, by TCP's simultaneous open,
        cannot be told. So the smaller (node id, instance) begins the handshake, and the
        other end only if nothing comes. Closes the socket on any failure; raises as
        `establish`.
        """
        begins = self.process < them
        try:
            if not begins:
                turn = max(TURN_SECONDS, TURN_ROUND_TRIPS * TcpStream(sock).round_trip())
                with trio.move_on_after(turn) as waited:
                    await trio.lowlevel.wait_readable(sock)
                begins = waited.cancelled_caught
        except BaseException:
            sock.close()
            raise
        return await self.establish(sock, remote, initiator=begins, expected=them[0])

    # --- listening ----------------------------------------------------------------

    async def serve(
        self, listeners: list[socket.socket], handler: Callable[[SecureLink], Awaitable[None]]
    ) -> None:
        """Accept links for ever; `handler` runs in a task of its own for each."""
        strangers = Strangers()
        async with trio.open_nursery() as nursery:
            for listener in listeners:
                nursery.start_soon(self._accept, listener, handler, nursery, strangers)

    async def _accept(
        self,
        listener: socket.socket,
        handler: Callable[[SecureLink], Awaitable[None]],
        nursery: trio.Nursery,
        strangers: Strangers,
    ) -> None:
        while True:
            await trio.lowlevel.wait_readable(listener)
            try:
                sock, address = listener.accept()
            except BlockingIOError:
                continue
            except OSError as error:
                if error.errno in _OUT_OF_RESOURCES:
                    await trio.sleep(ACCEPT_PAUSE)
                continue
            remote = (str(address[0]), int(address[1]))
            nursery.start_soon(self._welcome, sock, remote, handler, strangers)

    async def _welcome(
        self,
        sock: socket.socket,
        remote: tuple[str, int],
        handler: Callable[[SecureLink], Awaitable[None]],
        strangers: Strangers,
    ) -> None:
        link = None
        with strangers.place(remote[0]):
            try:
                link = await self.establish(sock, remote, initiator=False)
            except FuryMeshError:
                return  # a stranger's failure is the stranger's business
        if link is not None:
            await handler(link)


def listen(address: Address) -> list[socket.socket]:
    """Open listening sockets; port 0 takes any free one, the same for all families.

    `[::]` is every address of this machine, IPv4 ones as well; `0.0.0.0` is IPv4 only.
    Raises EnvironmentFault when the port is taken or the address is not ours.
    """
    sockets: list[socket.socket] = []
    port = address.port
    host = None if address.host == "::" else address.host  # None: of both families
    try:
        for family, _, _, _, target in socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        ):
            sock = socket.socket(family, socket.SOCK_STREAM)
            sockets.append(sock)
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind((target[0], port, *target[2:]))
            sock.listen(BACKLOG)
            port = sock.getsockname()[1]
    except OSError as error:
        for sock in sockets:
            sock.close()
        if error.errno == errno.EADDRINUSE:
            reason = "the port is taken; choose another, or 0 for any free one"
        elif error.errno == errno.EADDRNOTAVAIL:
            reason = "that is no address of this machine; 0.0.0.0 is all that it has"
        elif error.errno == errno.EACCES:
            reason = "the system keeps this port for itself; choose one above 1023"
        else:
            reason = error.strerror or str(error)
        raise EnvironmentFault(f"cannot listen on {address}: {reason}") from None
    return sockets


async def _send(tcp: TcpStream, message: bytes) -> None:
    await tcp.send_all(memoryview(frame_message(message)))


async def _receive(tcp: TcpStream, noise: Handshake) -> bytes:
    size = message_size(await receive_exactly(tcp, LENGTH_SIZE))
    return noise.read_message(await receive_exactly(tcp, size))


async def _exchange_hello(tcp: TcpStream, link: SecureLink, mine: m.Hello) -> None:
    """Send our Hello and read theirs; not one byte beyond it is taken."""
    raw = codec.encode(mine)
    record = memoryview(bytearray(len(raw) + OVERHEAD))
    link.sealing.seal_into(raw, record, 0)
    await tcp.send_all(record)
    size = ciphertext_size(await receive_exactly(tcp, HEADER_SIZE))
    hello = link.session.received(link.opening.open(await receive_exactly(tcp, size)))
    if not isinstance(hello, m.Hello):
        raise LinkClosedError("the peer said goodbye at once")
    link.hello = hello
