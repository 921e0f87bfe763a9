"""The client of folder sync: find the server, have a session, wait, come again.

Always true: one session at a time; whatever goes wrong on the network costs a pause
and no work, because a session begins with what the server has. Only what time does
not mend ends it: a server that refuses, settings that make no sense.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

import trio

from furymesh.core.errors import (
    FuryMeshError,
    HandshakeError,
    LinkClosedError,
    PeerError,
    UnavailableError,
    UsageError,
)
from furymesh.core.ids import NodeId, node_id_text
from furymesh.core.link import Address
from furymesh.discovery.sync_lan import seek_sync
from furymesh.net.connect import Endpoint
from furymesh.net.secure_link import SecureLink
from furymesh.net.tasks import open_tasks
from furymesh.storage.lock import FileLock
from furymesh.sync.archive import Archive
from furymesh.sync.client import Push
from furymesh.sync.client_book import check_client_id
from furymesh.sync.events import ClientEvent, Found, Lost, Note, Progress, Report
from furymesh.sync.excludes import Excludes
from furymesh.sync.hash_index import DIRECTORY
from furymesh.sync.pins import ServerPin
from furymesh.sync.watching import watch
from furymesh.wire import messages as m
from furymesh.wire.exchange import SYNC

FIRST_PAUSE = 1.0  # seconds before another attempt, doubled after each
MAX_PAUSE = 10.0  # a server that is back is soon noticed, and one attempt costs little
SETTLE_SECONDS = 0.15  # after a first answer: all that hear a question answer within 0.1 s
QUIET_SECONDS = 2.0  # of looking, before that is said
LEAST_PAUSE = 1.0  # between two sessions: a folder in which something changes all the time


@dataclass(frozen=True, slots=True)
class Terms:
    """What is pushed, and how. `timeout` is how long to look for a server, with `once`."""

    archive: Path
    client_id: str
    server: Address | None = None
    excludes: tuple[str, ...] = ()
    mirror: bool = False
    force: bool = False
    watch: bool = False
    once: bool = False
    timeout: float = math.inf
    lan: bool = True


class Pusher:
    """Keeps one folder in step with a server. `run` it once."""

    def __init__(
        self,
        endpoint: Endpoint,
        data_dir: Path,
        terms: Terms,
        rng: Random,
        on_event: Callable[[ClientEvent], None],
    ) -> None:
        """Raises UsageError for a client id or a pattern that is none."""
        check_client_id(terms.client_id)
        self._endpoint = endpoint
        self._data_dir = data_dir
        self._terms = terms
        self._rng = rng
        self._tell = on_event
        self._excludes = Excludes(terms.excludes)
        self._pin = ServerPin(data_dir, terms.client_id)
        self._changed = trio.Event()
        self._said: set[str] = set()  # notes that are not repeated
        self._moved = False  # the session at hand has brought something there

    async def run(self) -> Report:
        """Push until cancelled, or once; then what became of it.

        Raises UnavailableError if no server was found in time, PeerError if the server
        refuses, AlreadyRunningError if this client id is pushed already, and what is
        wrong with the archive.
        """
        lock = FileLock(self._data_dir / DIRECTORY / f"{self._terms.client_id}.lock", what="pushed")
        await trio.to_thread.run_sync(lock.acquire, "furymesh sync push")
        try:
            with self._open_archive() as archive:
                root, excludes = archive.path, archive.excludes
            async with open_tasks() as nursery:
                if self._terms.watch:
                    nursery.start_soon(watch, root, excludes, self._note_change, self._note)
                report = await self._push()
                nursery.cancel_scope.cancel()
            return report
        finally:
            lock.release()

    def _open_archive(self) -> Archive:
        return Archive(self._terms.archive, self._data_dir, self._excludes)

    def _note_change(self) -> None:
        self._changed.set()

    def _note(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            self._tell(Note(text))

    async def _push(self) -> Report:
        deadline = trio.current_time() + self._terms.timeout
        pause = FIRST_PAUSE
        while True:
            self._changed = trio.Event()
            self._moved = False
            try:
                report = await self._session(deadline)
            except FuryMeshError as error:
                if self._is_final(error):
                    raise
                now = trio.current_time()
                if isinstance(error, LinkClosedError) and self._moved:
                    # It worked for a while: this is another outage than the one before.
                    pause, deadline = FIRST_PAUSE, now + self._terms.timeout
                wait = pause * self._rng.uniform(0.75, 1.25)
                if now + wait >= deadline:
                    raise
                self._tell(Lost(str(error), wait))
                await trio.sleep(wait)
                pause = min(2 * pause, MAX_PAUSE)
                continue
            self._tell(report)
            if self._terms.once:
                return report
            pause = FIRST_PAUSE
            await self._wait(report.next_sync)

    async def _wait(self, seconds: float) -> None:
        """Wait for the time that the server set, or for a change."""
        begun = trio.current_time()
        with trio.move_on_after(seconds):
            await self._changed.wait()
        await trio.sleep_until(begun + min(LEAST_PAUSE, seconds))

    def _is_final(self, error: FuryMeshError) -> bool:
        if isinstance(error, UnavailableError):
            return False
        # Another node at the address, as long as it lasts, is an outage like any other.
        return self._terms.once or (
            isinstance(error, PeerError | UsageError) and not isinstance(error, HandshakeError)
        )

    # --- one session ------------------------------------------------------------------

    async def _session(self, deadline: float) -> Report:
        pinned = await trio.to_thread.run_sync(self._pin.load)
        address, others = await self._locate(pinned, deadline)
        link = await self._dial(address, pinned)
        self._tell(
            Found(
                link.node_id,
                str(replace(address, node_id=None)),
                link.node_id != pinned,
                tuple(sorted(others - {link.node_id})),
            )
        )
        if link.node_id != pinned:
            await trio.to_thread.run_sync(self._pin.save, link.node_id)
        archive = await trio.to_thread.run_sync(self._open_archive)
        try:
            who = m.Identify(self._terms.client_id, self._terms.mirror, self._terms.force)
            report = await Push(link, archive, who, self._look).run()
            if self._terms.mirror and not archive.complete:
                self._note("some of the archive could not be read: nothing was removed")
            return report
        finally:
            link.close()
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(archive.close)

    async def _dial(self, address: Address, pinned: NodeId | None) -> SecureLink:
        try:
            link = await self._endpoint.dial(address, features=(SYNC,))
        except HandshakeError as error:
            if address.node_id is None or address.node_id != pinned:
                raise
            raise HandshakeError(
                f"{replace(address, node_id=None)} is not the server that client id"
                f' "{self._terms.client_id}" is used with, or its link fails ({error}): if another'
                " server is meant, name it with --server NODE_ID@HOST:PORT"
            ) from None
        except LinkClosedError as error:
            me = node_id_text(self._endpoint.identity.node_id)
            raise LinkClosedError(
                f"{replace(address, node_id=None)} closes the link at once ({error}); if it serves"
                f" listed nodes only, this one is {me}"
            ) from None
        except UnavailableError as error:
            raise UnavailableError(f"{replace(address, node_id=None)}: {error}") from None
        if link.hello is None or SYNC not in link.hello.features:
            link.close()
            raise PeerError(f"{address} serves no folders: name a `furymesh sync serve`")
        return link

    def _look(self, event: ClientEvent) -> None:
        if isinstance(event, Progress):
            self._moved = self._moved or event.bytes_done > 0
        self._tell(event)

    # --- finding it -------------------------------------------------------------------

    async def _locate(
        self, pinned: NodeId | None, deadline: float
    ) -> tuple[Address, frozenset[NodeId]]:
        """Where the server is, who it must be if that is known, and who else answered."""
        server = self._terms.server
        if server is not None:
            return replace(server, node_id=server.node_id or pinned), frozenset()
        if not self._terms.lan:
            raise UsageError(
                "discovery.lan.enabled is false, so no server is looked for: name one with --server"
            )
        answers: dict[NodeId, Address] = {}
        heard = trio.Event()

        def found(node_id: NodeId, address: Address) -> None:
            answers.setdefault(node_id, address)
            if pinned is None or node_id == pinned:
                heard.set()
            else:
                self._note(
                    f"the server {node_id_text(node_id)[:16]} at {address} answers, but client id"
                    f' "{self._terms.client_id}" is used with {node_id_text(pinned)[:16]}'
                )

        with trio.move_on_at(deadline):
            async with open_tasks() as nursery:
                me = self._endpoint
                nursery.start_soon(seek_sync, me.identity.node_id, me.instance, self._rng, found)
                nursery.start_soon(self._say_that_it_looks)
                await heard.wait()
                if pinned is None:
                    await trio.sleep(SETTLE_SECONDS)
                nursery.cancel_scope.cancel()
        if not heard.is_set():
            raise UnavailableError(
                "no server was found on the local network: run `furymesh sync serve` on it,"
                " or name one with --server HOST:PORT"
            )
        # Which of several it is does not depend on who answers first.
        node_id = pinned or min(answers)
        return replace(answers[node_id], node_id=node_id), frozenset(answers)

    async def _say_that_it_looks(self) -> None:
        await trio.sleep(QUIET_SECONDS)
        self._note("looking for a server on the local network")
