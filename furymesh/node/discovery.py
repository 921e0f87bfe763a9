"""Where this process looks for peers, and where it lets itself be found.

The sources that the configuration allows know of all but private shares. The
trackers that a link names are asked for that link's share alone, private or not.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import trio

from furymesh.core.errors import EnvironmentFault
from furymesh.core.ids import FileId, discovery_tag
from furymesh.core.link import Address, Link, Tracker
from furymesh.discovery.book import Source
from furymesh.discovery.finder import Finder
from furymesh.discovery.lan import Lan
from furymesh.discovery.port_mapper import PortMapper
from furymesh.discovery.source import Interests, Mapping, PeerSource
from furymesh.discovery.tracker import Trackers, open_trackers
from furymesh.net.interfaces import bound_hosts
from furymesh.node.config import Config
from furymesh.node.dht import dht_source
from furymesh.node.port_mapping import port_mapper
from furymesh.swarm.relays import RelayClient
from furymesh.swarm.swarm import Swarm


@dataclass(frozen=True, slots=True)
class _Own:
    """A share at the trackers of its own link."""

    trackers: tuple[Tracker, ...]
    interests: Interests  # in this share and nothing else
    asking: trio.CancelScope


class Discovery:
    """The discovery of one process: `run` it, and say which links to follow.

    Always true: of a share there is one source of its own at most, in `_own`, from when
    its link is followed or it is announced until it is hushed, whatever becomes of it
    meanwhile; so its trackers hear of a start, of completion and of an end, in that order.
    """

    def __init__(self, config: Config, swarm: Swarm) -> None:
        self._config = config
        self._swarm = swarm
        endpoint = swarm.endpoint
        self._finder = Finder(
            swarm.interests,
            swarm.book,
            me=endpoint.process,
            tags=swarm.tags,
            report=lambda problem: swarm.report(problem),
            rng=swarm.rng,
        )
        swarm.looking = self._looking
        swarm.troubles = self._troubles
        self.relays = [RelayClient(swarm, Address.parse(text)) for text in config.discovery.relays]
        self._own: dict[FileId, _Own] = {}
        self._trackers: Trackers
        self._tasks: trio.Nursery

    async def run(
        self,
        listeners: Sequence[socket.socket],
        *,
        lasting: bool,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Look, until cancelled. Of all processes of a node one at most is `lasting`."""
        async with open_trackers() as self._trackers, trio.open_nursery() as self._tasks:
            self._tasks.start_soon(self._finder.run, self._sources(listeners, lasting))
            for relay in self.relays:
                self._tasks.start_soon(relay.run)
            if lasting:
                mapper = port_mapper(
                    self._config, self._swarm.endpoint, bound_hosts(listeners), self._mapped
                )
                if mapper is not None:
                    self._tasks.start_soon(self._keep_mapped, mapper)
            task_status.started()
            await trio.sleep_forever()

    @contextmanager
    def following(self, link: Link, peers: Iterable[Address] = ()) -> Iterator[None]:
        """Within the block look for a link's peers where it says, and the configuration.

        `peers` are to be asked first. What is here whole at the end stays announced.
        """
        book, file_id = self._swarm.book, link.file_id
        for address in peers:
            book.add(file_id, address, Source.USER)
        for address in link.peers:
            book.add(file_id, address, Source.LINK)
        for text in self._config.discovery.peers:
            book.add(file_id, Address.parse(text), Source.CONFIG)
        self._swarm.interests.seek(discovery_tag(file_id), link.node_ids)
        self._ask(file_id, link.trackers, wanted=True)
        try:
            yield
        finally:
            share = self._swarm.shares.get(file_id)
            if share is None or share.fetcher is not None:
                self.hush(file_id)
            elif (own := self._own.get(file_id)) is not None:
                own.interests.add(discovery_tag(file_id), wanted=False)

    def announce(self, file_id: FileId, trackers: Sequence[Tracker]) -> None:
        """Tell the trackers of a share's link, these and no others, that all of it is here."""
        self._ask(file_id, trackers, wanted=False)

    def hush(self, file_id: FileId) -> None:
        """Take back what was announced of a share at the trackers of its link, if anything was."""
        if (own := self._own.pop(file_id, None)) is not None:
            own.asking.cancel()

    def _looking(self, file_id: FileId) -> tuple[Source, ...]:
        """Where peers of a share are looked for now."""
        tag = discovery_tag(file_id)
        at_relays = (Source.RELAY,) if any(relay.names(tag) for relay in self.relays) else ()
        return (*self._finder.looking(tag), *at_relays)

    def _troubles(self) -> tuple[str, ...]:
        """Why nobody is found at the moment, a line for each reason."""
        at_relays = (relay.trouble for relay in self.relays if relay.trouble)
        return (*self._finder.troubles, *at_relays)

    def _sources(self, listeners: Sequence[socket.socket], lasting: bool) -> list[PeerSource]:
        config, endpoint, rng = self._config, self._swarm.endpoint, self._swarm.rng
        listening = bound_hosts(listeners)
        sources: list[PeerSource] = []
        if config.discovery.lan.enabled:
            sources.append(Lan(endpoint.identity.node_id, endpoint.instance, listening, rng))
        dht = dht_source(config, endpoint, listening, rng, lasting=lasting)
        if dht is not None:
            sources.append(dht)
        if config.discovery.trackers:
            named = map(Tracker.parse, config.discovery.trackers)
            sources.append(self._trackers.source(named))
        return sources

    def _ask(self, file_id: FileId, trackers: Sequence[Tracker], *, wanted: bool) -> None:
        """Ask these trackers, and no others, for one share; it may be a private one."""
        tag, named = discovery_tag(file_id), tuple(trackers)
        own = self._own.get(file_id)
        if own is not None and own.trackers == named:
            own.interests.add(tag, wanted=wanted)
            return
        self.hush(file_id)
        if not named:
            return
        own = _Own(named, Interests(self._swarm.interests.port), trio.CancelScope())
        own.interests.peers = self._swarm.interests.peers
        own.interests.mapping = self._swarm.interests.mapping
        own.interests.add(tag, wanted=wanted)
        self._own[file_id] = own
        self._tasks.start_soon(self._keep_asking, file_id, own)

    async def _keep_asking(self, file_id: FileId, own: _Own) -> None:
        tags = {discovery_tag(file_id): file_id}
        with own.asking:
            source = self._trackers.source(own.trackers)
            await self._finder.keep_running(source, own.interests, tags)

    # --- the router -------------------------------------------------------------------

    async def _keep_mapped(self, mapper: PortMapper) -> None:
        try:
            await mapper.run()
        except EnvironmentFault as error:
            self._swarm.report(str(error))

    def _mapped(self, mapping: Mapping | None) -> None:
        """Announce this process as a router lets others in to it, from now on."""
        self._swarm.interests.mapping = mapping
        for own in self._own.values():
            own.interests.mapping = mapping
        self._swarm.endpoint.public_port = mapping.port if mapping else 0
        if mapping is None:
            self._swarm.report("the router lets nobody in any more")
        elif mapping.host:
            self._swarm.report(f"the router lets others in: this node is reached at {mapping}")
        else:
            self._swarm.report(
                f"the router forwards its {mapping}, but has no public address: others may not"
                " get as far; `furymesh doctor` says what to do"
            )
