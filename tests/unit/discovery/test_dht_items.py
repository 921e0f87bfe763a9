"""What is stored under a node id in a DHT of real nodes on loopback."""

from __future__ import annotations

import pytest
import trio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from furymesh.discovery.dht import DhtSettings, open_dht
from furymesh.discovery.dht_items import MAX_ITEM
from furymesh.net.identity import Identity
from tests.dht import DhtNetwork

SALT = b"test"


def identity() -> Identity:
    return Identity(Ed25519PrivateKey.generate())


async def test_what_is_stored_under_a_node_id_is_read_elsewhere(dht_nodes: DhtNetwork) -> None:
    me = identity()
    async with (
        open_dht(DhtSettings((dht_nodes.entrances[0],), "127.0.0.20")) as one,
        open_dht(DhtSettings((dht_nodes.entrances[1],), "127.0.0.21")) as two,
    ):
        await one.joined.wait()
        await two.joined.wait()
        assert await one.items.put(me, SALT, b"first \0\xff") > 0
        assert await two.items.get(me.node_id, SALT) == b"first \0\xff"
        assert await one.items.put(me, SALT, b"second") > 0
        assert await two.items.get(me.node_id, SALT) == b"second"
        assert await two.items.get(me.node_id, b"other salt", 1.0) is None
        assert await two.items.get(identity().node_id, SALT, 1.0) is None


async def test_a_value_that_no_node_would_take_is_refused() -> None:
    async with open_dht(DhtSettings(host="127.0.0.20")) as dht:
        with pytest.raises(ValueError, match="too long"):
            await dht.items.put(identity(), SALT, bytes(MAX_ITEM))


async def test_without_any_other_node_requests_end_without_an_answer() -> None:
    async with open_dht(DhtSettings(host="127.0.0.20")) as dht:
        await dht.joined.wait()
        with trio.fail_after(5):
            assert await dht.items.put(identity(), SALT, b"value", 0.5) == 0
            assert await dht.items.get(identity().node_id, SALT, 0.5) is None
