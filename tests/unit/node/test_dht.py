"""Who takes part in the DHT, and who does not."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from random import Random
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from furymesh.core.ids import NodeId
from furymesh.core.link import Address
from furymesh.discovery.dht import DhtSettings
from furymesh.discovery.dht_source import DhtSource
from furymesh.net.connect import Endpoint
from furymesh.net.identity import Identity
from furymesh.node.config import PUBLIC_BOOTSTRAP, Config
from furymesh.node.dht import dht_problem, dht_source

LAN = ["192.0.2.7"]


def config(tmp_path: Path, **dht: Any) -> Config:
    return Config.model_validate({"data_dir": tmp_path, "discovery": {"dht": dht}})


def endpoint(**changes: Any) -> Endpoint:
    return Endpoint(Identity(Ed25519PrivateKey.generate()), **changes)


def source(config: Config, endpoint: Endpoint, listening: list[str]) -> DhtSource | None:
    return dht_source(config, endpoint, listening, Random(1), lasting=True)


@pytest.fixture
def not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)


def test_by_default_the_public_dht_is_used(tmp_path: Path) -> None:
    made = source(config(tmp_path), endpoint(), LAN)
    assert made is not None
    assert made._settings == DhtSettings(
        tuple(map(Address.parse, PUBLIC_BOOTSTRAP)), "192.0.2.7", 0, tmp_path / "dht.state"
    )


def test_what_is_configured_is_used(tmp_path: Path) -> None:
    chosen = config(tmp_path, bootstrap_nodes=["192.0.2.9:6881"], port=6881)
    made = source(chosen, endpoint(), ["192.0.2.7", "192.0.2.8"])
    assert made is not None
    assert made._settings.bootstrap == (Address("192.0.2.9", 6881),)
    assert (made._settings.host, made._settings.port) == ("0.0.0.0", 6881)


def test_nothing_of_a_private_swarm_is_told_there(tmp_path: Path) -> None:
    assert source(config(tmp_path), endpoint(psk=os.urandom(32)), LAN) is None
    assert source(config(tmp_path), endpoint(allow=frozenset([NodeId(bytes(32))])), LAN) is None


def test_it_can_be_turned_off(tmp_path: Path) -> None:
    assert source(config(tmp_path, enabled=False), endpoint(), LAN) is None


def test_who_can_only_be_reached_from_this_machine_is_not_announced_to_the_world(
    tmp_path: Path,
) -> None:
    assert source(config(tmp_path), endpoint(), ["127.0.0.1"]) is None
    own = config(tmp_path, bootstrap_nodes=["127.0.0.2:6881"])
    assert source(own, endpoint(), ["127.0.0.1"]) is not None


def test_who_accepts_no_links_looks_all_the_same(tmp_path: Path) -> None:
    made = source(config(tmp_path), endpoint(), [])
    assert made is not None
    assert made._settings.host == "0.0.0.0"


def test_only_the_lasting_process_of_a_node_keeps_its_record(tmp_path: Path) -> None:
    end = endpoint()
    for lasting in (True, False):
        made = dht_source(config(tmp_path), end, LAN, Random(1), lasting=lasting)
        assert made is not None
        assert made._identity is (end.identity if lasting else None)


@pytest.mark.usefixtures("not_installed")
def test_without_libtorrent_there_is_no_dht_and_only_who_asked_for_it_is_told(
    tmp_path: Path,
) -> None:
    assert source(config(tmp_path), endpoint(), LAN) is None
    assert dht_problem(config(tmp_path)) is None
    assert dht_problem(config(tmp_path, enabled=False)) is None
    assert "pip install 'furymesh[dht]'" in str(dht_problem(config(tmp_path, enabled=True)))


def test_with_libtorrent_there_is_no_problem(tmp_path: Path) -> None:
    assert dht_problem(config(tmp_path, enabled=True)) is None
