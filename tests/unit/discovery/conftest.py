"""A DHT of real nodes, made anew for each test that asks for it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.dht import DhtNetwork, dht_network


@pytest.fixture
def dht_nodes() -> Iterator[DhtNetwork]:
    with dht_network() as network:
        yield network
