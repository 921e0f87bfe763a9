"""A server and clients of folder sync in one process, over real links on loopback."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, TypeVar

import trio

from furymesh.core.ids import NodeId
from furymesh.core.link import Address
from furymesh.net.connect import Endpoint
from furymesh.net.identity import load_or_create
from furymesh.net.secure_link import SecureLink
from furymesh.node.config import Config
from furymesh.node.sync import Serving, push_folder, serve_sync
from furymesh.sync.events import ClientEvent, Report, ServerEvent
from furymesh.sync.names import LOCK_NAME, LOG_NAME
from furymesh.sync.pushing import Terms
from furymesh.wire import messages as m
from furymesh.wire.exchange import SYNC, Exchange
from furymesh.wire.records import OVERHEAD
from furymesh.wire.sync_codec import DIGEST_SIZE
from tests.apart import apart

E = TypeVar("E")
TIMEOUT = 20.0  # seconds for any one step
RATE = 3600  # seconds: nobody comes again by itself


def config(data_dir: Path) -> Config:
    """Nobody is looked for, and nobody is found."""
    return apart({"data_dir": data_dir})


@dataclass
class Server:
    """One that listens, and what it has told."""

    node_id: NodeId
    address: Address
    events: list[ServerEvent]

    def of(self, kind: type[E]) -> list[E]:
        return [event for event in self.events if isinstance(event, kind)]


@dataclass
class Lab:
    """The folders of one test."""

    root: Path
    events: list[ClientEvent] = field(default_factory=list)

    @property
    def archive(self) -> Path:
        """Where the server keeps the folders of its clients."""
        return self.root / "archive"

    @asynccontextmanager
    async def server(
        self, home: str = "server", port: int = 0, sessions: int = 1, **options: Any
    ) -> AsyncIterator[Server]:
        events: list[ServerEvent] = []
        options = {"rate": RATE, "allow": (), **options}
        async with trio.open_nursery() as nursery:

            async def run(task_status: trio.TaskStatus[Serving]) -> None:
                await serve_sync(
                    config(self.root / home),
                    self.archive,
                    where=Address("127.0.0.1", port),
                    sessions=sessions,
                    on_event=events.append,
                    task_status=task_status,
                    **options,
                )

            serving: Serving = await nursery.start(run)
            yield Server(serving.node_id, Address.parse(serving.addresses[0]), events)
            nursery.cancel_scope.cancel()

    async def push(
        self,
        server: Server | Address,
        folder: Path,
        client_id: str = "laptop",
        *,
        home: str = "client",
        on_event: Callable[[ClientEvent], None] | None = None,
        max_upload: float | None = None,
        **terms: Any,
    ) -> Report:
        address = server.address if isinstance(server, Server) else server
        terms = {"once": True, "timeout": TIMEOUT, "lan": False, **terms}
        with trio.fail_after(3 * TIMEOUT):
            return await push_folder(
                config(self.root / home),
                Terms(folder, client_id, address, **terms),
                on_event=on_event or self.events.append,
                max_upload=max_upload,
            )

    @asynccontextmanager
    async def raw(
        self, server: Server, home: str = "client", feature: str = SYNC
    ) -> AsyncIterator[Raw]:
        """A link to a server, for whoever wants to misbehave on it."""
        identity = await trio.to_thread.run_sync(load_or_create, self.root / home)
        link = await Endpoint(identity).dial(server.address, features=(feature,))
        try:
            yield Raw(link)
        finally:
            link.close()


class Raw:
    """The client's end of a link, one message at a time."""

    def __init__(self, link: SecureLink) -> None:
        self._link = link
        self._exchange = link.session.exchange = Exchange(client=True)

    async def say(self, message: m.SyncMessage, content: bytes = b"") -> None:
        """Send a message, and the bytes that it announces."""
        self._exchange.sent(message)
        await self._link.say(message)
        if content:
            record = memoryview(bytearray(len(content) + OVERHEAD))
            self._link.sealing.seal_into(content, record, 0)
            await self._link._stream.send_all(record)

    async def hear(self) -> m.Message:
        return await self._link.hear()

    async def begin(self, client_id: str) -> None:
        """Identify, and wait for the turn."""
        await self.say(m.Identify(client_id))
        assert await self.hear() == m.Ready()


def tree(root: Path, seed: int, files: int = 30, largest: int = 30_000) -> Path:
    """A folder of files of many sizes, some empty, some in folders of their own."""
    rng = Random(seed)
    for number in range(files):
        path = root.joinpath(*(f"d{rng.randrange(3)}" for _ in range(rng.randrange(3))))
        path.mkdir(parents=True, exist_ok=True)
        size = rng.choice((0, 1, rng.randrange(largest), largest))
        file = path / f"{number}.bin"
        file.write_bytes(rng.randbytes(size))
        file.chmod(rng.choice((0o644, 0o755, 0o600)))
        time = rng.randrange(10**9, 17 * 10**8) * 10**9 + rng.randrange(10**9)
        os.utime(file, ns=(time, time))
    return root


def contents(root: Path) -> dict[str, tuple[bytes, int, int]]:
    """Bytes, time and mode of every file that is not the sync's own."""
    found = {}
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        if path.is_file() and not name.startswith((".furymesh-", LOCK_NAME, LOG_NAME)):
            status = path.stat()
            found[name] = path.read_bytes(), status.st_mtime_ns, status.st_mode & 0o777
    return found


def announced(*files: tuple[str, int], last: bool = True) -> m.ArchiveInfo:
    """Files of these paths and sizes, without digests."""
    count = len(files)
    paths, sizes = zip(*files, strict=True) if files else ((), ())
    return m.ArchiveInfo(
        paths, sizes, (0,) * count, (0o644,) * count, bytes(DIGEST_SIZE * count), last
    )
