"""Peers that break their word: the product's own swarm with one thing wrong each."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import trio

from furymesh.core.bitfield import mask_of
from furymesh.core.ids import FileId
from furymesh.core.link import Address
from furymesh.core.manifest import Manifest
from furymesh.net.connect import Endpoint, listen
from furymesh.net.identity import load_or_create
from furymesh.net.secure_link import SecureLink
from furymesh.storage.manifests import ManifestStore
from furymesh.swarm.sending import ChunkPiece
from furymesh.swarm.share import Share
from furymesh.swarm.swarm import Swarm
from furymesh.wire import messages as m


class Noise:
    """A chunk source whose chunks are all wrong."""

    def resident_read_into(self, chunk: int, start: int, view: memoryview) -> bool:
        view[:] = b"\x5a" * len(view)
        return True

    def read_into(self, chunk: int, start: int, view: memoryview) -> None:
        self.resident_read_into(chunk, start, view)

    def close(self) -> None:
        """Nothing is open."""


class Poisoner(Swarm):
    """Sends what was never shared."""


class Mute(Swarm):
    """Announces every chunk and sends none."""

    def piece(self, link: SecureLink, room: int) -> ChunkPiece | None:
        return None


class Denier(Swarm):
    """Announces every chunk and turns every request down."""

    def message(self, link: SecureLink, message: m.Message) -> None:
        if isinstance(message, m.Request):
            share = next(iter(self.shares.values()))
            number = link.session.number(share.file_id)
            link.send(m.Reject(number, message.chunks, m.Reason.BUSY))
        else:
            super().message(link, message)


class Babbler(Swarm):
    """Answers requests with frames that mean nothing."""

    def message(self, link: SecureLink, message: m.Message) -> None:
        if isinstance(message, m.Request):
            link._writer.queue(b"\xff\xfe\xfd" * 30)
        else:
            super().message(link, message)


class Boaster(Swarm):
    """Announces chunks that no such share has."""

    def message(self, link: SecureLink, message: m.Message) -> None:
        if isinstance(message, m.Request):
            share = next(iter(self.shares.values()))
            link.send(m.Have(link.session.number(share.file_id), (10**6,)))
        else:
            super().message(link, message)


class Forger(Swarm):
    """Offers a manifest of its own."""

    def message(self, link: SecureLink, message: m.Message) -> None:
        if isinstance(message, m.GetManifest):
            share = next(iter(self.shares.values()))
            assert share.manifest is not None
            forged = bytearray(share.manifest.header_bytes)
            forged[-1] ^= 1
            number = link.session.number(share.file_id)
            link.send(m.ManifestHeader(number, bytes(forged), "../../etc/passwd", True))
        else:
            super().message(link, message)


class Pusher(Swarm):
    """Sends chunks that nobody asked it for."""

    def message(self, link: SecureLink, message: m.Message) -> None:
        if isinstance(message, m.Request):
            asked = mask_of(message.chunks)
            other = next(chunk for chunk in range(10**6) if not asked >> chunk & 1)
            message = m.Request(message.share, (other,))
        super().message(link, message)


@contextmanager
def lying(home: Path, file_id: FileId, kind: type[Swarm], manifests: Path) -> Iterator[str]:
    """Run a liar in a thread; its address. `manifests` is the data directory of a sharer."""
    manifest = ManifestStore(manifests).load(file_id)
    assert manifest is not None
    liar = _Liar(home, manifest, kind)
    thread = threading.Thread(target=trio.run, args=(liar.run,))
    thread.start()
    try:
        assert liar.ready.wait(10)
        yield liar.address
    finally:
        liar.stop()
        thread.join(10)


class _Liar:
    def __init__(self, home: Path, manifest: Manifest, kind: type[Swarm]) -> None:
        self.ready = threading.Event()
        self.address = ""
        self._home = home
        self._manifest = manifest
        self._kind = kind
        self._scope = trio.CancelScope()
        self._token: trio.lowlevel.TrioToken | None = None

    async def run(self) -> None:
        endpoint = Endpoint(load_or_create(self._home))
        listeners = listen(Address("127.0.0.1", 0))
        endpoint.listen_port = listeners[0].getsockname()[1]
        swarm = self._kind(endpoint, Random(0))
        share = Share(swarm, self._manifest.file_id)
        swarm.add(share)
        share.serve(self._manifest, self._manifest.header.geometry.all_chunks, Noise())
        self.address = f"127.0.0.1:{endpoint.listen_port}"
        self._token = trio.lowlevel.current_trio_token()
        self.ready.set()
        try:
            with self._scope:
                await endpoint.serve(listeners, swarm.run_link)
        finally:
            for sock in listeners:
                sock.close()

    def stop(self) -> None:
        if self._token is not None:
            self._token.run_sync_soon(self._scope.cancel)
