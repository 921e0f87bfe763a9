"""One process's place in the swarm: identity, listener, links, shares, downloads.

`open_runtime` is the composition root: everything that holds state is made
here, in one nursery, and ends with it. Both ``furymesh node`` and a one-off
``get`` run on it.
"""

from __future__ import annotations

import random
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from functools import partial

import trio

from furymesh.core.errors import EnvironmentFault, FuryMeshError
from furymesh.core.ids import FileId, NodeId, parse_node_id
from furymesh.core.link import Address, Link
from furymesh.core.protection import PLAIN, Protection
from furymesh.core.units import parse_size
from furymesh.net.connect import Endpoint, listen
from furymesh.net.identity import Identity, load_or_create
from furymesh.net.interfaces import reachable_addresses
from furymesh.net.outgoing import lend_port
from furymesh.net.relay import Relay
from furymesh.net.secure_link import SecureLink
from furymesh.net.tasks import open_tasks
from furymesh.net.throttle import Budget
from furymesh.node import leftovers
from furymesh.node.ban_keeper import BanKeeper
from furymesh.node.config import Config
from furymesh.node.dht import dht_problem
from furymesh.node.discovery import Discovery
from furymesh.node.passphrase import opened_protection
from furymesh.node.port_mapping import mapping_problem
from furymesh.node.secret_file import read_psk
from furymesh.storage.bans import BanStore
from furymesh.storage.catalog import Catalog
from furymesh.storage.catalog_entry import CatalogEntry
from furymesh.storage.content import Content
from furymesh.storage.finished import adopt
from furymesh.storage.order import Order, Settings
from furymesh.storage.scan import Facts
from furymesh.storage.sharing import manifest_of, open_share
from furymesh.swarm.download import Download, Terms
from furymesh.swarm.events import Event, Result
from furymesh.swarm.share import Share
from furymesh.swarm.swarm import Swarm
from furymesh.wire.messages import Reason

FAREWELL_SECONDS = 0.5  # for goodbyes to get out when the process ends


