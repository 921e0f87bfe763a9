from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from furymesh.core.errors import AlreadyRunningError, DiskFullError, UnavailableError
from furymesh.core.link import Address
from furymesh.core.manifest import Manifest
from furymesh.core.senders import CHUNK_SECONDS
from furymesh.discovery.book import Source
from furymesh.net.buffers import SLAB_MEMORY, SlabPool
from furymesh.net.secure_link import SecureLink
from furymesh.net.throttle import Budget
from furymesh.storage.order import Order, Settings
from furymesh.storage.part import PartStore
from furymesh.storage.resume import ResumeData
from furymesh.storage.workspace import Workspace
from furymesh.swarm import dialling
from furymesh.swarm.download import Terms
from furymesh.swarm.events import Connected, Note, Progress, Result, Started, Waiting
from furymesh.swarm.fetching import Fetching
from furymesh.wire import messages as m
from tests.unit.swarm.lab import CHUNK, PATIENCE, Peer, blob, lab, manifest_of, only_link
from tests.waiting import stays, until


async def test_file_arrives_whole(tmp_path: Path) -> None:
    data = blob(30)
    async with lab(tmp_path, "seed", "user") as (seed, user):
        seed.serve(data)
        result = await user.download(data, seed).run(user.links)
        assert result.path.read_bytes() == data
        assert (result.bytes_fetched, result.bytes_reused) == (len(data), 0)
        (peer,) = result.peers
        assert (peer.bytes, peer.chunks, peer.found) == (len(data), 30, "user")
        assert peer.node_id == seed.swarm.endpoint.identity.node_id
        kinds = [type(event) for event in user.events]
        assert kinds[:2] == [Connected, Started]
        assert Progress in kinds


async def test_chunks_come_from_whoever_has_them(tmp_path: Path) -> None:
    data = blob(30)
    async with lab(tmp_path, "a", "b", "user") as (a, b, user):
        a.serve(data, range(0, 30, 2))
        b.serve(data, range(1, 30, 2))
        result = await user.download(data, a, b).run(user.links)
        assert result.path.read_bytes() == data
        assert sorted(peer.chunks for peer in result.peers) == [15, 15]


def progress(peer: Peer) -> list[Progress]:
    return [event for event in peer.events if isinstance(event, Progress)]


async def test_address_is_dialled_as_soon_as_it_is_heard_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dialling, "LOOK_SECONDS", 10 * PATIENCE)
    data = blob(30)
    async with lab(tmp_path, "a", "b", "user") as (a, b, user):
        a.serve(data, range(15))
        b.serve(data, range(15, 30))
        download = user.download(data, a)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(download.run, user.links)
            # Reported once a second: long enough to have given up looking for more.
            await until(lambda: any(event.chunks_done == 15 for event in progress(user)))
            user.swarm.book.add(manifest_of(data).file_id, b.address, Source.EXCHANGE)
        assert (user.home / "out.bin").read_bytes() == data


async def test_poisoner_is_quarantined_and_the_file_exact(tmp_path: Path) -> None:
    data = blob(30)
    async with lab(tmp_path, "bad", "good", "user") as (bad, good, user):
        bad.serve(data, wrong=-1)
        download = user.download(data, bad)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(download.run, user.links)
            await until(lambda: user.swarm.admission.bans.nodes)
            good.serve(data)
            user.swarm.book.add(manifest_of(data).file_id, good.address, Source.USER)
        assert (user.home / "out.bin").read_bytes() == data
        assert user.swarm.admission.bans.nodes == {bad.swarm.endpoint.identity.node_id}
        (note,) = [event for event in user.events if isinstance(event, Note)]
        assert "sent a bad chunk" in note.text


async def test_only_chosen_nodes_are_asked(tmp_path: Path) -> None:
    data = blob(10)
    async with lab(tmp_path, "a", "b", "user") as (a, b, user):
        a.serve(data)
        b.serve(data)
        chosen = b.swarm.endpoint.identity.node_id
        terms = Terms(timeout=5, only_nodes=frozenset({chosen}))
        result = await user.download(data, a, b, terms=terms).run(user.links)
        assert [peer.node_id for peer in result.peers] == [chosen]


