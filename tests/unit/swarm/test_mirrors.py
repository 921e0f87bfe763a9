"""Mirrors in a download: real servers on loopback, real files, verified like peers' bytes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest
import trio

from furymesh.core.bitfield import mask_of
from furymesh.core.errors import UnavailableError
from furymesh.core.geometry import Geometry
from furymesh.core.hashing import HashAlgorithm
from furymesh.core.ids import FileId
from furymesh.core.layout import Entry, EntryKind
from furymesh.core.link import Mirror
from furymesh.core.manifest import Manifest
from furymesh.core.peer_state import MIRROR_REQUESTS
from furymesh.core.scheduler import Scheduler
from furymesh.core.sealing import Sealer, cipher_size, plain_range
from furymesh.discovery.book import Source
from furymesh.net.throttle import Budget
from furymesh.sources.source import Take
from furymesh.storage.manifests import encode_manifest
from furymesh.storage.order import Order, Settings
from furymesh.swarm import beside, dialling
from furymesh.swarm import mirrors as module
from furymesh.swarm.download import Download, Terms
from furymesh.swarm.events import Connected, Note, PeerContribution, Waiting
from furymesh.swarm.feeds import Feeds
from furymesh.swarm.peers import known_peers
from furymesh.swarm.progress import IdleClock, Tally
from furymesh.swarm.share import Share
from tests.range_server import Asked, RangeServer, folder, head, one_file, serving
from tests.unit.swarm.lab import CHUNK, Peer, blob, lab, manifest_of
from tests.waiting import until

CHUNKS = 24
DATA = blob(CHUNKS)


def carry(peer: Peer, manifest: Manifest) -> None:
    """Take part in a share with its manifest alone, as who shared a URL does."""
    share = Share(peer.swarm, manifest.file_id, name="data.bin")
    peer.swarm.add(share)
    share.serve(manifest, 0, None)


def order_of(
    peer: Peer, file_id: FileId, *urls: str, own: bool = True, key: bytes | None = None
) -> Order:
    mirrors = tuple(map(Mirror.parse, urls))
    order = Order(file_id, output=peer.home / "out", key=key)
    return replace(order, own_mirrors=mirrors) if own else replace(order, mirrors=mirrors)


def download(
    peer: Peer, order: Order, *sources: Peer, timeout: float = 5.0, private: bool = False
) -> Download:
    for source in sources:
        peer.swarm.book.add(order.file_id, source.address, Source.USER)
    settings = Settings(peer.home, peer.home / "resume", peer.home)
    terms = Terms(timeout, private_mirrors=private)
    return Download(peer.swarm, order, settings, terms, on_event=peer.events.append)


def notes(peer: Peer) -> list[str]:
    return [event.text for event in peer.events if isinstance(event, Note)]


async def test_a_mirror_and_no_seed_are_enough_and_each_byte_comes_once(tmp_path: Path) -> None:
    async with (
        serving(RangeServer(one_file(DATA))) as server,
        lab(tmp_path, "origin", "leech") as (origin, leech),
    ):
        carry(origin, manifest_of(DATA))
        url = server.url("/data.bin?token=secret")
        running = download(leech, order_of(leech, manifest_of(DATA).file_id, url), origin)
        result = await running.run(leech.links)
        assert result.path.read_bytes() == DATA
        assert server.sent == len(DATA)
        assert server.most <= MIRROR_REQUESTS
        place = server.url("/data.bin")
        contribution = PeerContribution(None, place, len(DATA), CHUNKS, "mirror")
        assert result.peers == (contribution,)
        assert Connected(None, place, "mirror") in leech.events
        assert "secret" not in repr(leech.events)
        assert not notes(leech)


async def test_two_downloads_share_what_the_mirror_sends_once(tmp_path: Path) -> None:
    data = blob(200)
    async with (
        serving(RangeServer(one_file(data), pause=0.03)) as server,
        lab(tmp_path, "origin", "one", "two") as (origin, *leeches),
    ):
        carry(origin, manifest_of(data))
        results = []

        async def run(leech: Peer) -> None:
            order = order_of(leech, manifest_of(data).file_id, server.url())
            results.append(await download(leech, order, origin).run(leech.links))

        async with trio.open_nursery() as nursery:
            for leech in leeches:
                nursery.start_soon(run, leech)
        for result in results:
            assert result.path.read_bytes() == data
        assert server.sent <= 1.1 * len(data)


def folder_of(root: Path, sizes: Mapping[str, int], chunk: int = CHUNK) -> tuple[Manifest, bytes]:
    """Make the files, named in the order of the stream; its manifest, and the stream."""
    rng, content = Random(3), b""
    for name, size in sizes.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        data = rng.randbytes(size)
        (root / name).write_bytes(data)
        content += data
    digests = b"".join(
        HashAlgorithm.BLAKE3.digest(content[at : at + chunk])
        for at in range(0, len(content), chunk)
    )
    entries = [Entry(name, EntryKind.FILE, size) for name, size in sizes.items()]
    geometry = Geometry(len(content), chunk)
    manifest = Manifest.build(HashAlgorithm.BLAKE3, geometry, digests, entries=entries)
    return manifest, content


async def test_a_folder_lies_below_its_mirror_in_parts_of_files(tmp_path: Path) -> None:
    root = tmp_path / "site" / "pub"
    sizes = {"a/x y": 3 * CHUNK + 5, "b": 0, "c/ü": 10, "d": CHUNK, "e": 2 * CHUNK - 7}
    manifest, content = folder_of(root, sizes)
    async with (
        serving(RangeServer(folder(tmp_path / "site"))) as server,
        lab(tmp_path, "origin", "leech") as (origin, leech),
    ):
        carry(origin, manifest)
        order = order_of(leech, manifest.file_id, server.url("/pub/"))
        result = await download(leech, order, origin).run(leech.links)
        for name in sizes:
            assert (result.path / name).read_bytes() == (root / name).read_bytes()
        assert server.sent == len(content)


async def test_of_small_files_several_are_fetched_at_once(tmp_path: Path) -> None:
    root = tmp_path / "site"
    manifest, content = folder_of(root, {f"{number:02}": 100 + number for number in range(50)})
    assert manifest.header.geometry.chunk_count == 1
    async with (
        serving(RangeServer(folder(root), pause=0.02, breaks_after=60)) as server,
        lab(tmp_path, "origin", "leech") as (origin, leech),
    ):
        carry(origin, manifest)
        order = order_of(leech, manifest.file_id, server.url("/"))
        result = await download(leech, order, origin).run(leech.links)
        for path in root.iterdir():
            assert (result.path / path.name).read_bytes() == path.read_bytes()
        assert server.most == MIRROR_REQUESTS, "and no more of them"
        assert server.sent == len(content)


def sealed(data: bytes, key: bytes) -> Manifest:
    sealer = Sealer(key)
    geometry = Geometry(cipher_size(len(data), CHUNK), CHUNK)
    digests = b""
    for chunk in range(geometry.chunk_count):
        start, length = plain_range(geometry, chunk)
        digests += HashAlgorithm.BLAKE3.digest(sealer.seal(chunk, data[start : start + length]))
    return Manifest.build(HashAlgorithm.BLAKE3, geometry, digests, sealer=sealer)


async def test_of_an_encrypted_share_a_mirror_has_the_plain_file(tmp_path: Path) -> None:
    key = bytes(range(32))
    manifest = sealed(DATA, key)
    async with (
        serving(RangeServer(one_file(DATA))) as server,
        lab(tmp_path, "origin", "leech") as (origin, leech),
    ):
        carry(origin, manifest)
        order = order_of(leech, manifest.file_id, server.url(), key=key)
        result = await download(leech, order, origin).run(leech.links)
        assert result.path.read_bytes() == DATA
        assert server.sent == len(DATA)


async def test_without_the_key_an_encrypted_share_cannot_come_from_a_mirror(
    tmp_path: Path,
) -> None:
    manifest = sealed(DATA, bytes(range(32)))
    async with (
        serving(RangeServer(one_file(DATA))) as server,
        lab(tmp_path, "origin", "leech") as (origin, leech),
    ):
        carry(origin, manifest)
        order = order_of(leech, manifest.file_id, server.url())
        running = download(leech, order, origin, timeout=0.5)
        with pytest.raises(UnavailableError, match="the link has no key to seal them"):
            await running.run(leech.links)
        assert not server.asked


async def test_a_bad_chunk_ends_the_use_of_a_mirror_and_a_seed_brings_the_rest(
    tmp_path: Path,
) -> None:
    wrong = bytes([DATA[0] ^ 1]) + DATA[1:-1] + bytes([DATA[-1] ^ 1])
    async with (
        serving(RangeServer(one_file(bytes(len(DATA))))) as server,
        serving(RangeServer(one_file(wrong))) as nearly,
        lab(tmp_path, "seed", "leech") as (seed, leech),
    ):
        seed.serve(DATA, range(1, 3))
        order = order_of(leech, manifest_of(DATA).file_id, server.url(), nearly.url())
        running = download(leech, order, seed)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(running.run, leech.links)
            await until(lambda: len(notes(leech)) == 2)
            chunks = -(-server.sent // CHUNK)
            assert chunks <= 2, "a liar is found out after two chunks"
            assert any(
                f"mirror {server.url()} is not used: it sent a chunk that is not the share's"
                in note
                for note in notes(leech)
            )
            states = {peer.address: peer.state for peer in known_peers(leech.swarm)}
            assert states[server.url()] == "it sent a chunk that is not the share's"
            share = seed.swarm.shares[manifest_of(DATA).file_id]
            share.gained([chunk for chunk in range(CHUNKS) if not share.have >> chunk & 1])
            share.announce()
            await until(lambda: (leech.home / "out").exists())
            nursery.cancel_scope.cancel()
        assert (leech.home / "out").read_bytes() == DATA


@pytest.mark.parametrize("answers", [True, False])
async def test_a_mirror_that_is_found_out_while_it_is_connected_to_is_not_used(
    monkeypatch: pytest.MonkeyPatch, answers: bool
) -> None:
    """Its last chunk was verified late."""
    told: list[str] = []

    @asynccontextmanager
    async def open_server(*_: object, **options: object) -> AsyncIterator[None]:
        feed.drop("it lied")
        if not answers:
            raise UnavailableError("nobody answers")
        yield

    class Feeds:
        def __getattr__(self, name: str) -> Any:
            return lambda *_: told.append(name)

    monkeypatch.setattr(module, "open_server", open_server)
    monkeypatch.setattr(module, "FIRST_BACKOFF", 0.0)
    feed = module.Feed(Mirror.parse("http://a.example/x"), 1, own=True, private=False)
    stand_in: Any = Feeds()
    with trio.fail_after(1):
        await feed.run(stand_in, stand_in, ())
    assert (told, feed.state) == (["dropped"], "it lied")


async def test_why_a_mirror_was_dropped_stays_though_another_answer_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @asynccontextmanager
    async def opened(*_: object, **__: object) -> AsyncIterator[object]:
        yield SimpleNamespace(read=read)

    async def read(path: str, size: int, offset: int, length: int, take: Take) -> None:
        if not late:
            late.append(offset)
            with trio.CancelScope(shield=True):  # an answer that is on its way already
                await until(lambda: running.share.mirrors[0].dropped)
        take(bytes(length))

    late: list[int] = []
    monkeypatch.setattr(module, "open_server", opened)
    async with lab(tmp_path, "origin", "leech") as (origin, leech):
        carry(origin, manifest_of(DATA))
        order = order_of(leech, manifest_of(DATA).file_id, "http://127.0.0.1/f")
        running = download(leech, order, origin, timeout=0.7)
        with pytest.raises(UnavailableError):
            await running.run(leech.links)
        assert late
        (note,) = notes(leech)
        assert note.endswith("is not used: it sent a chunk that is not the share's")


@pytest.mark.parametrize(
    ("misbehave", "word"),
    [
        (lambda asked: head(200, content_length=len(DATA)), "does not serve parts of the file"),
        (lambda asked: head(404, content_length=0), "does not have the file"),
        (lambda asked: head(206, content_range=f"bytes 0-9/{len(DATA) - 1}", content_length=10),
         f"the file has {len(DATA) - 1} bytes there, not {len(DATA)}"),
        (lambda asked: head(302, location="http://169.254.169.254/x", content_length=0),
         "redirects to a private address"),
    ],
)  # fmt: skip
async def test_why_a_mirror_is_of_no_use_stands_in_the_failure(
    misbehave: Callable[[Asked], bytes], word: str, tmp_path: Path
) -> None:
    async with (
        serving(RangeServer(one_file(DATA), misbehave=misbehave)) as server,
        lab(tmp_path, "origin", "leech") as (origin, leech),
    ):
        carry(origin, manifest_of(DATA))
        order = order_of(leech, manifest_of(DATA).file_id, server.url())
        with pytest.raises(UnavailableError) as failed:
            await download(leech, order, origin, timeout=0.7).run(leech.links)
        assert f"; {server.url()}: " in str(failed.value)
        assert word in str(failed.value)
        (note,) = notes(leech)
        assert note.startswith(f"mirror {server.url()} is not used: ")
        assert word in note


async def test_a_link_may_not_name_a_mirror_on_this_machine_unless_that_is_allowed(
    tmp_path: Path,
) -> None:
    async with (
        serving(RangeServer(one_file(DATA))) as server,
        lab(tmp_path, "origin", "leech") as (origin, leech),
    ):
        carry(origin, manifest_of(DATA))
        order = order_of(leech, manifest_of(DATA).file_id, server.url(), own=False)
        with pytest.raises(UnavailableError, match="private address; name it with --mirror"):
            await download(leech, order, origin, timeout=0.5).run(leech.links)
        assert not server.connections
        allowed = download(leech, order, origin, private=True)
        assert (await allowed.run(leech.links)).path.read_bytes() == DATA


async def test_a_connection_that_breaks_costs_nothing_twice(tmp_path: Path) -> None:
    async with (
        serving(RangeServer(one_file(DATA), breaks_after=CHUNK // 3)) as server,
        lab(tmp_path, "origin", "leech") as (origin, leech),
    ):
        carry(origin, manifest_of(DATA))
        order = order_of(leech, manifest_of(DATA).file_id, server.url())
        result = await download(leech, order, origin).run(leech.links)
        assert result.path.read_bytes() == DATA
        assert server.sent == len(DATA)
        assert result.bytes_wasted == 0


async def test_bytes_that_come_with_the_end_of_a_mirror_are_nobodys() -> None:
    """One request fails, and the task of another has its first bytes at that moment."""
    stand_in: Any = SimpleNamespace(released=lambda number: None)
    scheduler = Scheduler(Geometry(len(DATA), CHUNK), Random(1))
    clock = IdleClock(trio.current_time)
    feeds = Feeds(
        stand_in, scheduler, stand_in, clock, Tally(), lambda actions: None, lambda event: None
    )
    feed = module.Feed(Mirror.parse("http://a.example/x"), 1, own=True, private=False)
    feeds.joined(feed)
    feeds.lives(feed, 0.1)
    feeds.left(feed)
    feeds.lives(feed, 0.1)
    feeds.stirs(feed, 10)


async def test_a_chunk_that_is_given_up_gets_no_memory() -> None:
    """Neither before its request has begun, nor when there is room at that moment."""
    placed, free = [], trio.Event()
    stand_in: Any = SimpleNamespace(
        place=lambda lane, data: placed.append(lane.chunk), room=lambda: free.wait()
    )
    feed = module.Feed(Mirror.parse("http://a.example/x"), 1, own=True, private=False)
    feed._feeds = stand_in
    async with trio.open_nursery() as nursery:
        feed._tasks = nursery
        feed.request([0])
        feed.cancel(0)
        feed.request([1])
        await until(lambda: placed)
        free.set()
        feed.cancel(1)
    assert placed == [1]


async def test_a_mirror_that_fails_is_tried_again_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FIRST_BACKOFF", 0.2)
    server = RangeServer(one_file(DATA))
    server.misbehave = lambda asked: head(500) if len(server.asked) < 3 else None
    async with serving(server), lab(tmp_path, "origin", "leech") as (origin, leech):
        carry(origin, manifest_of(DATA))
        order = order_of(leech, manifest_of(DATA).file_id, server.url())
        result = await download(leech, order, origin).run(leech.links)
        assert result.path.read_bytes() == DATA


async def test_a_busy_mirror_is_left_alone_for_as_long_as_it_asks(tmp_path: Path) -> None:
    server = RangeServer(one_file(DATA))
    times: list[float] = []

    def busy(asked: Asked) -> bytes | None:
        times.append(trio.current_time())
        early = times[-1] < times[0] + 1.5
        return head(429, retry_after=2, content_length=0) if early else None

    server.misbehave = busy
    async with serving(server), lab(tmp_path, "origin", "leech") as (origin, leech):
        carry(origin, manifest_of(DATA))
        order = order_of(leech, manifest_of(DATA).file_id, server.url())
        result = await download(leech, order, origin).run(leech.links)
        assert result.path.read_bytes() == DATA
        assert not [at for at in times if 0.5 < at - times[0] < 2.0]


async def test_who_takes_one_request_at_a_time_is_asked_one_at_a_time(tmp_path: Path) -> None:
    server = RangeServer(one_file(DATA), pause=0.02)
    refused = []

    def busy(asked: Asked) -> bytes | None:
        if server.open:
            refused.append(asked)
            return head(503, content_length=0)
        return None

    server.misbehave = busy
    async with serving(server), lab(tmp_path, "origin", "leech") as (origin, leech):
        carry(origin, manifest_of(DATA))
        order = order_of(leech, manifest_of(DATA).file_id, server.url())
        result = await download(leech, order, origin).run(leech.links)
        assert result.path.read_bytes() == DATA
        assert len(refused) < MIRROR_REQUESTS


async def test_a_silent_mirror_holds_up_nobody(tmp_path: Path) -> None:
    async with (
        serving(RangeServer(one_file(DATA), pause=60.0)) as server,
        lab(tmp_path, "seed", "leech") as (seed, leech),
    ):
        seed.serve(DATA, range(1))
        order = order_of(leech, manifest_of(DATA).file_id, server.url())
        running = download(leech, order, seed)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(running.run, leech.links)
            await until(lambda: server.open)
            share = seed.swarm.shares[manifest_of(DATA).file_id]
            share.gained(list(range(1, CHUNKS)))
            share.announce()
            await until(lambda: (leech.home / "out").exists(), 8.0)
            nursery.cancel_scope.cancel()
        assert (leech.home / "out").read_bytes() == DATA


async def test_a_limit_holds_for_mirrors_too(tmp_path: Path) -> None:
    async with (
        serving(RangeServer(one_file(DATA))) as server,
        lab(tmp_path, "origin", "leech") as (origin, leech),
    ):
        carry(origin, manifest_of(DATA))
        leech.swarm.endpoint.download.append(Budget(len(DATA) / 1.5))
        order = order_of(leech, manifest_of(DATA).file_id, server.url())
        result = await download(leech, order, origin).run(leech.links)
        assert result.path.read_bytes() == DATA
        assert result.seconds > 1.0


async def test_resume_data_keeps_mirrors_and_which_are_the_users_own(tmp_path: Path) -> None:
    half = mask_of(range(CHUNKS // 2))
    async with (
        serving(RangeServer(one_file(DATA), pause=0.05)) as server,
        lab(tmp_path, "origin", "leech") as (origin, leech),
    ):
        carry(origin, manifest_of(DATA))
        file_id = manifest_of(DATA).file_id
        first = download(leech, order_of(leech, file_id, server.url()), origin)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(first.run, leech.links)
            await until(lambda: first.chunks_done >= half.bit_count())
            nursery.cancel_scope.cancel()
        sent = server.sent
        again = download(leech, Order(file_id), origin)
        result = await again.run(leech.links)
        assert result.path.read_bytes() == DATA
        assert result.bytes_reused > (half.bit_count() - 1) * CHUNK
        # What was under way when it stopped may have been sent for nothing.
        assert server.sent - sent <= result.bytes_fetched + MIRROR_REQUESTS * CHUNK


async def test_who_fetches_from_certain_nodes_only_uses_no_mirror(tmp_path: Path) -> None:
    async with (
        serving(RangeServer(one_file(DATA))) as server,
        lab(tmp_path, "seed", "leech") as (seed, leech),
    ):
        seed.serve(DATA)
        order = order_of(leech, manifest_of(DATA).file_id, server.url())
        leech.swarm.book.add(order.file_id, seed.address, Source.USER)
        settings = Settings(leech.home, leech.home / "resume", leech.home)
        only = Terms(5.0, only_nodes=frozenset([seed.swarm.endpoint.identity.node_id]))
        running = Download(leech.swarm, order, settings, only, on_event=leech.events.append)
        await running.run(leech.links)
        assert not server.asked


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for peers before mirrors are asked for the manifest."""
    monkeypatch.setattr(beside, "PEERS_FIRST", 0.0)


