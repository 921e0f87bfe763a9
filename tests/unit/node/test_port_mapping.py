"""Whose port a router is asked to forward, and whose not."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from furymesh.core.ids import NodeId
from furymesh.net.connect import Endpoint
from furymesh.net.identity import Identity
from furymesh.node.config import Config
from furymesh.node.port_mapping import mapping_problem, port_mapper

EVERYWHERE = ["0.0.0.0"]


def config(tmp_path: Path, **discovery: Any) -> Config:
    return Config.model_validate({"data_dir": tmp_path, "discovery": discovery})


def asks(config: Config, listening: list[str], **endpoint: Any) -> bool:
    end = Endpoint(Identity(Ed25519PrivateKey.generate()), listen_port=7654, **endpoint)
    return port_mapper(config, end, listening, lambda mapping: None) is not None


def test_by_default_a_router_is_asked_for_those_whom_it_may_hide(tmp_path: Path) -> None:
    default = config(tmp_path)
    assert asks(default, EVERYWHERE)
    assert asks(default, ["192.168.1.7"])
    assert asks(default, ["::", "10.0.0.7"])
    for of_no_use in ([], ["127.0.0.1"], ["1.2.3.4"], ["::"], ["fd00::1"]):
        assert not asks(default, of_no_use)
    assert not asks(config(tmp_path, port_mapping=False), EVERYWHERE)


def test_a_private_swarm_is_opened_only_on_demand(tmp_path: Path) -> None:
    demand = config(tmp_path, port_mapping=True)
    for private in ({"psk": os.urandom(32)}, {"allow": frozenset([NodeId(bytes(32))])}):
        assert not asks(config(tmp_path), EVERYWHERE, **private)
        assert asks(demand, EVERYWHERE, **private)


def test_without_libtorrent_only_who_asked_for_it_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    demand = config(tmp_path, port_mapping=True)
    assert mapping_problem(demand) is None
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert not asks(demand, EVERYWHERE)
    assert "pip install 'furymesh[dht]'" in str(mapping_problem(demand))
    assert mapping_problem(config(tmp_path)) is None
    assert mapping_problem(config(tmp_path, port_mapping=False)) is None
