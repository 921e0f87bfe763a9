"""One node of BitTorrent's mainline DHT (BEP 5), run by libtorrent.

Requests go to libtorrent's thread at once, and what comes back arrives as alerts
that `_pump` hands out in trio's. No answer means not found: the DHT never says no.
What is stored there besides peers is in `dht_items`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio

from furymesh.core.errors import EnvironmentFault
from furymesh.core.link import Address
from furymesh.discovery import dht_state
from furymesh.discovery.dht_entrances import Entrances
from furymesh.discovery.dht_items import Items
from furymesh.discovery.session import Session
from furymesh.net.addresses import packed_ip
from furymesh.net.tasks import open_tasks

if TYPE_CHECKING:
    import libtorrent as lt

JOIN_SECONDS = 5.0  # for the first node to answer
JOIN_LOOK_SECONDS = 0.1
# Between two tries to resolve bootstrap nodes while no name could be: a machine that
# starts without a network joins soon after it has one.
RESOLVE_PAUSES = (1.0, 300.0)
SAVE_SECONDS = 600.0  # between two looks at which nodes to remember
LISTEN_SECONDS = 2.0  # a system call or two

Found = Callable[[list[tuple[str, int]]], None]


@dataclass(frozen=True, slots=True)
class DhtSettings:
    """Where to take part, and by which nodes."""

    bootstrap: tuple[Address, ...] = ()
    host: str = "0.0.0.0"  # an IP address of this machine, or all of IPv4 or IPv6
    port: int = 0  # UDP, and TCP without use: libtorrent insists; 0 for any free one
    state: Path | None = None  # remembers nodes from run to run


class Dht:
    """A node of the DHT while it runs. Made by `open_dht`."""

    def __init__(self, settings: DhtSettings, entrances: Entrances) -> None:
        import libtorrent as lt

        self._lt = lt
        self._settings = settings
        self.entrances = entrances
        self.joined = trio.Event()  # whoever asks earlier hears nothing
        self._found: dict[bytes, list[Found]] = {}
        self._listening = trio.Event()
        self._refusal = ""
        self._external: dict[int, str] = {}  # by the length of a packed one
        kinds = self._alerts()
        self._running = Session({"enable_dht": True, "alert_mask": kinds, **self._places()})
        self.items = Items(self._session, kinds)
        # Its constructor has a parameter for the state of before, and ignores it (2.1.1).
        for node in entrances.known:
            self._session.add_dht_node(node)

    # --- peers ----------------------------------------------------------------------

    @contextmanager
    def listening(self, info_hash: bytes, found: Found) -> Iterator[None]:
        """Within the block `found` is called with what is answered about `info_hash`."""
        self._found.setdefault(info_hash, []).append(found)
        try:
            yield
        finally:
            self._found[info_hash].remove(found)
            if not self._found[info_hash]:
                del self._found[info_hash]

    def get_peers(self, info_hash: bytes) -> None:
        """Ask who announced `info_hash`; the answers go to those `listening`."""
        self._session.dht_get_peers(self._lt.sha1_hash(info_hash))

    def announce(self, info_hash: bytes, port: int) -> None:
        """Say that this host's `port` has to do with `info_hash`; it is a `get_peers` too.

        Nodes forget it after about half an hour.
        """
        # Flags 0: neither a seed, nor the port implied that the packet comes from.
        self._session.dht_announce(self._lt.sha1_hash(info_hash), port, 0)

    # --- the network ----------------------------------------------------------------

    @property
    def nodes(self) -> int:
        """How many other nodes have answered, as far as they are worth remembering."""
        return len(dht_state.decode(self._state()))

    @property
    def port(self) -> int:
        """The UDP port of this node; with several interfaces, of one of them."""
        return self._session.listen_port()

    @property
    def external(self) -> frozenset[str]:
        """This host's IP addresses as other nodes see them, as far as they agree."""
        return frozenset(self._external.values())

    @property
    def trouble(self) -> str:
        """Why nothing is found here; "" if others answer, or while that is not known."""
        alone = self.joined.is_set() and not self.nodes
        return self.entrances.trouble or ("no other node answers" if alone else "")

    async def move(self) -> None:
        """Go on from the addresses that this machine has now; raises OSError.

        libtorrent follows changes by itself, but for addresses that were named to it, as
        those in a private network are; and what it met from an old one it forgets.
        """
        self.entrances.remember(dht_state.decode(self._state()))
        self._session.apply_settings(self._places())
        for node in self.entrances.places:
            self._session.add_dht_node(node)
        await self._meet()

    # --- running --------------------------------------------------------------------

    @property
    def _session(self) -> lt.session:
        return self._running.handle

    def _alerts(self) -> int:
        """The kinds of alerts to send."""
        kinds = self._lt.alert.category_t
        return (
            kinds.dht_operation_notification | kinds.status_notification | kinds.error_notification
        )

    async def _pump(self) -> None:
        """Hand out alerts."""
        while True:
            for alert in await self._running.alerts():
                self._take(alert)

    def _take(self, alert: Any) -> None:
        lt = self._lt
        if isinstance(alert, lt.dht_get_peers_reply_alert):
            for found in list(self._found.get(alert.info_hash.to_bytes(), ())):
                found(alert.peers())
        elif isinstance(alert, lt.external_ip_alert):
            address = alert.external_address
            self._external[len(packed_ip(address))] = address
        elif isinstance(alert, lt.listen_succeeded_alert):
            self._listening.set()
        elif isinstance(alert, lt.listen_failed_alert):
            self._refusal = alert.error.message()
        else:
            self.items.take(alert)

    async def _join(self) -> None:
        """Wait for the first node to answer, and until names of others are known."""
        pause, longest = RESOLVE_PAUSES
        while not self.joined.is_set() or self.entrances.unresolved:
            if self.entrances or not self.entrances.unresolved:
                await self._meet()
                self.joined.set()
            if self.entrances.unresolved:
                await trio.sleep(pause)
                pause = min(2 * pause, longest)
                await self.entrances.resolve()
                self._session.apply_settings(self._places())

    async def _meet(self) -> None:
        """Wait until a node has answered, if there is one to ask, but not for ever."""
        with trio.move_on_after(JOIN_SECONDS if self.entrances else 0):
            while not self.nodes:
                await trio.sleep(JOIN_LOOK_SECONDS)

    def _places(self) -> lt.settings_pack:
        return self.entrances.settings(self._settings.host, self._settings.port)

    def _state(self) -> bytes:
        lt = self._lt
        kind = lt.save_state_flags_t.save_dht_state
        return bytes(lt.write_session_params_buf(self._session.session_state(kind), kind))

    async def _keep_state(self, path: Path) -> None:
        while True:
            await trio.sleep(SAVE_SECONDS)
            await self._save(path)

    async def _save(self, path: Path) -> None:
        raw = self._state()
        if dht_state.decode(raw):  # who met nobody keeps what he knew
            with suppress(EnvironmentFault):  # only comfort is lost
                await trio.to_thread.run_sync(dht_state.save, path, raw)

    async def _listen(self) -> None:
        with trio.move_on_after(LISTEN_SECONDS):
            await self._listening.wait()
        if not self._listening.is_set():
            raise EnvironmentFault(
                f"the DHT cannot listen on {self._settings.host} port {self._settings.port}:"
                f" {self._refusal or 'no answer'}; set discovery.dht.port to a free one"
            )

    def close(self) -> None:
        self.items.close()
        self._running.close()


