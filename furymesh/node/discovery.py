"""Where this process looks for peers, and where it lets itself be found.

The sources that the configuration allows know of all but private shares. The
trackers that a link names are asked for that link's share alone, private or not.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import trio

from furymesh.core.ids import FileId, discovery_tag
from furymesh.core.link import Address, Link, Tracker
from furymesh.discovery.book import Source
from furymesh.discovery.finder import Finder
from furymesh.discovery.lan import Lan
from furymesh.discovery.source import PeerSource
from furymesh.node.config import Config
from furymesh.node.dht import dht_source
from furymesh.node.trackers import configured_trackers, trackers_of
from furymesh.swarm.relays import RelayClient
from furymesh.swarm.swarm import Swarm


class Discovery:
    """The discovery of one process: `run` it, and say which links to follow.

    Always true: a share is announced at the trackers of its link from `announce`
    until `hush`, once.
    """

    def __init__(self, config: Config, swarm: Swarm) -> None:
        self._config = config
        self._swarm = swarm
        endpoint = swarm.endpoint
        self._finder = Finder(
            swarm.interests,
            swarm.book,
            me=(endpoint.identity.node_id, endpoint.instance),
            tags=swarm.tags,
            report=lambda problem: swarm.report(problem),
            rng=swarm.rng,
        )
        swarm.looking = lambda: self._finder.looking
        self.relays = [RelayClient(swarm, Address.parse(text)) for text in config.discovery.relays]
        self._announced: dict[FileId, trio.CancelScope] = {}
        self._tasks: trio.Nursery

    async def run(
        self,
        listeners: Sequence[socket.socket],
        *,
        lasting: bool,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Look, until cancelled. Of all processes of a node one at most is `lasting`."""
        async with trio.open_nursery() as self._tasks:
            self._tasks.start_soon(self._finder.run, self._sources(listeners, lasting))
            for relay in self.relays:
                self._tasks.start_soon(relay.run)
            task_status.started()
            await trio.sleep_forever()

    @contextmanager
    def following(self, link: Link, peers: Iterable[Address] = ()) -> Iterator[None]:
        """Within the block look for a link's peers where it says, and the configuration.

        `peers` are to be asked first.
        """
        book, file_id = self._swarm.book, link.file_id
        for address in peers:
            book.add(file_id, address, Source.USER)
        for address in link.peers:
            book.add(file_id, address, Source.LINK)
        for text in self._config.discovery.peers:
            book.add(file_id, Address.parse(text), Source.CONFIG)
        self._swarm.interests.seek(discovery_tag(file_id), link.node_ids)
        asking = self._ask(file_id, link.trackers, wanted=True)
        try:
            yield
        finally:
            asking.cancel()

    def announce(self, file_id: FileId, trackers: Sequence[Tracker]) -> None:
        """Tell the trackers of a share's link, these and no others, that it is here."""
        self.hush(file_id)
        if trackers:
            self._announced[file_id] = self._ask(file_id, trackers, wanted=False)

    def hush(self, file_id: FileId) -> None:
        """Take back what was announced of a share, if anything was."""
        if (announcing := self._announced.pop(file_id, None)) is not None:
            announcing.cancel()

    def _sources(self, listeners: Sequence[socket.socket], lasting: bool) -> list[PeerSource]:
        config, endpoint, rng = self._config, self._swarm.endpoint, self._swarm.rng
        listening = [str(sock.getsockname()[0]) for sock in listeners]
        sources: list[PeerSource] = []
        if config.discovery.lan.enabled:
            sources.append(Lan(endpoint.identity.node_id, endpoint.instance, listening, rng))
        dht = dht_source(config, endpoint, listening, rng, lasting=lasting)
        if dht is not None:
            sources.append(dht)
        if config.discovery.trackers:
            sources.append(configured_trackers(config))
        return sources

    def _ask(
        self, file_id: FileId, trackers: Sequence[Tracker], *, wanted: bool
    ) -> trio.CancelScope:
        """Use the trackers of one share until the scope that is returned is cancelled."""
        scope = trio.CancelScope()
        source, interests = trackers_of(
            file_id, trackers, self._swarm.interests.port, wanted=wanted
        )

        async def ask() -> None:
            with scope:
                tags = {discovery_tag(file_id): file_id}
                await self._finder.keep_running(source, interests, tags)

        if trackers:
            self._tasks.start_soon(ask)
        return scope
