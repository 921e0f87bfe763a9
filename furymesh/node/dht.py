"""Whether and how a node takes part in the DHT."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from random import Random

from furymesh.core.link import Address
from furymesh.discovery import dht_state
from furymesh.discovery.dht import DhtSettings
from furymesh.discovery.dht_source import DhtSource
from furymesh.net.addresses import is_loopback
from furymesh.net.connect import Endpoint
from furymesh.net.interfaces import ANY, reachable_hosts
from furymesh.node.config import PUBLIC_BOOTSTRAP, Config


def dht_source(
    config: Config, endpoint: Endpoint, listening: Sequence[str], rng: Random, *, lasting: bool
) -> DhtSource | None:
    """The DHT as a source of peers, unless it is off, of no use or not installed.

    Nothing of a private swarm is told there. `listening` has the IP addresses on which
    links are accepted. One process of a node, the `lasting` one, keeps its record.
    """
    dht = config.discovery.dht
    # Nobody out there can dial this machine's loopback, nor does it lead there.
    unreachable = (
        bool(listening)
        and all(map(is_loopback, listening))
        and dht.bootstrap_nodes == PUBLIC_BOOTSTRAP
    )
    if not dht.enabled or endpoint.private or unreachable or not installed():
        return None
    settings = DhtSettings(
        bootstrap=tuple(map(Address.parse, dht.bootstrap_nodes)),
        host=listening[0] if len(listening) == 1 else ANY,
        port=dht.port,
        state=config.data_dir / dht_state.FILE_NAME,
    )
    return DhtSource(
        settings,
        lambda: [host for bound in listening for host in reachable_hosts(bound)],
        rng,
        identity=endpoint.identity if lasting else None,
    )


def dht_problem(config: Config) -> str | None:
    """A line for the operator who asked for a DHT that is not installed."""
    asked = "enabled" in config.discovery.dht.model_fields_set
    if not asked or not config.discovery.dht.enabled or installed():
        return None
    return (
        "discovery.dht.enabled is true, but libtorrent is not installed, so the DHT is not used:"
        " run `pip install 'furymesh[dht]'`, or take the key out"
    )


def installed() -> bool:
    """Whether libtorrent, which does the work, is there."""
    return importlib.util.find_spec("libtorrent") is not None
