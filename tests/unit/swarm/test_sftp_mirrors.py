"""SFTP servers as mirrors of a download: real servers, which die, change and are strangers."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from furymesh.core.errors import UnavailableError
from furymesh.core.hashing import HashAlgorithm
from furymesh.core.link import Mirror
from furymesh.net.throttle import Budget
from furymesh.node.surveying import survey
from furymesh.sources.source import UnfitMirrorError
from furymesh.swarm import mirrors as module
from furymesh.swarm.events import Connected, PeerContribution
from tests.range_server import RangeServer, one_file, serving
from tests.sftp.servers import KINDS, Server
from tests.sftp.servers import serving as serving_sftp
from tests.unit.swarm.lab import CHUNK, Peer, blob, lab, manifest_of
from tests.unit.swarm.test_mirrors import (
    CHUNKS,
    DATA,
    carry,
    download,
    folder_of,
    notes,
    order_of,
)
from tests.waiting import until

OTHERS = [pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS[1:]]


@pytest.fixture(scope="module", params=[KINDS[0], *OTHERS])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    with serving_sftp(request.param) as made:
        yield made


@pytest.fixture(autouse=True)
def home(server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The home of the user whom the server lets in."""
    home = tmp_path / "home"
    home.mkdir()
    server.let_in(home)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    return home


def from_mirrors(contributions: tuple[PeerContribution, ...]) -> dict[str, int]:
    return {who.address: who.bytes for who in contributions if who.found == "mirror"}


@pytest.fixture
def film(tmp_path: Path) -> Path:
    """What the mirror has."""
    path = tmp_path / "film"
    path.write_bytes(DATA)
    return path


async def failure(origin: Peer, leech: Peer, url: str) -> str:
    """Why a download that has the mirror alone fails; the note about that says it too."""
    carry(origin, manifest_of(DATA))
    order = order_of(leech, manifest_of(DATA).file_id, url)
    with pytest.raises(UnavailableError) as failed:
        await download(leech, order, origin, timeout=1.5).run(leech.links)
    (note,) = notes(leech)
    assert note.startswith(f"mirror {url} is not used: ")
    reason = note.partition(" is not used: ")[2]
    assert f"; {url}: {reason}" in str(failed.value)
    return reason