@asynccontextmanager
async def open_dht(settings: DhtSettings) -> AsyncIterator[Dht]:
    """Take part in the DHT within the block.

    Raises EnvironmentFault if libtorrent cannot be loaded or cannot listen.
    """
    known: dht_state.Nodes = ()
    try:
        if settings.state is not None:
            known = await trio.to_thread.run_sync(dht_state.load, settings.state)
        entrances = Entrances(settings.bootstrap, known)
        await entrances.resolve()
        dht = Dht(settings, entrances)
    except OSError as error:
        raise EnvironmentFault(f"no socket for the DHT: {error.strerror or error}") from None
    except ImportError as error:
        raise EnvironmentFault(
            f"libtorrent cannot be loaded ({error}): install furymesh[dht] again,"
            " or set discovery.dht.enabled to false"
        ) from None
    try:
        async with open_tasks() as nursery:
            nursery.start_soon(dht._pump)
            await dht._listen()
            nursery.start_soon(dht._join)
            if settings.state is not None:
                nursery.start_soon(dht._keep_state, settings.state)
            try:
                yield dht
            finally:
                if settings.state is not None:
                    with trio.CancelScope(shield=True):
                        await dht._save(settings.state)
            nursery.cancel_scope.cancel()
    finally:
        dht.close()