async def test_nobody_there(tmp_path: Path) -> None:
    data = blob(2)
    async with lab(tmp_path, "user") as (user,):
        file_id = manifest_of(data).file_id
        user.swarm.book.add(file_id, Address("127.0.0.1", 1), Source.USER)
        with pytest.raises(UnavailableError, match=r"127\.0\.0\.1:1 .*progress is kept"):
            await user.download(data, terms=Terms(timeout=0.3)).run(user.links)
        assert file_id not in user.swarm.shares
        with pytest.raises(UnavailableError, match="--peer"):
            await user.download(data, terms=Terms(timeout=0.2)).run(user.links)


async def test_waiting_says_what_was_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("furymesh.swarm.dialling.WAITING_SECONDS", 0.1)
    data = blob(2)
    async with lab(tmp_path, "empty", "user") as (empty, user):
        with pytest.raises(UnavailableError, match="without what is missing"):
            await user.download(data, empty, terms=Terms(timeout=0.6)).run(user.links)
        waiting = [event for event in user.events if isinstance(event, Waiting)]
        assert waiting[-1].tried[0].address == str(empty.address)
        assert "connected" in waiting[-1].tried[0].outcome


async def test_peers_are_in_the_resume_data_from_the_start(tmp_path: Path) -> None:
    data = blob(10)
    async with lab(tmp_path, "half", "user") as (half, user):
        half.serve(data, range(5))
        with pytest.raises(UnavailableError):
            await user.download(data, half, terms=Terms(timeout=0.5)).run(user.links)
    async with lab(tmp_path / "half", "again") as (rest,):
        # Another process at the same address would be asked; here it is only looked up.
        from furymesh.storage.resume import Summary, list_all

        (summary,) = list_all(user.home / "resume")
        assert isinstance(summary, Summary)
        assert summary.chunks_done == 5
        assert [Address.parse(peer).port for peer in summary.meta.peers] == [half.address.port]
        assert rest.home.exists()


async def test_manifest_is_kept_however_quick_the_download(tmp_path: Path) -> None:
    data = blob(1)
    async with lab(tmp_path, "seed", "user") as (seed, user):
        seed.serve(data)
        await user.download(data, seed).run(user.links)
        from furymesh.storage.manifests import ManifestStore

        manifest = ManifestStore(user.home).load(manifest_of(data).file_id)
        assert manifest is not None
        assert manifest.complete


async def test_second_download_of_the_same_thing_is_refused(tmp_path: Path) -> None:
    data = blob(10)
    async with lab(tmp_path, "user") as (user,):
        first = user.download(data)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(first.run, user.links)
            await until(lambda: manifest_of(data).file_id in user.swarm.shares)
            with pytest.raises(AlreadyRunningError):
                await user.download(data).run(user.links)
            nursery.cancel_scope.cancel()


async def test_cancelled_download_can_be_taken_up(tmp_path: Path) -> None:
    data = blob(20)
    async with lab(tmp_path, "seed", "user") as (seed, user):
        share = seed.serve(data, range(7))
        async with trio.open_nursery() as nursery:
            download = user.download(data, seed)
            nursery.start_soon(download.run, user.links)
            await until(lambda: download.chunks_done == 7)
            nursery.cancel_scope.cancel()
        seed.swarm.remove(share.file_id)
        seed.serve(data)
        result = await user.download(data, seed).run(user.links)
        assert result.bytes_reused == 7 * CHUNK
        assert result.path.read_bytes() == data