async def test_a_mirror_that_dies_and_comes_back_brings_what_is_missing(
    server: Server, film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FIRST_BACKOFF", 0.2)
    async with lab(tmp_path, "origin", "leech") as (origin, leech):
        carry(origin, manifest_of(DATA))
        budget = Budget(len(DATA) / 2)
        leech.swarm.endpoint.download.append(budget)
        order = order_of(leech, manifest_of(DATA).file_id, server.url(film))
        running = download(leech, order, origin, timeout=20.0)
        done: list[int] = []

        async def run() -> None:
            result = await running.run(leech.links)
            done.extend(from_mirrors(result.peers).values())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(run)
            await until(lambda: running.chunks_done > CHUNKS // 4)
            server.kill()
            await until(lambda: not any(feed.connected for feed in running.share.mirrors))
            assert running.chunks_done < CHUNKS
            leech.swarm.endpoint.download.remove(budget)
            server.start()
        assert done == [len(DATA)]
        assert (leech.home / "out").read_bytes() == DATA
        assert not notes(leech), "it was never dropped"


async def test_a_file_that_is_another_there_is_told_by_its_first_chunk(
    server: Server, film: Path, tmp_path: Path
) -> None:
    film.write_bytes(bytes(len(DATA)))
    async with lab(tmp_path, "origin", "leech") as (origin, leech):
        reason = await failure(origin, leech, server.url(film))
        assert reason == "it sent a chunk that is not the share's"


async def test_a_file_of_another_length_is_not_read(
    server: Server, film: Path, tmp_path: Path
) -> None:
    for size in (len(DATA) - 1, len(DATA) + 1):
        film.write_bytes((DATA + b"more")[:size])
        async with lab(tmp_path, f"origin {size}", f"leech {size}") as (origin, leech):
            reason = await failure(origin, leech, server.url(film))
            assert reason == f"the file has {size} bytes there, not {len(DATA)}"


async def test_a_file_that_is_cut_off_meanwhile_ends_its_use(
    server: Server, film: Path, tmp_path: Path
) -> None:
    async with lab(tmp_path, "origin", "leech") as (origin, leech):
        carry(origin, manifest_of(DATA))
        leech.swarm.endpoint.download.append(Budget(len(DATA) / 2))
        order = order_of(leech, manifest_of(DATA).file_id, server.url(film))
        running = download(leech, order, origin, timeout=2.0)
        async with trio.open_nursery() as nursery:

            async def run() -> None:
                with pytest.raises(UnavailableError, match="became shorter"):
                    await running.run(leech.links)

            nursery.start_soon(run)
            await until(lambda: running.chunks_done > 0)
            os.truncate(film, 0)
        (note,) = notes(leech)
        assert "became shorter" in note


async def test_a_server_whose_key_is_not_known_is_not_used(
    server: Server, film: Path, home: Path, tmp_path: Path
) -> None:
    (home / ".ssh" / "known_hosts").write_bytes(b"")
    async with lab(tmp_path, "origin", "leech") as (origin, leech):
        reason = await failure(origin, leech, server.url(film))
        assert "its host key ssh-ed25519 SHA256:" in reason
        assert f"add it to known_hosts, as `ssh -p {server.port} 127.0.0.1` does" in reason


async def test_two_kinds_of_mirror_and_a_seed_bring_each_byte_once(
    server: Server, film: Path, tmp_path: Path
) -> None:
    data = blob(200)
    film.write_bytes(data)
    async with (
        serving(RangeServer(one_file(data), pause=0.01)) as web,
        lab(tmp_path, "seed", "leech") as (seed, leech),
    ):
        seed.serve(data, range(50))
        urls = (server.url(film), web.url())
        order = order_of(leech, manifest_of(data).file_id, *urls)
        result = await download(leech, order, seed).run(leech.links)
        assert result.path.read_bytes() == data
        by_mirror = from_mirrors(result.peers)
        assert set(by_mirror) == set(urls)
        by_seed = sum(peer.bytes for peer in result.peers if peer.found != "mirror")
        assert 0 < by_seed <= 50 * CHUNK
        assert by_seed + sum(by_mirror.values()) == len(data)
        connected = {event.address for event in leech.events if isinstance(event, Connected)}
        assert connected >= set(urls)
        # What one was too slow for, another one brings; a mirror is asked for little twice.
        assert web.sent <= by_mirror[web.url()] + 4 * CHUNK


async def test_a_folder_of_small_files_comes_whole(server: Server, tmp_path: Path) -> None:
    root = tmp_path / "site"
    sizes = {f"d{number // 40}/{number:03}": 37 * number for number in range(120)}
    manifest, _ = folder_of(root, sizes)
    async with lab(tmp_path, "origin", "leech") as (origin, leech):
        carry(origin, manifest)
        order = order_of(leech, manifest.file_id, server.url(root))
        result = await download(leech, order, origin).run(leech.links)
        for name in sizes:
            assert (result.path / name).read_bytes() == (root / name).read_bytes()


@pytest.mark.parametrize("folder", [False, True])
async def test_what_changes_while_it_is_read_is_not_shared(
    server: Server, film: Path, tmp_path: Path, folder: bool
) -> None:
    def change(done: int, total: int) -> None:
        os.utime(film, (1, 1))

    url = Mirror.parse(server.url(film.parent if folder else film))
    with pytest.raises(UnfitMirrorError, match="it changed while it was read: share it again"):
        await survey(url, HashAlgorithm.BLAKE3, None, None, change)
    done = await survey(url, HashAlgorithm.BLAKE3, None, None, lambda done, total: None)
    assert done.size >= len(DATA)
