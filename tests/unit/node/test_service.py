from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
import trio

from furymesh.core.errors import AlreadyRunningError, EnvironmentFault, UsageError
from furymesh.core.link import Address, Link, Tracker
from furymesh.node import face
from furymesh.node.config import Config
from furymesh.node.orders import DetachedOrder, Orders
from furymesh.node.service import Node
from furymesh.swarm.events import Event, Note, Started
from tests.apart import ALONE, apart
from tests.tracker_server import TestTracker, open_tracker
from tests.waiting import until

CHUNK = 16 * 1024
ANY_PORT = Address("127.0.0.1", 0)
DATA = Random(9).randbytes(6 * CHUNK + 1)


def config_at(place: Path) -> Config:
    return apart({"data_dir": place, "storage": {"download_dir": place, "reserve": "0"}})


@asynccontextmanager
async def running(config: Config, **options: Any) -> AsyncIterator[tuple[Node, list[Event]]]:
    """A node and what it tells."""
    events: list[Event] = []
    node = Node(config, on_event=events.append)

    async def run(task_status: trio.TaskStatus[Node]) -> None:
        await node.run(listen=ANY_PORT, task_status=task_status, **options)

    with trio.fail_after(15):
        async with trio.open_nursery() as nursery:
            await nursery.start(run)
            yield node, events
            nursery.cancel_scope.cancel()


async def told(events: list[Event], text: str) -> None:
    await until(lambda: any(isinstance(event, Note) and text in event.text for event in events))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "film.bin"
    path.write_bytes(DATA)
    return path


async def test_share_reaches_a_running_node(tmp_path: Path, source: Path) -> None:
    home, user = config_at(tmp_path / "home"), config_at(tmp_path / "user")
    async with running(home) as (node, _):
        shared = await face.share(source, home)
        assert shared.served
        assert [share["file_id"] for share in node.status()["shares"]] == [shared.file_id.hex()]
        peers = [Address.parse(node.addresses[0])]
        result = await face.get(shared.link, user, peers=peers)
        assert result.path.read_bytes() == DATA
        assert await face.status(home) == node.status()
        await face.unshare(shared.file_id.hex()[:8], home)
        assert node.status()["shares"] == []
    assert await face.status(home) is None


async def test_order_is_finished_shared_and_forgotten(tmp_path: Path, source: Path) -> None:
    home, user = config_at(tmp_path / "home"), config_at(tmp_path / "user")
    shared = await face.share(source, home)
    async with running(home) as (seed, _), running(user) as (node, events):
        out = tmp_path / "out.bin"
        peers = [Address.parse(seed.addresses[0])]
        await face.detach(shared.link, user, output=out, peers=peers)
        await told(events, f"finished {out}")
        assert out.read_bytes() == DATA
        assert Orders(user.data_dir).list() == ([], [])
        assert [item.path for item in face.shares(user)] == [out]
        assert node.status()["downloads"] == []


async def test_a_download_that_is_handed_to_a_node_keeps_what_its_link_said(
    tmp_path: Path, source: Path
) -> None:
    home, user = config_at(tmp_path / "home"), config_at(tmp_path / "user")
    async with open_tracker(TestTracker()) as tracker:
        named = [Tracker.parse(tracker.url("udp"))]
        shared = await face.share(source, home, trackers=named, private=True)
        async with running(home) as (seed, _):
            link = replace(shared.link, nodes=(seed.node_id,))
            with trio.CancelScope() as killed:

                def kill(event: Event) -> None:
                    if isinstance(event, Started):
                        killed.cancel()

                await face.get(link, user, on_event=kill)
            assert killed.cancelled_caught
            async with running(user) as (node, events):
                await face.detach(Link(shared.file_id), user, output=tmp_path / "copy.bin")
                await told(events, "finished")
                assert node.runtime.swarm.shares[shared.file_id].private
    (item,) = face.shares(user)
    assert item.link == replace(link, name="copy.bin", peers=())


async def test_what_is_wrong_with_a_tracker_is_told(tmp_path: Path, source: Path) -> None:
    nowhere = ["http://127.0.0.1:9/announce"]
    home = apart({"data_dir": tmp_path, "discovery": {**ALONE, "trackers": nowhere}})
    async with running(home):
        await face.share(source, home)
        refused = ["tracker http://127.0.0.1:9: no connection: connection refused"]
        with trio.fail_after(5):
            while await face.troubles(home) != refused:
                pass
        assert await face.peers(home) == []


async def test_orders_wait_for_the_next_start(tmp_path: Path, source: Path) -> None:
    home, user = config_at(tmp_path / "home"), config_at(tmp_path / "user")
    shared = await face.share(source, home)
    async with running(user):
        await face.detach(shared.link, user, output=tmp_path / "out.bin")
    (order,), _ = Orders(user.data_dir).list()
    assert order.link.file_id == shared.file_id
    async with running(home) as (seed, _):
        peers = [Address.parse(seed.addresses[0])]
        async with running(user, peers=peers) as (_, events):
            await told(events, "finished")
    assert (tmp_path / "out.bin").read_bytes() == DATA


async def test_order_that_cannot_be_done_says_so_and_harms_nothing(
    tmp_path: Path, source: Path
) -> None:
    home, user = config_at(tmp_path / "home"), config_at(tmp_path / "user")
    shared = await face.share(source, home)
    async with running(home) as (seed, _), running(user) as (node, events):
        peers = [Address.parse(seed.addresses[0])]
        missing = tmp_path / "missing" / "out.bin"
        await face.detach(shared.link, user, output=missing, peers=peers)
        await told(events, "create it")
        assert node.status()["downloads"] == []


async def test_malformed_order_is_refused(tmp_path: Path) -> None:
    async with running(config_at(tmp_path / "home")) as (node, _):
        with pytest.raises(UsageError):
            await node.accept({"link": "nonsense"})
        with pytest.raises(UsageError):
            await node.accept({})


async def test_bad_entries_are_told_and_the_rest_is_served(tmp_path: Path, source: Path) -> None:
    home = config_at(tmp_path / "home")
    other = tmp_path / "gone.bin"
    other.write_bytes(b"soon gone")
    await face.share(source, home)
    await face.share(other, home)
    other.unlink()
    Orders(home.data_dir).add(DetachedOrder(Link.parse("ab" * 32)))
    (home.data_dir / "orders" / ("00" * 32 + ".json")).write_text("rubbish")
    async with running(home) as (node, events):
        notes = [event.text for event in events if isinstance(event, Note)]
        assert any("gone.bin is gone" in note for note in notes)
        assert any("not a readable order" in note for note in notes)
        assert len(node.status()["downloads"]) <= 1
        names = [share["name"] for share in node.status()["shares"]]
        assert "film.bin" in names


async def test_one_node_per_data_directory(tmp_path: Path) -> None:
    home = config_at(tmp_path / "home")
    async with running(home):
        with pytest.raises(AlreadyRunningError):
            await Node(home).run(listen=ANY_PORT)
    async with running(home):
        pass


async def test_taken_port_leaves_nothing_behind(tmp_path: Path) -> None:
    async with running(config_at(tmp_path / "one")) as (one, _):
        other = config_at(tmp_path / "two")
        with pytest.raises(EnvironmentFault, match="taken"):
            await Node(other).run(listen=Address.parse(one.addresses[0]))
        async with running(other):
            pass