async def test_chunks_that_come_while_a_download_ends_keep_no_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slow disk keeps it from ending, and its links bring on what it asked for."""
    monkeypatch.setattr("furymesh.swarm.saving.SYNC_SECONDS", 0.0)
    syncing, go_on = threading.Event(), threading.Event()

    def sync(_: PartStore) -> None:
        syncing.set()
        go_on.wait(PATIENCE)

    monkeypatch.setattr(PartStore, "sync", sync)
    data = blob(40)
    async with lab(tmp_path, "seed", "user") as (seed, user):
        share = seed.serve(data, range(20))
        download = user.download(data, seed)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(download.run, user.links)
            await until(lambda: download.chunks_done == 20)
            await until(syncing.is_set)
            nursery.cancel_scope.cancel()
            with trio.CancelScope(shield=True):
                await until(lambda: "store" not in [t.name for t in threading.enumerate()])
                share.gained(list(range(20, 40)))
                share.announce()
                link = only_link(user.swarm)
                await until(lambda: link.traffic.payload_received > 20 * CHUNK)
                go_on.set()
        slabs = user.swarm.endpoint.buffers.slabs
        assert slabs.part(SlabPool(slabs, CHUNK)) == SLAB_MEMORY


async def test_all_chunks_and_no_digests_wait_for_a_peer(tmp_path: Path) -> None:
    """Cut off when the last chunk was journaled, and the manifest's page not yet stored."""
    data = blob(8)
    whole = manifest_of(data)
    async with lab(tmp_path, "seed", "user") as (seed, user):
        seed.serve(data)
        order = Order(whole.file_id, output=user.home / "out.bin")
        workspace = Workspace(order, Settings(user.home, user.home / "resume", user.home))
        workspace.remember_header(Manifest(whole.header_bytes, whole.file_id))
        workspace.open("", ())
        assert workspace.resume is not None
        for chunk in range(8):
            workspace.part.write_chunk(chunk, data[chunk * CHUNK : (chunk + 1) * CHUNK])
            workspace.resume.add(chunk)
        workspace.close()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(user.download(data).run, user.links)
            await until(lambda: any(isinstance(event, Started) for event in user.events))
            user.swarm.book.add(whole.file_id, seed.address, Source.USER)
        assert (user.home / "out.bin").read_bytes() == data


async def test_manifest_alone_leaves_nothing_on_disk(tmp_path: Path) -> None:
    data = blob(20)
    async with lab(tmp_path, "seed", "user") as (seed, user):
        seed.serve(data)
        manifest = await user.download(data, seed).fetch_manifest(user.links)
        assert manifest.complete
        assert not (user.home / "resume").exists()
        assert not list(user.home.glob("*.part"))


async def test_peer_that_breaks_the_rules_again_waits_ever_longer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("furymesh.discovery.book.FIRST_BACKOFF", 0.01)
    data = blob(3)
    async with lab(tmp_path, "bad", "user") as (bad, user):
        share = bad.serve(data)
        told = bad.swarm.message

        def boast(link: SecureLink, message: m.Message) -> None:
            if isinstance(message, m.Request):
                link.send(m.Have(link.session.number(share.file_id), (10**6,)))
            else:
                told(link, message)

        monkeypatch.setattr(bad.swarm, "message", boast)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(user.download(data, bad).run, user.links)
            await until(lambda: user.swarm.book.candidates(share.file_id))
            (candidate,) = user.swarm.book.candidates(share.file_id)
            await until(lambda: candidate.failures >= 3)
            nursery.cancel_scope.cancel()


async def test_dead_addresses_are_left_alone_while_somebody_else_helps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("furymesh.discovery.book.FIRST_BACKOFF", 0.02)
    monkeypatch.setattr("furymesh.discovery.book.MAX_BACKOFF_NEEDED", 0.05)
    monkeypatch.setattr(dialling, "HELPLESS_SECONDS", 0.5)
    data = blob(40)
    dials = 0

    async def dead(stream: trio.SocketStream) -> None:
        nonlocal dials
        dials += 1
        await stream.aclose()

    async with lab(tmp_path, "seed", "user") as (seed, user):
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        user.links.start_soon(trio.serve_listeners, dead, listeners)
        port = listeners[0].socket.getsockname()[1]
        share = seed.serve(data)
        share.upload.rate = 400_000
        user.swarm.book.add(share.file_id, Address("127.0.0.1", port), Source.USER)
        download = user.download(data)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(download.run, user.links)
            await until(lambda: dials >= 12)
            user.swarm.book.add(share.file_id, seed.address, Source.USER)
            await until(lambda: download.chunks_done)
            before = dials
            await until(lambda: download.chunks_done >= 30)
            assert dials <= before + 1, "more than one that was under way"
            seed.swarm.remove(share.file_id)
            await until(lambda: dials >= before + 5)
            nursery.cancel_scope.cancel()


async def test_finished_download_tells_everybody_of_its_last_chunks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("furymesh.swarm.announcer.MIN_NEWS_SECONDS", 60.0)
    data = blob(10)
    async with lab(tmp_path, "seed", "user", "other") as (seed, user, other):
        seed.serve(data)
        download = user.download(data, seed)
        await download.run(user.links)
        assert download.share.have == manifest_of(data).header.geometry.all_chunks
        result = await other.download(data, user).run(other.links)
        assert result.path.read_bytes() == data


