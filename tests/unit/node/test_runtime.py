from __future__ import annotations

import os
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import trio

from furymesh.core.errors import EnvironmentFault, LocalDataError
from furymesh.core.ids import NodeId
from furymesh.core.link import Address
from furymesh.discovery.book import Source
from furymesh.discovery.source import Mapping
from furymesh.net.secure_link import SecureLink
from furymesh.net.throttle import SHARED_CREDIT_SECONDS, Budget
from furymesh.node import face
from furymesh.node.config import Config
from furymesh.node.runtime import Runtime, download_settings, open_runtime
from furymesh.storage.order import Order
from furymesh.swarm.download import Download, Terms
from furymesh.wire.messages import Reason
from tests.apart import apart
from tests.waiting import until

HERE = Address("127.0.0.1", 0)
FIRST_READ = 1 << 20  # bytes that one receive takes in


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return apart({"data_dir": tmp_path / "home"})


def rates(budgets: list[Budget]) -> list[float | None]:
    return [budget.rate for budget in budgets]


async def test_addresses_are_where_links_are_accepted(config: Config) -> None:
    face.identity(config)
    async with open_runtime(config, listen_on=HERE) as runtime:
        (address,) = runtime.addresses
        port = Address.parse(address).port
        assert runtime.endpoint.listen_port == port
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        await stream.aclose()
    with pytest.raises(OSError, match="all attempts"):
        await trio.open_tcp_stream("127.0.0.1", port)


async def test_where_a_router_lets_others_in_is_an_address_too(config: Config) -> None:
    async with open_runtime(config, listen_on=HERE) as runtime:
        (own,) = runtime.addresses
        said: list[str] = []
        runtime.swarm.report = said.append
        runtime.discovery._mapped(Mapping(40001, "1.2.3.4"))
        assert runtime.addresses == [own, "1.2.3.4:40001"]
        assert runtime.endpoint.public_port == 40001
        runtime.discovery._mapped(Mapping(40001))
        assert runtime.addresses == [own]
        runtime.discovery._mapped(None)
        assert runtime.endpoint.public_port == 0
        assert len(said) == 3
        assert "1.2.3.4:40001" in said[0]


async def test_without_a_listener_nobody_can_come(config: Config) -> None:
    face.identity(config)
    async with open_runtime(config, listen_on=None) as runtime:
        assert runtime.addresses == []
        assert runtime.endpoint.listen_port == 0


async def test_ending_says_goodbye_to_every_peer(config: Config, tmp_path: Path) -> None:
    other = apart({"data_dir": tmp_path / "other"})
    face.identity(config)
    face.identity(other)
    with trio.fail_after(15):
        async with open_runtime(other, listen_on=None) as two:
            async with open_runtime(config, listen_on=HERE) as one:
                link = await two.endpoint.dial(Address.parse(one.addresses[0]))
                two.links.start_soon(two.swarm.run_link, link)
                await until(lambda: one.swarm.links)
            await until(lambda: not two.swarm.links)
            assert "shutting down" in str(link.closed_because)


async def test_catalog_is_followed(config: Config, tmp_path: Path) -> None:
    source = tmp_path / "a"
    source.write_bytes(b"some bytes")
    face.identity(config)
    async with open_runtime(config, listen_on=None) as runtime:
        shared = await face.share(source, config)
        assert await runtime.load_catalog() == []
        assert set(runtime.swarm.shares) == {shared.file_id}
        assert await runtime.load_catalog() == []
        await face.unshare(shared.file_id.hex(), config)
        await runtime.load_catalog()
        assert not runtime.swarm.shares


async def test_limits_hold_over_all_links(config: Config) -> None:
    face.identity(config)
    async with open_runtime(config, listen_on=None) as runtime:
        assert runtime.endpoint.upload == runtime.endpoint.download == []
    async with open_runtime(config, listen_on=None, max_upload=1e6, max_download=2e6) as runtime:
        assert rates(runtime.endpoint.upload) == [1e6]
        assert rates(runtime.endpoint.download) == [2e6]


@pytest.mark.parametrize("text", ["", "zz" * 32, "ab" * 31])
async def test_bad_pre_shared_key(tmp_path: Path, text: str) -> None:
    key = tmp_path / "psk"
    key.touch(mode=0o600)
    key.write_text(text)
    config = apart({"data_dir": tmp_path / "home", "node": {"psk_file": str(key)}})
    face.identity(config)
    with pytest.raises(LocalDataError, match="pre-shared key"):
        async with open_runtime(config, listen_on=None):
            pass


