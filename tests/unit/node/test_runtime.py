from __future__ import annotations

import os
from pathlib import Path

import pytest
import trio

from furymesh.core.errors import EnvironmentFault, LocalDataError
from furymesh.core.link import Address
from furymesh.net.throttle import Budget
from furymesh.node import face
from furymesh.node.config import Config
from furymesh.node.runtime import download_settings, open_runtime

HERE = Address("127.0.0.1", 0)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config.at(tmp_path / "home")


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


async def test_without_a_listener_nobody_can_come(config: Config) -> None:
    face.identity(config)
    async with open_runtime(config, listen_on=None) as runtime:
        assert runtime.addresses == []
        assert runtime.endpoint.listen_port == 0


async def test_ending_says_goodbye_to_every_peer(config: Config, tmp_path: Path) -> None:
    other = Config.at(tmp_path / "other")
    face.identity(config)
    face.identity(other)
    with trio.fail_after(5):
        async with open_runtime(other, listen_on=None) as two:
            async with open_runtime(config, listen_on=HERE) as one:
                link = await two.endpoint.dial(Address.parse(one.addresses[0]))
                two.links.start_soon(two.swarm.run_link, link)
                while not one.swarm.links:
                    await trio.sleep(0.005)
            while two.swarm.links:
                await trio.sleep(0.005)
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
    key.write_text(text)
    config = Config.model_validate({"data_dir": tmp_path / "home", "node": {"psk_file": str(key)}})
    face.identity(config)
    with pytest.raises(LocalDataError, match="pre-shared key"):
        async with open_runtime(config, listen_on=None):
            pass


async def test_taken_port(config: Config) -> None:
    face.identity(config)
    async with open_runtime(config, listen_on=HERE) as runtime:
        taken = Address("127.0.0.1", runtime.endpoint.listen_port)
        with pytest.raises(EnvironmentFault, match="the port is taken"):
            async with open_runtime(config, listen_on=taken):
                pass


def test_settings_come_from_the_configuration(tmp_path: Path) -> None:
    config = Config.model_validate(
        {
            "data_dir": tmp_path,
            "storage": {"reserve": "5MiB", "download_dir": str(tmp_path / "down")},
            "transfer": {"resume_enabled": False, "resume_save_interval": 7},
        }
    )
    settings = download_settings(config)
    assert settings.reserve == 5 * 1024 * 1024
    assert settings.download_dir == tmp_path / "down"
    assert (settings.resume_enabled, settings.save_interval) == (False, 7)
    assert os.fspath(settings.resume_dir) == str(tmp_path / "resume")