async def test_chunk_that_could_not_be_read_during_the_rename_is_served_again(
    tmp_path: Path,
) -> None:
    data = blob(10)
    async with lab(tmp_path, "seed", "user") as (seed, user):
        seed.serve(data)
        download = user.download(data, seed)
        publish = download._publish

        async def spoil() -> object:
            download.share.withdraw(0b101)
            return await publish()

        download._publish = spoil  # type: ignore[method-assign, assignment]
        await download.run(user.links)
        assert download.share.have == manifest_of(data).header.geometry.all_chunks


async def test_full_disk_under_the_journal_only_pauses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("furymesh.swarm.saving.SYNC_SECONDS", 0.0)
    monkeypatch.setattr("furymesh.swarm.room.ROOM_POLL_SECONDS", 0.05)
    data = blob(30)
    async with lab(tmp_path, "seed", "user") as (seed, user):
        share = seed.serve(data, range(20))
        download = user.download(data, seed)
        epochs = []

        def mark_epoch(resume: ResumeData, sync: Callable[[], None]) -> None:
            epochs.append(1)
            if len(epochs) == 1:
                raise DiskFullError("no room for the journal")

        monkeypatch.setattr(ResumeData, "mark_epoch", mark_epoch)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(download.run, user.links)
            await until(lambda: len(epochs) == 2)
            share.gained(list(range(20, 30)))
            share.announce()
        notes = [event.text for event in user.events if isinstance(event, Note)]
        assert notes == [
            "paused: no room for the journal; goes on by itself when there is room",
            "there is room again: going on",
        ]
        assert (user.home / "out.bin").read_bytes() == data


@pytest.mark.parametrize("moment", [1, 2], ids=["under way", "at the end"])
async def test_chunks_that_a_full_disk_did_not_save_are_fetched_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: int
) -> None:
    """A second sync would report success, and the pages might be gone all the same."""
    monkeypatch.setattr("furymesh.swarm.saving.SYNC_SECONDS", 0.0 if moment == 1 else 60.0)
    monkeypatch.setattr("furymesh.swarm.room.ROOM_POLL_SECONDS", 0.05)
    really_sync, synced = os.fdatasync, list[str]()

    def fdatasync(fd: int) -> None:
        name = Path(os.readlink(f"/proc/self/fd/{fd}")).name
        synced.append(name)
        if name.endswith(".part") and len([n for n in synced if n == name]) == 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        really_sync(fd)

    data = blob(30)
    async with lab(tmp_path, "seed", "user") as (seed, user):
        share = seed.serve(data, range(20) if moment == 1 else None)
        download = user.download(data, seed)
        monkeypatch.setattr(os, "fdatasync", fdatasync)
        async with trio.open_nursery() as nursery:
            results: list[Result] = []

            async def run() -> None:
                results.append(await download.run(user.links))

            nursery.start_soon(run)
            if moment == 1:
                await until(lambda: any("going on" in note for note in _notes(user)))
                share.gained(list(range(20, 30)))
                share.announce()
        notes = _notes(user)
        assert notes[0].startswith("paused: cannot sync ")
        assert notes[0].endswith(": the disk is full; goes on by itself when there is room")
        assert "then run this again" not in notes[0]
        assert (user.home / "out.bin").read_bytes() == data
        assert results[0].bytes_fetched > len(data), "what was not saved was trusted"


def _notes(peer: Peer) -> list[str]:
    return [event.text for event in peer.events if isinstance(event, Note)]


async def test_under_a_download_limit_few_are_asked_at_once(tmp_path: Path) -> None:
    data = blob(200)
    async with lab(tmp_path, *"abcdefgh", "user") as (*seeds, user):
        user.swarm.endpoint.download = [Budget(2 * CHUNK)]
        for seed in seeds:
            seed.serve(data)
        download = user.download(data, *seeds)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(download.run, user.links)
            await until(lambda: len(download.share.members) == len(seeds))
            await until(lambda: isinstance(download.share.fetcher, Fetching))
            fetching = download.share.fetcher
            assert isinstance(fetching, Fetching)
            few = CHUNK_SECONDS * 2
            await stays(lambda: fetching._scheduler._debts.senders <= few, 2.0)
            await until(lambda: fetching.chunks_done)
            nursery.cancel_scope.cancel()
