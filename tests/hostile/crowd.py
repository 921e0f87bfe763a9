"""Peers of one swarm in one thread: honest ones, and ones that poison.

They are the product's own swarm over real sockets; a poisoner differs in what it
reads its chunks from, and in coming back.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import trio

from furymesh.core.errors import EnvironmentFault, FuryMeshError, LinkClosedError
from furymesh.core.ids import NodeId
from furymesh.core.link import Address
from furymesh.core.manifest import Manifest
from furymesh.net.connect import Endpoint
from furymesh.net.secure_link import SecureLink
from furymesh.net.stream import ByteStream
from furymesh.swarm.share import Share
from furymesh.swarm.swarm import Swarm
from tests.beside import beside
from tests.hostile.attacker import connect, listening, new_endpoint
from tests.waiting import until

BACK_SECONDS = 0.05  # before one that was cut off comes again
TRICKLE = 64 * 1024  # bytes; what is longer has a piece of a chunk in it


@dataclass(slots=True)
class Content:
    """The bytes of a file, but for one byte in each piece of the chunks that `lie` says."""

    path: Path
    chunk_size: int
    lie: Callable[[int], bool] = lambda chunk: False
    absent: bool = False  # nothing of what is announced can be read
    asked: bool = False
    sent_bad: list[int] = field(default_factory=list)  # chunks, one entry each time
    sent_good: list[int] = field(default_factory=list)

    def resident_read_into(self, chunk: int, start: int, view: memoryview) -> bool:
        self.asked = True
        if self.absent:
            raise EnvironmentFault("it was never here")
        with self.path.open("rb") as file:
            file.seek(chunk * self.chunk_size + start)
            file.readinto(view)
        lies = self.lie(chunk)
        if lies:
            view[0] ^= 1
        if not start:
            (self.sent_bad if lies else self.sent_good).append(chunk)
        return True

    def read_into(self, chunk: int, start: int, view: memoryview) -> None:
        self.resident_read_into(chunk, start, view)

    def close(self) -> None:
        """Nothing stays open."""


class Dawdler:
    """A stream that stops in the middle of a piece, for good."""

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    async def send_all(self, view: memoryview) -> None:
        if len(view) <= TRICKLE:
            return await self._stream.send_all(view)
        await self._stream.send_all(view[: len(view) // 2])
        await self.stop()

    async def stop(self) -> None:
        await trio.sleep_forever()


class Vanisher(Dawdler):
    """A stream that breaks in the middle of a piece."""

    async def stop(self) -> None:
        self._stream.close()
        raise LinkClosedError("gone")


@dataclass(eq=False)
class Peer:
    """One peer of the crowd."""

    swarm: Swarm
    content: Content
    address: str = ""
    returns: bool = False  # comes again from another address whenever it is cut off
    met: set[Address] = field(default_factory=set)  # where those listen that dialled it
    wrap: Callable[[ByteStream], ByteStream] = lambda stream: stream  # each link's stream

    @property
    def node_id(self) -> NodeId:
        return self.swarm.endpoint.identity.node_id

    async def run(
        self, manifest: Manifest, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        share = Share(self.swarm, manifest.file_id)
        self.swarm.add(share)
        share.serve(manifest, manifest.header.geometry.all_chunks, self.content)
        async with (
            trio.open_nursery() as nursery,
            listening(self.swarm.endpoint, partial(self._take, nursery)) as address,
        ):
            self.address = str(address)
            task_status.started()
            await trio.sleep_forever()

    async def _take(self, nursery: trio.Nursery, link: SecureLink) -> None:
        if link.hello is not None and link.hello.listen_port:
            victim = Address(link.remote[0], link.hello.listen_port)
            if self.returns and victim not in self.met:
                nursery.start_soon(self._come_back, victim)
            self.met.add(victim)
        link._writer._stream = self.wrap(link._writer._stream)
        await self.swarm.run_link(link)

    async def _come_back(self, victim: Address) -> None:
        for number in range(2, 250):
            await until(lambda: not self.swarm.links, math.inf)
            with suppress(FuryMeshError, OSError, trio.TooSlowError):
                await self.visit(victim, f"127.0.0.{number}")
            await trio.sleep(BACK_SECONDS)

    async def visit(self, victim: Address, source: str = "") -> None:
        """Dial somebody, join the share, and stay until cut off."""
        sock = await connect(victim, source)
        remote = (victim.host, victim.port)
        link = await self.swarm.endpoint.establish(sock, remote, initiator=True)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.swarm.run_link, link)
            await trio.lowlevel.checkpoint()
            for share in self.swarm.shares.values():
                if not link.leaving:
                    self.swarm.joining.join(link, share)


def crowd(manifest: Manifest, peers: list[Peer]) -> AbstractContextManager[None]:
    """Run the peers in a thread; every address is known when the block begins."""

    async def run(task_status: trio.TaskStatus[None]) -> None:
        async with trio.open_nursery() as nursery:
            for peer in peers:
                await nursery.start(peer.run, manifest)
            task_status.started()

    return beside(run)


def new_peer(content: Content, *, endpoint: Endpoint | None = None, returns: bool = False) -> Peer:
    """A peer of an identity of its own, unless `endpoint` says otherwise."""
    return Peer(Swarm(endpoint or new_endpoint(), Random(0)), content, returns=returns)