async def test_pre_shared_key_that_others_may_read_is_refused(tmp_path: Path) -> None:
    key = tmp_path / "psk"
    key.touch(mode=0o640)
    key.write_text("ab" * 32)
    config = apart({"data_dir": tmp_path / "home", "node": {"psk_file": str(key)}})
    with pytest.raises(EnvironmentFault, match="chmod 600"):
        async with open_runtime(config, listen_on=None):
            pass


async def test_a_key_in_place_of_its_file_is_not_repeated(tmp_path: Path) -> None:
    psk = "5a" * 32
    config = apart({"data_dir": tmp_path / "home", "node": {"psk_file": psk}})
    with pytest.raises(EnvironmentFault, match=r"psk_file.* not the secret") as caught:
        async with open_runtime(config, listen_on=None):
            pass
    assert psk not in str(caught.value)


async def test_taken_port(config: Config) -> None:
    face.identity(config)
    async with open_runtime(config, listen_on=HERE) as runtime:
        taken = Address("127.0.0.1", runtime.endpoint.listen_port)
        with pytest.raises(EnvironmentFault, match="the port is taken"):
            async with open_runtime(config, listen_on=taken):
                pass


def test_settings_come_from_the_configuration(tmp_path: Path) -> None:
    config = apart(
        {
            "data_dir": tmp_path,
            "storage": {
                "reserve": "5MiB",
                "check_space": False,
                "download_dir": str(tmp_path / "down"),
            },
            "transfer": {"resume_enabled": False, "resume_save_interval": 7},
        }
    )
    settings = download_settings(config)
    assert settings.reserve == 5 * 1024 * 1024
    assert settings.check_space is False
    assert settings.download_dir == tmp_path / "down"
    assert (settings.resume_enabled, settings.save_interval) == (False, 7)
    assert os.fspath(settings.resume_dir) == str(tmp_path / "resume")


# --- how many links -----------------------------------------------------------------------


def narrow(tmp_path: Path, name: str, links: int = 200) -> Config:
    home = {"data_dir": tmp_path / name, "node": {"max_connections": links}}
    config = apart(home)
    face.identity(config)
    return config


async def dialled(one: Runtime, other: Runtime) -> SecureLink:
    link = await one.endpoint.dial(Address.parse(other.addresses[0]))
    one.links.start_soon(one.swarm.run_link, link)
    return link


async def wants(runtime: Runtime, shared: face.Shared, *sources: Runtime) -> Download:
    """A download that dials these nodes; it is run by the caller."""
    for source in sources:
        address = Address.parse(source.addresses[0])
        runtime.swarm.book.add(shared.file_id, address, Source.USER)
    order = Order(shared.file_id, output=runtime.config.data_dir / "copy")
    return runtime.download(order, Terms(timeout=5), lambda event: None)


async def test_no_more_links_than_configured_are_accepted(tmp_path: Path) -> None:
    async with (
        open_runtime(narrow(tmp_path, "one", 2), listen_on=HERE) as one,
        open_runtime(narrow(tmp_path, "two"), listen_on=HERE) as two,
        open_runtime(narrow(tmp_path, "three"), listen_on=None) as three,
        open_runtime(narrow(tmp_path, "four"), listen_on=None) as four,
    ):
        await dialled(one, two)  # counts like those that were accepted
        stranger = await dialled(three, one)
        await until(lambda: len(one.swarm.links) == 2)
        newcomer = await dialled(four, one)
        await until(lambda: stranger.closed_because)
        await until(lambda: len(one.swarm.links) == 2)
        assert newcomer.closed_because is None


