"""The sources of peers side by side, and what they tell on its way to the address book.

Always true: one source that fails, floods or lies does not keep another from
being heard. What they tell is a hint and nothing more, so only this is asked of
it: that it concerns a share that is wanted, that somebody else could be there, and
that nobody out there leads this node into a private network.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from random import Random

import trio

from furymesh.core.errors import EnvironmentFault
from furymesh.core.ids import DiscoveryTag, FileId, Process
from furymesh.discovery.book import PeerBook, Source
from furymesh.discovery.source import Interests, PeerSource, Sighting, Tell
from furymesh.net.addresses import is_loopback, may_lead
from furymesh.net.interfaces import local_ipv4
from furymesh.net.tasks import open_tasks

FIRST_RETRY = 5.0  # seconds before a source that failed is tried again, doubled each time
MAX_RETRY = 300.0
STEADY_SECONDS = 600.0  # a source that ran for so long before it failed starts over
OWN_SECONDS = 2.0  # between two looks at this machine's addresses


class Finder:
    """Runs sources and fills the address book of a node."""

    def __init__(
        self,
        interests: Interests,
        book: PeerBook,
        *,
        me: Process,
        tags: Mapping[DiscoveryTag, FileId],
        report: Callable[[str], None],
        rng: Random,
    ) -> None:
        """`tags` are those of the shares here; `report` takes a line for the operator."""
        self._interests = interests
        self._book = book
        self._me = me
        self._tags = tags
        self._report = report
        self._rng = rng
        self._working: list[tuple[PeerSource, Interests]] = []
        self._faults: dict[PeerSource, str] = {}  # of those that failed and are tried again
        self._own: frozenset[str] = frozenset()  # this machine's addresses,
        self._looked = -math.inf  # as of then

    def looking(self, tag: DiscoveryTag) -> tuple[Source, ...]:
        """The sources that look for peers of a share now."""
        asked = {source.source for source, theirs in self._working if theirs.is_wanted(tag)}
        return tuple(sorted(asked))

    @property
    def troubles(self) -> tuple[str, ...]:
        """Why sources find nobody at the moment, a line for each reason."""
        theirs = (line for source, _ in self._working for line in source.troubles)
        return tuple(dict.fromkeys((*self._faults.values(), *theirs)))

    async def run(self, sources: Sequence[PeerSource]) -> None:
        """Look, until cancelled."""
        async with trio.open_nursery() as nursery:
            for source in sources:
                nursery.start_soon(self.keep_running, source, self._interests, self._tags)

    async def keep_running(
        self, source: PeerSource, interests: Interests, tags: Mapping[DiscoveryTag, FileId]
    ) -> None:
        """Run one source, until cancelled or it has nothing to do here.

        `interests` may be others than the node's, of one share that it says nothing of
        elsewhere; `tags` are those of the shares that may be meant.
        """
        retry, last_word, tell = FIRST_RETRY, "", self.listener(source.source, interests, tags)
        while True:
            begun, work = trio.current_time(), (source, interests)
            self._faults.pop(source, None)
            self._working.append(work)
            try:
                async with open_tasks():  # its fault comes out by itself
                    await source.run(interests, tell)
                return  # it has nothing to do here
            except EnvironmentFault as error:
                self._faults[source] = str(error)
                if str(error) != last_word:
                    last_word = str(error)
                    self._report(last_word)
            finally:
                self._working.remove(work)
            if trio.current_time() - begun > STEADY_SECONDS:
                retry, last_word = FIRST_RETRY, ""
            await trio.sleep(retry * self._rng.uniform(0.75, 1.25))
            retry = min(2 * retry, MAX_RETRY)

    def listener(
        self, source: Source, interests: Interests, tags: Mapping[DiscoveryTag, FileId]
    ) -> Tell:
        """What a source may tell: where peers of wanted shares are."""

        def tell(sighting: Sighting) -> None:
            file_id = tags.get(sighting.tag)
            if file_id is not None and interests.is_wanted(sighting.tag):
                self._note(source, sighting, file_id)

        return tell

    def _note(self, source: Source, sighting: Sighting, file_id: FileId) -> None:
        """Note where a peer of a share seems to be, if somebody else could be there."""
        address = sighting.address
        if not 0 < address.port < 1 << 16 or not may_lead(address.host, sighting.teller):
            return
        if sighting.process == self._me or self._is_here(address.host, address.port):
            return
        self._book.add(file_id, address, source, process=sighting.process)

    def _is_here(self, host: str, port: int) -> bool:
        """Whether this process is at an address."""
        mapping = self._interests.mapping
        if mapping is not None and (mapping.host, mapping.port) == (host, port):
            return True
        if port != self._interests.port:
            return False
        now = time.monotonic()
        if now >= self._looked + OWN_SECONDS:
            self._looked = now
            with suppress(OSError):
                self._own = frozenset(local_ipv4())
        return is_loopback(host) or host in self._own
