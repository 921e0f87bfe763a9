"""The server of folder sync: who comes in, who waits, and the session of whose turn it is.

Always true: at most `sessions` clients have a turn, and each of them its own folder;
a client that goes, or does nothing for SILENT_SECONDS, has left its place before
anything of it is put in order; a client id has one place, that of the link on
which it came last, and belongs to one node.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from weakref import WeakValueDictionary

import trio

from furymesh.core.errors import FuryMeshError, LinkClosedError, UsageError
from furymesh.core.link import Address
from furymesh.core.paths import shown
from furymesh.net.addresses import is_loopback, same_machine
from furymesh.net.secure_link import SecureLink
from furymesh.storage.hashing import HashingStopped
from furymesh.sync.client_book import ClientBook
from furymesh.sync.events import Begun, Came, Gone, Planned, ServerEvent, Synced
from furymesh.sync.guest import Guest, Item
from furymesh.sync.receiving import Receiver
from furymesh.sync.storing import Replies
from furymesh.sync.turns import Turns
from furymesh.wire import messages as m
from furymesh.wire.exchange import SYNC
from furymesh.wire.sync_codec import MAX_ENTRIES

MAX_GUESTS = 256  # links at a time: each is some tasks and, in its session, 16 MiB at most
MAX_GUESTS_PER_NODE = 16  # a node may push several folders
MAX_GUESTS_PER_MACHINE = 64  # identities cost nothing; loopback tells nothing
IDENTIFY_SECONDS = 10.0  # for the first word
SILENT_SECONDS = 60.0  # without a word in a session, then its turn is over
# Of nothing but signs that it is hashing, while others wait: long files take that long.
HASHING_SECONDS = 3600.0
COMMIT_SECONDS = 2.0  # after the last that came: then whatever is whole gets its name
ASKED_BYTES = 60_000  # of paths in one ArchiveExtras
PATH_BYTES = 8  # that each of them costs besides itself


class SyncServer:
    """Serves folders below one archive. `run_link` takes what the endpoint accepts."""

    def __init__(
        self,
        archive: Path,
        data_dir: Path,
        *,
        rate: int,
        sessions: int,
        on_event: Callable[[ServerEvent], None],
    ) -> None:
        """Clients are to come again after `rate` seconds; `sessions` have a turn at once."""
        self._data_dir = data_dir
        self._rate = rate
        self._tell = on_event
        self._book = ClientBook(archive, data_dir)
        self._book_lock = trio.Lock()
        self._guests: set[Guest] = set()
        self._turns: Turns[Guest] = Turns(sessions)
        self._by_id: dict[str, Guest] = {}  # those that have a place
        # One session after the other puts a folder in order, also when it is over.
        self._folders: WeakValueDictionary[str, trio.Lock] = WeakValueDictionary()

    async def run_link(self, link: SecureLink) -> None:
        """Serve a link that was accepted, until it ends."""
        guest = Guest(link)
        refusal = self._refusal(link)
        self._guests.add(guest)
        try:
            async with trio.open_nursery() as nursery:
                if refusal is None:
                    nursery.start_soon(self._serve, guest)
                else:
                    link.goodbye(*refusal)
                await link.run(guest)
                nursery.cancel_scope.cancel()
        finally:
            self._guests.discard(guest)

    def _refusal(self, link: SecureLink) -> tuple[m.Reason, str] | None:
        if link.hello is None or SYNC not in link.hello.features:
            return m.Reason.NOT_FOUND, "only folder sync is served here"
        links = [guest.link for guest in self._guests]
        machine = same_machine(link.remote[0])
        near = [other for other in links if same_machine(other.remote[0]) == machine]
        full = (
            len(links) >= MAX_GUESTS
            or sum(other.node_id == link.node_id for other in links) >= MAX_GUESTS_PER_NODE
            or (len(near) >= MAX_GUESTS_PER_MACHINE and not is_loopback(link.remote[0]))
        )
        return (m.Reason.BUSY, "too many clients at once") if full else None

    # --- one client -------------------------------------------------------------------

    async def _serve(self, guest: Guest) -> None:
        """Let a client identify itself, wait for its turn, and have its session."""
        client_id = ""
        try:
            with trio.fail_after(IDENTIFY_SECONDS):
                ((who, _), *_) = await guest.heard()
            assert isinstance(who, m.Identify)
            async with self._book_lock:
                claim = partial(self._book.claim, who.client_id, guest.link.node_id)
                folder = await trio.to_thread.run_sync(claim)
            client_id = who.client_id
            await self._wait_for_turn(guest, client_id)
            async with self._folders.setdefault(client_id, trio.Lock()):
                await self._session(guest, who, folder)
        except UsageError as error:
            guest.link.goodbye(m.Reason.FORBIDDEN, str(error))
            self._gone(client_id, str(error))
        except FuryMeshError as error:
            guest.link.goodbye(m.Reason.BUSY, str(error))
            self._gone(client_id, str(error))
        except trio.TooSlowError:
            guest.link.goodbye(m.Reason.IDLE, "nothing was said for too long")
            self._gone(client_id, "it said nothing for too long")
        except Exception as error:  # a bug here; it costs this client and no other
            guest.link.goodbye(m.Reason.BUSY, "internal error at the server")
            self._gone(client_id, f"a bug of furymesh, worth a report: {error!r}")
        except trio.Cancelled:
            self._gone(client_id, str(guest.link.closed_because or "stopped"))
            raise
        finally:
            self._leave(guest, client_id)

    def _gone(self, client_id: str, reason: str) -> None:
        if client_id:
            self._tell(Gone(client_id, shown(reason)))

    async def _wait_for_turn(self, guest: Guest, client_id: str) -> None:
        before = self._by_id.get(client_id)
        self._by_id[client_id] = guest
        if before is None:
            place = self._turns.enter(guest)
        else:
            # The network was away, perhaps: that link is dead, and does not know it.
            place = self._turns.replace(before, guest)
            before.link.close(LinkClosedError("the same client has come again"))
        address = str(Address(*guest.link.remote))
        self._tell(Came(client_id, guest.link.node_id, address, place))
        self._call(guest)
        await guest.turn.wait()

    def _call(self, guest: Guest) -> None:
        """Tell a client that its place is another."""
        place = self._turns.place(guest)
        if place:
            guest.say(m.Busy(place))
        else:
            guest.turn.set()

    def _leave(self, guest: Guest, client_id: str) -> None:
        """Give a place free; nothing if that was done already."""
        if self._by_id.get(client_id) is guest:
            del self._by_id[client_id]
        for other in self._turns.leave(guest):
            if not other.turn.is_set() and not other.link.leaving:
                self._call(other)

    # --- its session ------------------------------------------------------------------

    async def _session(self, guest: Guest, who: m.Identify, folder: Path) -> None:
        self._tell(Begun(who.client_id))
        started = trio.current_time()
        guest.say(m.Ready())
        guest.worked_at = started
        receiver = await trio.to_thread.run_sync(
            partial(
                Receiver,
                folder,
                self._data_dir,
                sender=guest.link.remote[0],
                mirror=who.mirror,
                cancelled=lambda: guest.link.leaving,
            )
        )
        complete, notice = False, ""
        try:
            await self._receive(guest, receiver, who.client_id)
            if who.mirror:
                notice = await self._mirror(guest, receiver, force=who.force)
                await self._receive(guest, receiver)
            complete = True
        except HashingStopped:
            await trio.sleep_forever()  # the link is gone, and this task soon cancelled
        finally:
            self._leave(guest, who.client_id)
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(partial(receiver.close, complete=complete))
        tally = receiver.tally
        guest.say(m.NextSync(self._rate, tally.removed, notice))
        guest.link.goodbye(m.Reason.DONE)
        self._tell(
            Synced(
                who.client_id,
                tally.stored,
                tally.received,
                tally.kept,
                tally.copied,
                tally.removed,
                tally.failed,
                trio.current_time() - started,
                notice,
            )
        )

    async def _receive(self, guest: Guest, receiver: Receiver, client_id: str = "") -> None:
        """Do what the client says until nothing is open; tell the plan, if of somebody."""
        exchange, store = guest.exchange, receiver.store
        while True:
            if client_id and exchange.last:
                self._tell(Planned(client_id, receiver.plan()))
                client_id = ""
            # Whatever waits is committed together, but not for longer than it must.
            if store.uncommitted and guest.is_quiet and exchange.is_over(store.due):
                await self._do(guest, receiver, receiver.commit)
            elif exchange.is_over() and guest.is_quiet:
                return
            else:
                items = await self._hear(guest, receiver)
                await self._do(guest, receiver, partial(receiver.work, items))

    async def _hear(self, guest: Guest, receiver: Receiver) -> list[Item]:
        while True:
            waits = COMMIT_SECONDS if receiver.store.uncommitted else SILENT_SECONDS
            with trio.move_on_after(waits):
                items = await guest.heard()
                idle = trio.current_time() - guest.worked_at
                if idle > HASHING_SECONDS and self._turns.has_queue:
                    raise trio.TooSlowError
                return items
            if not receiver.store.uncommitted:
                raise trio.TooSlowError
            await self._do(guest, receiver, receiver.commit)

    async def _do(self, guest: Guest, receiver: Receiver, work: Callable[[], Replies]) -> None:
        for reply in await trio.to_thread.run_sync(work):
            guest.say(reply)
        for file in receiver.store.finished:
            guest.exchange.done(file)
        receiver.store.finished.clear()

    async def _mirror(self, guest: Guest, receiver: Receiver, *, force: bool) -> str:
        """Remove what the client does not have; returns why that was not done, if so."""
        try:
            extras = await trio.to_thread.run_sync(partial(receiver.extras, force=force))
        except UsageError as error:
            extras, notice = [], str(error)
        else:
            notice = ""
        for page in _pages(extras):
            guest.say(m.ArchiveExtras(page))
            with trio.fail_after(SILENT_SECONDS):
                ((answer, _), *_) = await guest.heard()
            assert isinstance(answer, m.ArchiveGone)
            await trio.to_thread.run_sync(receiver.remove, [page[place] for place in answer.places])
        await self._do(guest, receiver, receiver.put_off)
        return notice


def _pages(paths: Iterable[str]) -> Iterable[tuple[str, ...]]:
    """Paths in portions that one message holds."""
    page: list[str] = []
    size = 0
    for path in paths:
        cost = len(path.encode()) + PATH_BYTES
        if page and (len(page) >= MAX_ENTRIES or size + cost > ASKED_BYTES):
            yield tuple(page)
            page, size = [], 0
        page.append(path)
        size += cost
    if page:
        yield tuple(page)