class Runtime:
    """A running node. Made by `open_runtime`.

    Always true between two looks at the catalog: `_listed` holds its entries as
    they were at the last one. Only a share that was listed is withdrawn when it
    is listed no more, so a download that is not adopted yet stays.
    """

    def __init__(self, config: Config, endpoint: Endpoint, protection: Protection) -> None:
        self.config = config
        self.protection = protection
        self.endpoint = endpoint
        self.swarm = Swarm(endpoint, random.Random(), max_links=config.node.max_connections)
        self.catalog = Catalog(config.data_dir, protection)
        self.discovery = Discovery(config, self.swarm)
        self.bans = BanKeeper(self.swarm, BanStore(config.data_dir))
        self.problems: list[str] = []  # found at the start, for the operator
        self._listed: dict[FileId, CatalogEntry] = {}
        self._looking = trio.Lock()  # at the catalog, one at a time
        self.links: trio.Nursery
        self.listeners: list[socket.socket] = []

    @property
    def addresses(self) -> list[str]:
        """Where this process accepts links, as host:port; last where a router lets others in."""
        mapping = self.swarm.interests.mapping
        return [
            *reachable_addresses(self.listeners),
            *([str(mapping)] if mapping is not None and mapping.host else []),
        ]

    def settings(self) -> Settings:
        return download_settings(self.config, self.protection)

    def download(self, order: Order, terms: Terms, on_event: Callable[[Event], None]) -> Download:
        """A download ready to `run(self.links)`."""
        return Download(self.swarm, order, self.settings(), terms, on_event=on_event)

    @contextmanager
    def limited(self, download: Download) -> Iterator[None]:
        """Within the block a download is held to the configured limits besides the node's."""
        share, transfer = download.share, self.config.transfer
        share.upload.rate = limit(None, transfer.max_upload)
        share.download.rate = limit(None, transfer.max_download)
        try:
            yield
        finally:
            share.upload.rate = share.download.rate = None

    async def load_catalog(self) -> list[str]:
        """Take part in what the catalog lists now, and no longer in what it does not.

        Returns a line for each entry that cannot be served.
        """
        async with self._looking:
            listing = await trio.to_thread.run_sync(self.catalog.list)
            problems = [f"{bad.path.name}: {bad.reason}" for bad in listing.damaged]
            before, self._listed = self._listed, {e.file_id: e for e in listing.entries}
            for file_id in before.keys() - self._listed.keys():
                if self._served(file_id):
                    self._withdraw(file_id)
            for file_id, entry in self._listed.items():
                if file_id in self.swarm.shares and not _renewed(before.get(file_id), entry):
                    continue
                try:
                    await self._serve(entry)
                except FuryMeshError as error:
                    problems.append(str(error))
                    if self._served(file_id):  # as an entry said that is no more
                        self._withdraw(file_id)
            return problems

    async def adopt(
        self, result: Result, link: Link, facts: tuple[Facts, ...] | None = None
    ) -> None:
        """Put a finished download, which the swarm serves already, into the catalog.

        `link` led to it, with the key that opens it; `facts` are those of the published
        files. Raises LocalDataError, EnvironmentFault.
        """
        share = self.swarm.shares.get(result.file_id)
        link = replace(link, private=share is not None and share.private)
        async with self._looking:
            entry = await trio.to_thread.run_sync(adopt, self.catalog, link, result.path, facts)
            self._listed[result.file_id] = entry
            self.discovery.announce(entry.file_id, entry.trackers)

    def has(self, file_id: FileId) -> bool:
        """Whether a share is here or on its way in, and not at mirrors alone."""
        share = self.swarm.shares.get(file_id)
        return share is not None and (share.fetcher is not None or share.source is not None)

    def make_way(self, file_id: FileId) -> None:
        """Leave a share whose content is at mirrors alone, so that it can be downloaded."""
        if file_id in self.swarm.shares and not self.has(file_id):
            self._withdraw(file_id)

    def _served(self, file_id: FileId) -> bool:
        """Whether a share is here whole, and not on its way in."""
        share = self.swarm.shares.get(file_id)
        return share is not None and share.fetcher is None

    async def _serve(self, entry: CatalogEntry) -> None:
        """Take part in a share, or go on with one as its entry says now."""
        content: Content | None = None
        if entry.path is None:
            manifest = await trio.to_thread.run_sync(manifest_of, self.catalog, entry)
        else:
            manifest, content = await trio.to_thread.run_sync(open_share, self.catalog, entry)
        share = self.swarm.shares.get(entry.file_id)
        if share is not None and share.fetcher is not None:
            if content is not None:
                content.close()  # a download of it has begun meanwhile
            return
        fresh = share is None
        if share is None:
            share = Share(self.swarm, entry.file_id)
        share.name = "" if manifest.header.sealed else entry.name
        share.executable = entry.executable
        share.private = entry.private
        if fresh:
            self.swarm.add(share)
        else:
            self.swarm.advertise(share)
        stale = share.source
        have = manifest.header.geometry.all_chunks if content is not None else 0
        share.serve(manifest, have, content)
        if stale is not None:
            stale.close()
        self.discovery.announce(entry.file_id, entry.trackers)

    def _withdraw(self, file_id: FileId) -> None:
        self.discovery.hush(file_id)
        self.swarm.remove(file_id)

    async def say_goodbye(self) -> None:
        """Tell every peer that this node ends, and give the words time to get out."""
        links = list(self.swarm.links.values())
        for link in links:
            link.goodbye(Reason.SHUTTING_DOWN)
        with trio.move_on_after(FAREWELL_SECONDS):
            while self.swarm.links:
                await trio.sleep(0.01)


@asynccontextmanager
async def open_runtime(
    config: Config,
    *,
    listen_on: Address | None,
    allow: Iterable[NodeId] = (),
    max_upload: float | None = None,
    max_download: float | None = None,
    passphrase: str | None = None,
    lasting: bool = False,
) -> AsyncIterator[Runtime]:
    """Start a node; it ends with the block, after saying goodbye.

    `listen_on` None accepts no links. Limits are bytes per second. Of all
    processes of a node one at most is `lasting`. Raises
    EnvironmentFault (port, data directory), LocalDataError (identity), and as
    `opened_protection` does.
    """
    async with opened_keys(config, passphrase) as protection:
        identity = await trio.to_thread.run_sync(load_or_create, config.data_dir, protection)
        async with _open_runtime(
            config, identity, protection, listen_on, allow, max_upload, max_download, lasting
        ) as runtime:
            yield runtime


