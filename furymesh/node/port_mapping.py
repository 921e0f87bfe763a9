"""Whether a node has its port forwarded by the router in front of it."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence

import trio

from furymesh.core.errors import EnvironmentFault
from furymesh.discovery.port_mapper import PortMapper
from furymesh.discovery.source import Mapping
from furymesh.net.addresses import is_loopback, is_public
from furymesh.net.connect import Endpoint
from furymesh.net.tasks import open_tasks
from furymesh.node.config import Config
from furymesh.node.dht import installed

LOOK_SECONDS = 0.1  # between two looks whether a router has answered


def port_mapper(
    config: Config,
    endpoint: Endpoint,
    listening: Sequence[str],
    changed: Callable[[Mapping | None], None],
) -> PortMapper | None:
    """What asks the router, unless it is not to, or of no use, or libtorrent is not installed.

    `listening` has the IP addresses on which links are accepted. A private swarm is
    opened to the internet only where the configuration says so.
    """
    asked = config.discovery.port_mapping
    if asked is False or (asked is None and endpoint.private) or not installed():
        return None
    host = forwardable(listening)
    return None if host is None else PortMapper(endpoint.listen_port, host, changed)


def forwardable(listening: Sequence[str]) -> str | None:
    """The first of these addresses that others may fail to reach for a router's sake."""
    return next(
        (host for host in listening if not (":" in host or is_loopback(host) or is_public(host))),
        None,
    )


def mapping_problem(config: Config) -> str | None:
    """A line for the operator who asked for it where it cannot be had."""
    if not config.discovery.port_mapping or installed():
        return None
    return (
        "discovery.port_mapping is true, but libtorrent is not installed, so no router is asked:"
        " run `pip install 'furymesh[dht]'`, or take the key out"
    )


async def try_mapping(host: str, seconds: float) -> tuple[Mapping | None, dict[str, str]]:
    """What a router grants to a port at `host` that nobody uses, and what it says instead.

    It is taken back. Raises EnvironmentFault.
    """
    granted: list[Mapping | None] = [None]
    try:
        free = socket.create_server((host, 0))
    except OSError as error:
        raise EnvironmentFault(f"no port to try the router with: {error.strerror}") from None
    with free:
        mapper = PortMapper(free.getsockname()[1], host, granted.append)
        with trio.move_on_after(seconds):
            async with open_tasks() as nursery:
                nursery.start_soon(mapper.run)
                while (mapping := granted[-1]) is None or not mapping.host:
                    await trio.sleep(LOOK_SECONDS)
                nursery.cancel_scope.cancel()
    return granted[-1], mapper.troubles
