"""No order, however bad, and no moment at which it comes may end the node."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import httpx
import pytest
import trio
import trio.testing

from furymesh.core.errors import (
    EnvironmentFault,
    IllegalStateError,
    LocalDataError,
    UnavailableError,
    UsageError,
)
from furymesh.core.link import Address, Link
from furymesh.discovery.book import Source
from furymesh.node import face
from furymesh.node.control_client import call
from furymesh.node.orders import DetachedOrder, Orders
from furymesh.node.runtime import open_runtime
from furymesh.storage.catalog import Catalog
from furymesh.storage.order import Order
from furymesh.swarm.download import Download, Terms
from furymesh.swarm.events import Event, Note
from furymesh.swarm.share import Share
from tests.unit.node.test_service import config_at, running, told
from tests.waiting import until

DATA = Random(10).randbytes(100_000)
ANY_PORT = Address("127.0.0.1", 0)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "film.bin"
    path.write_bytes(DATA)
    return path


def notes(events: list[Event]) -> list[str]:
    return [event.text for event in events if isinstance(event, Note)]


async def test_same_order_twice_at_once_is_one_download(tmp_path: Path) -> None:
    value = DetachedOrder(Link.parse("ab" * 32), tmp_path / "out.bin").encode()
    async with running(config_at(tmp_path / "home")) as (node, events):
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(node.accept, value)
        await node.accept(value)
        await until(lambda: node.status()["downloads"])
        await trio.testing.wait_all_tasks_blocked(0.05)  # a second one would have begun by then
        assert len(node.status()["downloads"]) == 1
        assert notes(events) == []


async def test_waiting_for_the_next_try_is_not_done_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[Download] = []

    async def nobody(self: Download, links: trio.Nursery) -> None:
        tries.append(self)
        raise UnavailableError("nobody there")

    monkeypatch.setattr(Download, "run", nobody)
    value = DetachedOrder(Link.parse("ab" * 32)).encode()
    async with running(config_at(tmp_path / "home")) as (node, events):
        await node.accept(value)
        await told(events, "nobody there")
        await node.accept(value)
        await trio.testing.wait_all_tasks_blocked(0.05)  # a second try would have begun by then
        assert len(tries) == 1


async def test_order_that_cannot_be_kept_may_come_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = config_at(tmp_path / "home")
    value = DetachedOrder(Link.parse("ab" * 32)).encode()
    async with running(home) as (node, _):
        with monkeypatch.context() as patch:

            def fail(self: Orders, order: DetachedOrder) -> None:
                raise EnvironmentFault("no room")

            patch.setattr(Orders, "add", fail)
            with pytest.raises(EnvironmentFault):
                await node.accept(value)
        await node.accept(value)
        assert len(Orders(home.data_dir).list()[0]) == 1


async def test_bug_in_one_order_is_a_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(self: Download, links: trio.Nursery) -> None:
        async with trio.open_nursery():
            raise IllegalStateError("two and two")

    monkeypatch.setattr(Download, "run", broken)
    home = config_at(tmp_path / "home")
    async with running(home) as (node, events):
        await node.accept(DetachedOrder(Link.parse("ab" * 32)).encode())
        await told(events, "two and two")
        assert node.status()["downloads"] == []
        assert len(Orders(home.data_dir).list()[0]) == 1, "kept for the next start"


@pytest.mark.parametrize("output", ["/tmp/a\0b", "/" + "x" * 300 + "/y", "/" + "y/" * 5000 + "x"])
async def test_impossible_outputs_leave_the_node_alone(
    tmp_path: Path, source: Path, output: str
) -> None:
    home, user = config_at(tmp_path / "home"), config_at(tmp_path / "user")
    shared = await face.share(source, home)
    async with running(home) as (seed, _), running(user) as (node, events):
        link = Link(shared.file_id, peers=(Address.parse(seed.addresses[0]),))
        value = {"link": link.text, "output": output}
        try:
            await call(user.api.socket, "POST", "/v1/downloads", value)
        except UsageError:
            assert "\0" in output
        else:
            await told(events, "cannot look at")
        assert node.status()["downloads"] == []


async def test_nested_request_is_the_callers_fault(tmp_path: Path) -> None:
    home = config_at(tmp_path / "home")
    async with running(home):
        transport = httpx.AsyncHTTPTransport(uds=str(home.api.socket))
        async with httpx.AsyncClient(transport=transport) as client:
            response = await client.post("http://node/v1/downloads", content="[" * 60_000)
        assert response.status_code == 400


async def test_content_that_cannot_be_shared_on_is_finished_all_the_same(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any, **options: Any) -> None:
        raise LocalDataError("the manifest is not here")

    monkeypatch.setattr("furymesh.node.runtime.adopt", fail)
    home, user = config_at(tmp_path / "home"), config_at(tmp_path / "user")
    shared = await face.share(source, home)
    out = tmp_path / "out.bin"
    async with running(home) as (seed, _), running(user) as (node, events):
        peers = [Address.parse(seed.addresses[0])]
        await face.detach(shared.link, user, output=out, peers=peers)
        await told(events, f"finished {out}")
        await told(events, "the manifest is not here")
        assert Orders(user.data_dir).list() == ([], [])
        assert node.status()["downloads"] == []


async def test_order_of_what_is_shared_already_is_dropped(tmp_path: Path, source: Path) -> None:
    home = config_at(tmp_path / "home")
    shared = await face.share(source, home)
    Orders(home.data_dir).add(DetachedOrder(Link(shared.file_id, "film.bin")))
    async with running(home) as (node, events):
        await told(events, "film.bin is here already")
        assert Orders(home.data_dir).list() == ([], [])
        await node.accept(DetachedOrder(Link(shared.file_id, "again")).encode())
        await told(events, "again is here already")
        assert Orders(home.data_dir).list() == ([], [])


async def test_reloading_twice_at_once_adds_one_share(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = config_at(tmp_path / "home")
    await face.share(source, home)
    with trio.fail_after(10):
        async with open_runtime(home, listen_on=None) as runtime:
            added: list[Share] = []
            add = runtime.swarm.add

            def counting(share: Share) -> None:
                added.append(share)
                add(share)

            monkeypatch.setattr(runtime.swarm, "add", counting)
            async with trio.open_nursery() as nursery:
                for _ in range(4):
                    nursery.start_soon(runtime.load_catalog)
            assert len(added) == 1


async def test_reload_before_adoption_keeps_the_share(tmp_path: Path, source: Path) -> None:
    home, user = config_at(tmp_path / "home"), config_at(tmp_path / "user")
    shared = await face.share(source, home)
    with trio.fail_after(10):
        async with (
            open_runtime(home, listen_on=ANY_PORT) as seed,
            open_runtime(user, listen_on=None) as runtime,
        ):
            await seed.load_catalog()
            order = Order(shared.file_id, output=tmp_path / "out.bin")
            address = Address.parse(seed.addresses[0])
            runtime.swarm.book.add(shared.file_id, address, Source.USER)
            download = runtime.download(order, Terms(), lambda event: None)
            result = await download.run(runtime.links)
            await runtime.load_catalog()
            assert shared.file_id in runtime.swarm.shares
            await runtime.adopt(result, Link(result.file_id))
            await runtime.load_catalog()
            assert shared.file_id in runtime.swarm.shares
            Catalog(user.data_dir).remove(shared.file_id)
            await runtime.load_catalog()
            assert shared.file_id not in runtime.swarm.shares


async def test_unsharing_right_after_adoption_takes_effect(tmp_path: Path, source: Path) -> None:
    home, user = config_at(tmp_path / "home"), config_at(tmp_path / "user")
    shared = await face.share(source, home)
    async with running(home) as (seed, _), running(user) as (node, events):
        peers = [Address.parse(seed.addresses[0])]
        await face.detach(shared.link, user, output=tmp_path / "out.bin", peers=peers)
        await told(events, "finished")
        await face.unshare(shared.file_id.hex(), user)
        assert node.status()["shares"] == []


async def test_sharing_again_from_elsewhere_reaches_a_running_node(
    tmp_path: Path, source: Path
) -> None:
    home, user = config_at(tmp_path / "home"), config_at(tmp_path / "user")
    shared = await face.share(source, home)
    async with running(home) as (node, _):
        moved = source.rename(tmp_path / "moved.bin")
        again = await face.share(moved, home)
        assert again.file_id == shared.file_id
        peers = [Address.parse(node.addresses[0])]
        result = await face.get(shared.link, user, peers=peers, output=tmp_path / "out.bin")
        assert result.path.read_bytes() == DATA


async def test_out_of_reach_entries_are_told(tmp_path: Path, source: Path) -> None:
    home = config_at(tmp_path / "home")
    shared = await face.share(source, home)
    entry = Catalog(home.data_dir).get(shared.file_id)
    assert entry is not None
    link = tmp_path / "loop"
    link.symlink_to(link)
    catalog = Catalog(home.data_dir)
    manifest = catalog.manifests.load(shared.file_id)
    assert manifest is not None
    catalog.add(replace(entry, path=link / ("x" * 300)), manifest)
    async with running(home) as (node, events):
        assert node.status()["shares"] == []
        assert len(notes(events)) == 1
