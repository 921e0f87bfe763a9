"""Folder sync put together: the identity, the links, and either end's work.

It needs no running node and starts none: a server or a client of folder sync is a
process of its own with the node id of its data directory.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from furymesh.core.errors import EnvironmentFault
from furymesh.core.ids import NodeId, parse_node_id
from furymesh.core.link import Address
from furymesh.discovery.sync_lan import answer_sync
from furymesh.net.connect import Endpoint, listen
from furymesh.net.identity import load_or_create
from furymesh.net.interfaces import bound_hosts, reachable_addresses
from furymesh.net.tasks import open_tasks
from furymesh.net.throttle import Budget
from furymesh.node.config import Config
from furymesh.node.runtime import opened_keys
from furymesh.node.secret_file import read_psk
from furymesh.storage.files import translating
from furymesh.sync.events import ClientEvent, Note, Report, ServerEvent
from furymesh.sync.pushing import Pusher, Terms
from furymesh.sync.server import SyncServer
from furymesh.wire.exchange import SYNC

LAN_RETRY = 30.0  # seconds before it is tried again to be found on the local network


class Serving:
    """What a server tells once it listens."""

    def __init__(self, node_id: NodeId, addresses: Sequence[str]) -> None:
        self.node_id = node_id
        self.addresses = list(addresses)


async def serve_sync(
    config: Config,
    archive: Path,
    *,
    where: Address,
    rate: int,
    sessions: int,
    allow: Iterable[NodeId],
    on_event: Callable[[ServerEvent], None],
    passphrase: str | None = None,
    task_status: trio.TaskStatus[Serving] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Take in folders below `archive` until cancelled; made if it is missing.

    Clients are asked to come again after `rate` seconds. Raises EnvironmentFault
    (port, folder), LocalDataError (identity), and as `opened_protection` does.
    """
    with translating(archive, "create"):
        archive.mkdir(parents=True, exist_ok=True)
    allowed = {*allow, *map(parse_node_id, config.sync.allow)}
    async with _endpoint(config, passphrase) as endpoint:
        endpoint.allow = frozenset(allowed) or None
        endpoint.features = (SYNC,)
        listeners = listen(where)
        try:
            endpoint.listen_port = listeners[0].getsockname()[1]
            server = SyncServer(
                archive, config.data_dir, rate=rate, sessions=sessions, on_event=on_event
            )
            addresses = reachable_addresses(listeners)
            async with open_tasks() as nursery:
                nursery.start_soon(endpoint.serve, listeners, server.run_link)
                if config.discovery.lan.enabled:
                    nursery.start_soon(_be_found, endpoint, bound_hosts(listeners), on_event)
                task_status.started(Serving(endpoint.identity.node_id, addresses))
        finally:
            for sock in listeners:
                sock.close()


async def push_folder(
    config: Config,
    terms: Terms,
    *,
    on_event: Callable[[ClientEvent], None],
    max_upload: float | None = None,
    passphrase: str | None = None,
) -> Report:
    """Keep a folder in step with a server, until cancelled, or once; see `Pusher.run`.

    `max_upload` is in bytes a second.
    """
    async with _endpoint(config, passphrase) as endpoint:
        if max_upload:
            endpoint.upload = [Budget(max_upload)]
        pusher = Pusher(endpoint, config.data_dir, terms, random.Random(), on_event)
        return await pusher.run()


@asynccontextmanager
async def _endpoint(config: Config, passphrase: str | None) -> AsyncIterator[Endpoint]:
    async with opened_keys(config, passphrase) as protection:
        identity = await trio.to_thread.run_sync(load_or_create, config.data_dir, protection)
        yield Endpoint(identity, psk=read_psk(config.node.psk_file))


async def _be_found(
    endpoint: Endpoint, hosts: Sequence[str], on_event: Callable[[ServerEvent], None]
) -> None:
    """Answer on the local network; without one, try again now and then."""
    said = ""
    node_id, port = endpoint.identity.node_id, endpoint.listen_port
    while True:
        try:
            async with open_tasks():
                await answer_sync(node_id, endpoint.instance, port, hosts, random.Random())
        except EnvironmentFault as error:
            if str(error) != said:
                said = str(error)
                on_event(Note(said))
        await trio.sleep(LAN_RETRY)
