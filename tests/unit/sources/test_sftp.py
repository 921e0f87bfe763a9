"""Reading ranges from SFTP servers, by way of what every kind of mirror offers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
import trio

from furymesh.core.errors import UnavailableError
from furymesh.core.link import Mirror
from furymesh.sources import guard as guarding
from furymesh.sources import sftp
from furymesh.sources.opening import open_server
from furymesh.sources.source import UnfitMirrorError
from tests.sftp.servers import KINDS, Server

DATA = Random(5).randbytes(1_500_000)
SIZE = len(DATA)


@pytest.fixture(scope="module", params=KINDS)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    started = Server(request.param)
    yield started
    started.close()


@pytest.fixture
def at_home(server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The home directory of a user whom the server lets in."""
    server.let_in(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    return tmp_path


def mirror(server: Server, path: Path, host: str = "127.0.0.1") -> Mirror:
    return Mirror.parse(server.url(path, host))


async def test_ranges_of_a_file_come_several_at_once(server: Server, at_home: Path) -> None:
    (at_home / "a ü").write_bytes(DATA)
    async with open_server(mirror(server, at_home / "a ü"), own=True, private=False) as source:
        assert await source.size() == SIZE
        got: dict[int, bytearray] = {}

        async def fetch(offset: int) -> None:
            got[offset] = bytearray()
            await source.read("", SIZE, offset, min(700_000, SIZE - offset), got[offset].extend)

        async with trio.open_nursery() as nursery:
            for offset in range(0, SIZE, 700_000):
                nursery.start_soon(fetch, offset)
        assert b"".join(got[offset] for offset in sorted(got)) == DATA


async def test_more_files_than_may_stay_open(
    server: Server, at_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sftp, "MAX_OPEN", 1)
    (at_home / "d").mkdir()
    for number in range(3):
        (at_home / "d" / str(number)).write_bytes(DATA[number : number + 10])
    async with open_server(mirror(server, at_home), own=True, private=False) as source:
        for number in (0, 1, 2, 1, 0):
            taken = bytearray()
            await source.read(f"d/{number}", 10, 2, 5, taken.extend)
            assert taken == DATA[number + 2 : number + 7]


async def test_what_is_not_there_as_it_should_be_makes_a_mirror_unfit(
    server: Server, at_home: Path
) -> None:
    (at_home / "f").write_bytes(DATA)
    for path, size, word in (
        (at_home / "f", SIZE - 1, f"the file has {SIZE} bytes there, not {SIZE - 1}"),
        (at_home / "none", SIZE, "there is no"),
        (at_home, SIZE, "is a folder"),
    ):
        with pytest.raises(UnfitMirrorError, match=word):
            async with open_server(mirror(server, path), own=True, private=False) as source:
                await source.read("", size, 0, 10, bytearray().extend)


async def test_an_unknown_host_key_makes_a_mirror_unfit(server: Server, at_home: Path) -> None:
    (at_home / ".ssh" / "known_hosts").write_bytes(b"")
    with pytest.raises(UnfitMirrorError, match="known_hosts"):
        async with open_server(mirror(server, at_home), own=True, private=False):
            pass


async def test_nobody_there_may_pass(server: Server, at_home: Path) -> None:
    nobody = Mirror.parse(f"sftp://127.0.0.1:1{at_home}")
    with pytest.raises(UnavailableError):
        async with open_server(nobody, own=True, private=False):
            pass


async def test_the_address_that_was_checked_is_used_and_the_key_is_the_names(
    server: Server, at_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def resolved(address: object, threads: object) -> list[str]:
        return ["127.0.0.1"]

    monkeypatch.setattr(guarding, "resolved", resolved)
    (at_home / "f").write_bytes(DATA)
    named = mirror(server, at_home / "f", "m.example")
    known, keys = at_home / ".ssh" / "known_hosts", server.known_hosts.read_text()
    known.write_text(keys.replace("127.0.0.1", "other.example"))
    with pytest.raises(UnfitMirrorError, match="known_hosts"):
        async with open_server(named, own=True, private=False):
            pass
    known.write_text(keys.replace("127.0.0.1", "m.example"))
    async with open_server(named, own=True, private=False) as source:
        assert await source.size() == SIZE
    with pytest.raises(UnfitMirrorError, match="private address"):
        async with open_server(named, own=False, private=False):
            pass