@asynccontextmanager
async def opened_keys(config: Config, passphrase: str | None) -> AsyncIterator[Protection]:
    """`opened_protection`, its waiting done in a thread."""
    opening = opened_protection(config, passphrase)
    protection = await trio.to_thread.run_sync(opening.__enter__)
    try:
        yield protection
    finally:
        opening.__exit__(None, None, None)


@asynccontextmanager
async def _open_runtime(
    config: Config,
    identity: Identity,
    protection: Protection,
    listen_on: Address | None,
    allow: Iterable[NodeId],
    max_upload: float | None,
    max_download: float | None,
    lasting: bool,
) -> AsyncIterator[Runtime]:
    allowed = {*allow, *map(parse_node_id, config.node.allow)}
    endpoint = Endpoint(
        identity,
        allow=frozenset(allowed) or None,
        psk=read_psk(config.node.psk_file),
        upload=[Budget(max_upload)] if max_upload else [],
        # Also without a limit of its own, where a link is to be held to a download's.
        download=[Budget(max_download)] if max_download or config.transfer.max_download else [],
    )
    runtime = Runtime(config, endpoint, protection)
    try:
        await trio.to_thread.run_sync(leftovers.sweep, config)
    except EnvironmentFault as error:
        runtime.problems.append(str(error))
    runtime.problems += await runtime.bans.restore()
    runtime.problems += filter(None, (dht_problem(config), mapping_problem(config)))
    if listen_on is not None:
        runtime.listeners = listen(listen_on)
        endpoint.listen_port = runtime.listeners[0].getsockname()[1]
        runtime.swarm.interests.port = endpoint.listen_port
        if config.discovery.relays:
            lend_port(runtime.listeners)
    try:
        async with open_tasks() as nursery:
            runtime.links = nursery
            nursery.start_soon(runtime.bans.run)
            nursery.start_soon(runtime.swarm.watch)
            await nursery.start(partial(runtime.discovery.run, runtime.listeners, lasting=lasting))
            if runtime.listeners:
                nursery.start_soon(endpoint.serve, runtime.listeners, _handler(runtime, lasting))
            try:
                yield runtime
            finally:
                with trio.CancelScope(shield=True):
                    await runtime.say_goodbye()
                    await runtime.bans.save()
            nursery.cancel_scope.cancel()
    finally:
        for sock in runtime.listeners:
            sock.close()
        runtime.swarm.close()


def _handler(runtime: Runtime, lasting: bool) -> Callable[[SecureLink], Awaitable[None]]:
    """What becomes of a link that is accepted."""
    swarm, node = runtime.swarm, runtime.config.node
    if not node.relay or not lasting:
        return swarm.run_link
    relay = Relay(
        runtime.endpoint,
        swarm.rng,
        swarm.run_link,
        rate=limit(None, node.relay_rate),
        max_sessions=node.relay_sessions,
    )
    if relay.max_sessions < node.relay_sessions:
        runtime.problems.append(
            f"this relay carries {relay.max_sessions} pairs at most, not node.relay_sessions:"
            " raise the limit of open files (ulimit -n)"
        )
    return relay.run_link


def _renewed(before: CatalogEntry | None, now: CatalogEntry) -> bool:
    """Whether an entry says something else than at the last look."""
    return before is not None and replace(before, added_at=now.added_at) != now


def download_settings(config: Config, protection: Protection = PLAIN) -> Settings:
    """What the configuration says about keeping downloads."""
    return Settings(
        data_dir=config.data_dir,
        resume_dir=config.transfer.resume_dir,
        download_dir=config.storage.download_dir,
        resume_enabled=config.transfer.resume_enabled,
        save_interval=config.transfer.resume_save_interval,
        reserve=parse_size(config.storage.reserve),
        check_space=config.storage.check_space,
        protection=protection,
    )


def limit(flag: float | None, configured: str | None) -> float | None:
    """The rate (bytes/s) of a flag or, without one, of the configuration; None for no limit."""
    return flag if flag is not None else parse_size(configured) if configured else None
