"""Small swarms in one process: real sockets on loopback, real files, no waiting."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import trio

from furymesh.core.bitfield import mask_of
from furymesh.core.errors import FuryMeshError
from furymesh.core.geometry import Geometry
from furymesh.core.hashing import HashAlgorithm
from furymesh.core.ids import FileId
from furymesh.core.link import Address
from furymesh.core.manifest import Manifest
from furymesh.discovery.book import Source
from furymesh.net.connect import Endpoint, listen
from furymesh.net.handler import Piece
from furymesh.net.identity import load_or_create
from furymesh.net.outgoing import lend_port
from furymesh.net.secure_link import SecureLink
from furymesh.net.stream import TcpStream
from furymesh.storage.order import Order, Settings
from furymesh.swarm.download import Download, Terms
from furymesh.swarm.events import Event
from furymesh.swarm.share import Share
from furymesh.swarm.swarm import Swarm
from furymesh.wire import messages as m
from tests.waiting import until

CHUNK = 16 * 1024
PATIENCE = 10.0  # seconds; nothing here takes one


class Memory:
    """A chunk source in memory; `wrong` chunks come out spoiled."""

    def __init__(self, data: bytes, wrong: int = 0) -> None:
        self.data = data
        self.wrong = wrong
        self.closed = False

    def resident_read_into(self, chunk: int, start: int, view: memoryview) -> bool:
        at = chunk * CHUNK + start
        view[:] = self.data[at : at + len(view)]
        if self.wrong >> chunk & 1:
            view[0] ^= 1
        return True

    def read_into(self, chunk: int, start: int, view: memoryview) -> None:
        self.resident_read_into(chunk, start, view)

    def close(self) -> None:
        self.closed = True


def blob(chunks: int, seed: int = 1) -> bytes:
    """Bytes in which the last chunk is short."""
    return Random(seed).randbytes(chunks * CHUNK - 100)


def manifest_of(data: bytes) -> Manifest:
    """The manifest of these bytes as a single file."""
    geometry = Geometry(len(data), CHUNK)
    digests = b"".join(
        HashAlgorithm.BLAKE3.digest(data[at : at + CHUNK]) for at in range(0, len(data), CHUNK)
    )
    return Manifest.build(HashAlgorithm.BLAKE3, geometry, digests)


@dataclass
class Peer:
    """One node of the lab."""

    home: Path
    swarm: Swarm
    links: trio.Nursery
    events: list[Event] = field(default_factory=list)

    @property
    def address(self) -> Address:
        return Address("127.0.0.1", self.swarm.endpoint.listen_port)

    def serve(self, data: bytes, chunks: range | None = None, wrong: int = 0) -> Share:
        """Share these bytes, or only some chunks of them."""
        manifest = manifest_of(data)
        share = Share(self.swarm, manifest.file_id, name="data.bin")
        self.swarm.add(share)
        have = manifest.header.geometry.all_chunks if chunks is None else mask_of(chunks)
        share.serve(manifest, have, Memory(data, wrong))
        return share

    async def dial(self, other: Peer) -> SecureLink:
        """A running link to another peer."""
        link = await self.swarm.endpoint.dial(other.address)
        self.links.start_soon(self.swarm.run_link, link)
        return link

    def download(self, data: bytes, *sources: Peer, terms: Terms | None = None) -> Download:
        """A download of these bytes into this peer's home, not yet running."""
        manifest = manifest_of(data)
        order = Order(manifest.file_id, output=self.home / "out.bin")
        settings = Settings(self.home, self.home / "resume", self.home)
        for source in sources:
            self.swarm.book.add(manifest.file_id, source.address, Source.USER)
        return Download(
            self.swarm,
            order,
            settings,
            terms or Terms(timeout=PATIENCE),
            on_event=self.events.append,
        )


@asynccontextmanager
async def lab(place: Path, *names: str) -> AsyncIterator[list[Peer]]:
    """Peers that listen; everything ends with the block, which may not take long."""
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            peers = [await _start(nursery, place / name) for name in names]
            yield peers
            nursery.cancel_scope.cancel()


async def _start(nursery: trio.Nursery, home: Path) -> Peer:
    home.mkdir()
    endpoint = Endpoint(load_or_create(home))
    listeners = listen(Address("127.0.0.1", 0))
    lend_port(listeners)
    endpoint.listen_port = listeners[0].getsockname()[1]
    swarm = Swarm(endpoint, Random(7))

    async def serve() -> None:
        try:
            await endpoint.serve(listeners, swarm.run_link)
        finally:
            for sock in listeners:
                sock.close()

    nursery.start_soon(serve)
    nursery.start_soon(swarm.watch)
    return Peer(home, swarm, nursery)


@dataclass
class Deaf:
    """Joins one share, and at the first chunk reads nothing more until it `hears` again."""

    file_id: FileId
    hears: trio.Event = field(default_factory=trio.Event)

    def message(self, link: SecureLink, message: m.Message) -> None:
        if isinstance(message, m.Join):
            link.session.accept(message, self.file_id)

    def sink(self, link: SecureLink, data: m.Data) -> memoryview | None:
        return memoryview(bytearray(data.length)) if self.hears.is_set() else None

    async def room(self, link: SecureLink, data: m.Data) -> None:
        await self.hears.wait()

    def filled(self, link: SecureLink, data: m.Data) -> None:
        """Nothing is."""

    def departing(self, link: SecureLink) -> None:
        """Nothing to add."""

    def piece(self, link: SecureLink, room: int) -> Piece | None:
        return None

    def unreadable(self, link: SecureLink, piece: Piece, error: FuryMeshError) -> None:
        """Nothing is read."""


# --- links and shares between peers ---------------------------------------------------


def only_link(swarm: Swarm) -> SecureLink:
    (link,) = swarm.links.values()
    return link


def peer_of(peer: Peer, link: SecureLink) -> bool:
    """Whether a node has the other end of this link."""
    return any(other.remote[1] == _port(link) for other in peer.swarm.links.values())


def _port(link: SecureLink) -> int:
    stream = link._stream
    assert isinstance(stream, TcpStream)
    return int(stream._socket.getsockname()[1]) if stream._socket.fileno() >= 0 else 0


async def member(one: Peer, other: Peer) -> SecureLink:
    """A link from another peer on which a share is live."""
    data = blob(3)
    here = one.swarm.shares.get(manifest_of(data).file_id) or one.serve(data)
    members = len(here.members)
    link = await other.dial(one)
    await until(lambda: other.swarm.links)
    if manifest_of(data).file_id not in other.swarm.shares:
        await wanting(other, data)
    await until(lambda: len(here.members) > members)
    return link


async def wanting(peer: Peer, data: bytes) -> Share:
    """A share that this peer knows of and holds nothing of, joined on every link."""
    manifest = manifest_of(data)
    share = Share(peer.swarm, manifest.file_id)
    peer.swarm.add(share)
    share.serve(manifest, 0, None)
    for link in list(peer.swarm.links.values()):
        peer.swarm.joining.join(link, share)
    return share