@pytest.mark.usefixtures("at_once")
async def test_the_manifest_beside_a_mirror_stands_in_for_every_peer(tmp_path: Path) -> None:
    manifest = manifest_of(DATA)
    files = {"/f": DATA, "/f.furymesh": encode_manifest(manifest)}
    async with serving(RangeServer(files.get)) as server, lab(tmp_path, "leech") as (leech,):
        order = order_of(leech, manifest.file_id, server.url("/f?x=1"))
        result = await download(leech, order).run(leech.links)
        assert result.path.read_bytes() == DATA
        assert server.asked[0].path == "/f.furymesh?x=1"


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize(
    ("spoil", "word"),
    [
        (lambda raw: raw[:-1], "wrong length"),
        (lambda raw: raw[:-1] + bytes([raw[-1] ^ 1]), "damaged"),
        (lambda raw: bytes(len(raw)), "malformed manifest"),
        (lambda raw: encode_manifest(manifest_of(b"other")), "not the one the file id names"),
        (lambda raw: b"", "the manifest there is empty"),
    ],
)
async def test_a_wrong_manifest_beside_a_mirror_is_not_used(
    spoil: Callable[[bytes], bytes], word: str, tmp_path: Path
) -> None:
    manifest = manifest_of(DATA)
    files = {"/f": DATA, "/f.furymesh": spoil(encode_manifest(manifest))}
    async with serving(RangeServer(files.get)) as server, lab(tmp_path, "leech") as (leech,):
        order = order_of(leech, manifest.file_id, server.url("/f"))
        with pytest.raises(UnavailableError, match=word):
            await download(leech, order, timeout=0.4).run(leech.links)


async def test_what_is_waited_for_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dialling, "WAITING_SECONDS", 0.1)
    async with (
        serving(RangeServer(one_file(DATA))) as server,
        lab(tmp_path, "leech") as (leech,),
    ):
        order = order_of(leech, manifest_of(DATA).file_id, server.url())
        with pytest.raises(UnavailableError, match="waiting for the manifest"):
            await download(leech, order, timeout=1.2).run(leech.links)
        waiting = [event for event in leech.events if isinstance(event, Waiting)]
        assert waiting[0].tried[0].address == server.url()