async def test_no_more_links_than_configured_are_dialled(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(bytes(3_000_000))
    configs = [narrow(tmp_path, name) for name in ("two", "three", "four")]
    for config in configs:
        shared = await face.share(source, config)
    async with AsyncExitStack() as stack:
        seeds = [
            await stack.enter_async_context(open_runtime(config, listen_on=HERE))
            for config in configs
        ]
        for seed in seeds:
            assert await seed.load_catalog() == []
        one = await stack.enter_async_context(
            open_runtime(narrow(tmp_path, "one", 2), listen_on=None)
        )
        most = 0

        async def count() -> None:
            nonlocal most
            while True:
                most = max(most, len(one.swarm.links) + one.swarm.admission.dialling)
                await trio.lowlevel.checkpoint()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(count)
            download = await wants(one, shared, *seeds)
            download.share.download.rate = 10**7
            result = await download.run(one.links)
            nursery.cancel_scope.cancel()
        assert result.bytes_fetched == 3_000_000
        assert most == 2


async def test_who_only_takes_makes_way_for_who_gives(tmp_path: Path) -> None:
    """A node whose places are all taken can still download, and then has as many links."""
    source = tmp_path / "source"
    source.write_bytes(bytes(300_000))
    seed_config = narrow(tmp_path, "seed")
    shared = await face.share(source, seed_config)
    async with (
        open_runtime(seed_config, listen_on=HERE) as seed,
        open_runtime(narrow(tmp_path, "one", 2), listen_on=HERE) as one,
        open_runtime(narrow(tmp_path, "two"), listen_on=None) as two,
        open_runtime(narrow(tmp_path, "three"), listen_on=None) as three,
    ):
        await seed.load_catalog()
        first = await dialled(two, one)
        await until(lambda: len(one.swarm.links) == 1)
        last = await dialled(three, one)
        await until(lambda: len(one.swarm.links) == 2)
        download = await wants(one, shared, seed)
        await download.run(one.links)
        await until(lambda: last.closed_because)
        assert last.farewell is Reason.BUSY
        assert first.closed_because is None
        assert len(one.swarm.links) == 2


# --- limits of a download -----------------------------------------------------------------


async def test_a_download_of_a_node_has_limits_of_its_own(tmp_path: Path) -> None:
    size, rate = 2_000_000, 10**6
    source = tmp_path / "source"
    source.write_bytes(bytes(size))
    limits = {"max_upload": "2M", "max_download": str(rate)}
    config = apart({"data_dir": tmp_path / "one", "transfer": limits})
    seed_config = narrow(tmp_path, "seed")
    face.identity(config)
    shared = await face.share(source, seed_config)
    async with (
        open_runtime(seed_config, listen_on=HERE) as seed,
        open_runtime(config, listen_on=None) as one,
    ):
        await seed.load_catalog()
        download = await wants(one, shared, seed)
        share = download.share
        with one.limited(download):
            assert (share.upload.rate, share.download.rate) == (2e6, 1e6)
            result = await download.run(one.links)
        # Until its first chunk begins, what a link brings is not known to be of this download.
        assert result.seconds > (size - FIRST_READ) / rate - SHARED_CREDIT_SECONDS
        assert (share.upload.rate, share.download.rate) == (None, None)


async def test_what_is_sent_of_a_download_has_a_limit_of_its_own(tmp_path: Path) -> None:
    size, rate = 800_000, 10**6
    source = tmp_path / "source"
    source.write_bytes(bytes(size))
    seed_config = narrow(tmp_path, "seed")
    shared = await face.share(source, seed_config)
    async with (
        open_runtime(seed_config, listen_on=HERE) as seed,
        open_runtime(narrow(tmp_path, "one"), listen_on=None) as one,
    ):
        await seed.load_catalog()
        seed.swarm.shares[shared.file_id].upload.rate = rate
        result = await (await wants(one, shared, seed)).run(one.links)
        assert result.seconds > 0.95 * size / rate - SHARED_CREDIT_SECONDS


async def test_ban_outlives_the_process(config: Config, tmp_path: Path) -> None:
    face.identity(config)
    async with open_runtime(config, listen_on=None) as runtime:
        runtime.swarm.admission.bans.add(NodeId(b"a" * 32), "c0000201")
    async with open_runtime(config, listen_on=None) as runtime:
        assert runtime.swarm.admission.bans.nodes == {b"a" * 32}
        runtime.swarm.admission.bans.add(NodeId(b"b" * 32), "c0000201")
        # Not only at the end: a process may be killed.
        await until(lambda: len(list((config.data_dir / "banned").iterdir())) == 2)
    async with open_runtime(config, listen_on=None) as runtime:
        assert runtime.swarm.admission.bans.holds(NodeId(b"c" * 32), "c0000201")


async def test_damaged_bans_keep_nobody_from_starting(config: Config) -> None:
    face.identity(config)
    (config.data_dir / "banned").mkdir()
    (config.data_dir / "banned" / "x.ban").write_bytes(b"\0")
    async with open_runtime(config, listen_on=None) as runtime:
        assert len(runtime.problems) == 1


async def test_ban_that_cannot_be_kept_is_told_and_counts(config: Config) -> None:
    face.identity(config)
    (config.data_dir / "banned").write_bytes(b"in the way")
    told: list[str] = []
    async with open_runtime(config, listen_on=None) as runtime:
        runtime.swarm.report = told.append
        runtime.swarm.admission.bans.add(NodeId(b"a" * 32), "")
        await until(lambda: told)
        assert runtime.swarm.admission.bans.nodes
    assert len(told) == 1
