"""Everything ends: listings, logging in, leaving; and what is cancelled holds nothing open."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import trio

from furymesh.core.errors import ProtocolError, UnavailableError
from furymesh.sftp import AsyncConnection, Connection
from tests.sftp.conftest import Face, MakeFile
from tests.sftp.servers import Server, serving

SIZE = 6_000_000
QUICK = 0.3  # seconds, for limits that are longer in earnest
BOUND = 5.0  # for what has a limit of QUICK, on a busy machine


@pytest.mark.parametrize(
    ("trick", "limit", "told"),
    [
        ("endless", ("MAX_ENTRIES", 300), "lists more than 300"),
        ("silent", ("LISTING_SECONDS", QUICK), "is not being listed"),
    ],
    ids=["endless", "silent"],
)
def test_a_listing_without_end_is_given_up(
    face: Face,
    tmp_path: Path,
    trick: str,
    limit: tuple[str, float],
    told: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(f"furymesh.sftp.remote.{limit[0]}", limit[1])
    with serving("asyncssh", trick=trick) as server:
        with pytest.raises(ProtocolError, match=told):
            face.read(server, str(tmp_path), tmp_path / "back")
        # The connection is as good as before, where the server still takes requests.
        if face.blocking and trick == "endless":
            (tmp_path / "file").write_bytes(b"x")
            assert face.read(server, str(tmp_path / "file"), tmp_path / "copy").moved == 1


def test_a_server_without_the_subsystem_is_given_up() -> None:
    with serving("asyncssh", trick="mute") as server:
        begun = time.monotonic()
        with pytest.raises(UnavailableError, match="no answer in time"):
            Connection(**server.address, timeout=QUICK)
        assert time.monotonic() - begun < BOUND


@pytest.mark.parametrize("direction", ["write", "read"])
def test_leaving_cancelled_ends_though_the_server_is_silent(
    server: Server,
    make_file: MakeFile,
    tmp_path: Path,
    direction: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for module in ("remote", "upload"):
        monkeypatch.setattr(f"furymesh.sftp.{module}.CLEANUP_SECONDS", QUICK)
    source, target = make_file("source", SIZE), tmp_path / "target"

    names = (source, str(target)) if direction == "write" else (str(source), target)
    begun: list[float] = []

    async def call() -> None:
        with ExitStack() as stopped, trio.CancelScope() as scope:

            def stop(done: int, total: int) -> None:
                if not begun:  # both files are open by now
                    stopped.enter_context(server.stopped())
                    scope.deadline = trio.current_time() + QUICK
                    begun.append(time.monotonic())

            async with AsyncConnection(**server.address) as connection:
                transfer = getattr(connection, f"sftp_{direction}")
                await transfer(*names, atomic=True, progress=stop)
        assert scope.cancelled_caught

    trio.run(call)
    assert time.monotonic() - begun[0] < BOUND


def test_closing_ends_though_the_server_is_silent(server: Server) -> None:
    connection = Connection(**server.address)
    with server.stopped():
        begun = time.monotonic()
        connection.close()
        assert time.monotonic() - begun < BOUND


def opened_below(directory: Path) -> list[str]:
    links = (f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd"))
    paths = [os.readlink(link) for link in links if os.path.lexists(link)]
    return [path for path in paths if path.startswith(str(directory))]


@pytest.mark.parametrize("direction", ["write", "read"])
def test_what_is_cancelled_at_any_moment_leaves_no_file_open_or_locked(
    server: Server, make_file: MakeFile, tmp_path: Path, direction: str
) -> None:
    source, target = make_file("source", SIZE), tmp_path / "target"
    names = (source, str(target)) if direction == "write" else (str(source), target)

    async def call() -> None:
        async with AsyncConnection(**server.address) as connection:
            transfer: Callable[..., object] = getattr(connection, f"sftp_{direction}")
            for moment in moments():
                with trio.move_on_after(moment):
                    await transfer(*names, atomic=True, resume=True)  # type: ignore[misc]
                assert not opened_below(tmp_path), f"cancelled after {moment:.4f} s"
            await transfer(*names, atomic=True, resume=True)  # type: ignore[misc]

    trio.run(call)
    assert target.read_bytes() == source.read_bytes()


def moments() -> Iterator[float]:
    """Seconds, most of them early, where the opening is."""
    return (step * step * 0.0001 for step in range(20))
