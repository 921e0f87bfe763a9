"""Fixtures of the SFTP tests: each kind of server, each face of the library, and files."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
import trio

from furymesh.sftp import AsyncConnection, Connection, Transferred
from tests.e2e.conftest import small_disk as small_disk
from tests.sftp.servers import KINDS, Server, serving

SEED = int(os.environ.get("FURYMESH_SFTP_SEED", "1"))
LONG_AGO = 1_000_000_000  # seconds; a source that nobody has changed lately


EVERY_PAIR = "test_transfers"  # the module that tries every face with every kind of server
QUICK_PAIRS = [(KINDS[0], "sync"), (KINDS[-1], "async")]  # of asyncssh alone both


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What is not the faces' own doing is tried with one of them for each kind of server."""
    for item in items:
        if item.path.parent == Path(__file__).parent and item.path.stem != EVERY_PAIR:
            chosen: dict[str, object] = getattr(getattr(item, "callspec", None), "params", {})
            pair = (chosen.get("kind"), chosen.get("face", chosen.get("way")))
            if None not in pair and pair not in QUICK_PAIRS:
                item.add_marker(pytest.mark.slow)


class Face:
    """Calls of one of the two connections."""

    def __init__(self, name: str, kept: Callable[[Server], Connection]) -> None:
        self.blocking = name == "sync"
        self._kept = kept

    def write(self, server: Server, *arguments: Any, **options: Any) -> Transferred:
        return self._call(server, "sftp_write", arguments, options)

    def read(self, server: Server, *arguments: Any, **options: Any) -> Transferred:
        return self._call(server, "sftp_read", arguments, options)

    def _call(self, server: Server, name: str, arguments: Any, options: Any) -> Transferred:
        if self.blocking:
            done: Transferred = getattr(self._kept(server), name)(*arguments, **options)
            return done

        async def call() -> Transferred:
            async with AsyncConnection(**server.address) as connection:
                done: Transferred = await getattr(connection, name)(*arguments, **options)
                return done

        return trio.run(call)


@pytest.fixture(scope="session")
def kept_connections() -> Iterator[Callable[[Server], Connection]]:
    """One connection to each start of a server, for all tests: logging in takes its time."""
    connections: dict[tuple[int, int], Connection] = {}

    def kept(server: Server) -> Connection:
        start = (server.port, server.starts)
        if start not in connections:
            connections[start] = Connection(**server.address)
        return connections[start]

    yield kept
    for connection in connections.values():
        connection.close()


@pytest.fixture(params=["sync", "async"])
def face(request: pytest.FixtureRequest, kept_connections: Callable[[Server], Connection]) -> Face:
    return Face(request.param, kept_connections)


@pytest.fixture(scope="session", params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="session")
def shared_server(kind: str) -> Iterator[Server]:
    """A server for all tests that do not kill it."""
    with serving(kind) as made:
        yield made


@pytest.fixture
def server(shared_server: Server) -> Server:
    return shared_server


@pytest.fixture(scope="session", params=[True, False], ids=["posix-rename", "plain rename"])
def renaming(kind: str, request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server with, and one without the rename that replaces."""
    with serving(kind, posix_rename=request.param) as made:
        yield made


MakeFile = Callable[..., Path]


@pytest.fixture
def make_file(tmp_path: Path) -> MakeFile:
    """Make a file of random bytes (of SEED and its name) that is old."""

    def make(name: str, size: int, seed: int = SEED) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(Random(f"{seed} {name}").randbytes(size))
        os.utime(path, (LONG_AGO, LONG_AGO))
        return path

    return make
