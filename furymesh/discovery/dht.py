"""One node of BitTorrent's mainline DHT (BEP 5, BEP 44), run by libtorrent.

libtorrent's session is made for torrents; here it has none and speaks only the
DHT. Requests go to its own thread at once, and what comes back arrives as alerts
that `_pump` hands out in trio's. No answer means not found: the DHT never says no.

Making and ending a session holds Python's lock, in whatever thread it is done:
10-40 ms and 2-6 ms, as measured.
"""

from __future__ import annotations

import hashlib
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio

from furymesh.core.errors import EnvironmentFault
from furymesh.core.ids import NodeId
from furymesh.core.link import Address
from furymesh.discovery import dht_state
from furymesh.discovery.dht_entrances import Entrances
from furymesh.net.addresses import packed_ip
from furymesh.net.identity import Identity
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
# For an item to be stored, or all answers about one to be there: a node that is gone, of
# which there is always one, takes 15 seconds of it.
ITEM_SECONDS = 30.0
MAX_ITEM = 1000  # bytes of a stored value, bencoded; BEP 44

Found = Callable[[list[tuple[str, int]]], None]


@dataclass(frozen=True, slots=True)
class DhtSettings:
    """Where to take part, and by which nodes."""

    bootstrap: tuple[Address, ...] = ()
    host: str = "0.0.0.0"  # an IP address of this machine, or all of IPv4 or IPv6
    port: int = 0  # UDP, and TCP without use: libtorrent insists; 0 for any free one
    state: Path | None = None  # remembers nodes from run to run


@dataclass(slots=True)
class _Pending:
    """A request for an item, or to store one: the best answer so far."""

    done: trio.Event = field(default_factory=trio.Event)
    value: bytes | None = None
    seq: int = -1
    newer: Callable[[bytes], None] | None = None  # told of each better value
    stored: int = 0


class Dht:
    """A node of the DHT while it runs. Made by `open_dht`."""

    def __init__(self, settings: DhtSettings, entrances: Entrances) -> None:
        import libtorrent as lt

        self._lt = lt
        self._settings = settings
        self.entrances = entrances
        self.joined = trio.Event()  # whoever asks earlier hears nothing
        self._found: dict[bytes, list[Found]] = {}
        self._getting: dict[tuple[bytes, bytes], list[_Pending]] = {}
        self._putting: dict[tuple[bytes, bytes], list[_Pending]] = {}
        self._listening = trio.Event()
        self._refusal = ""
        self._external: dict[int, str] = {}  # by the length of a packed one
        self._readable, self._writable = socket.socketpair()
        try:
            self._readable.setblocking(False)
            self._writable.setblocking(False)
            self._session = self._open()
            self._session.set_alert_fd(self._writable.fileno())
        except BaseException:
            self._readable.close()
            self._writable.close()
            raise

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

    # --- items ----------------------------------------------------------------------

    async def put(
        self, identity: Identity, salt: bytes, value: bytes, seconds: float = ITEM_SECONDS
    ) -> int:
        """Store `value` under the node id and `salt`, instead of what was there (BEP 44).

        libtorrent asks for the item that is there first and signs one with the next
        sequence number. Returns how many nodes keep it: 0 if none answered in time.
        """
        if len(value) > MAX_ITEM - 10:  # its length and a colon are bencoded with it
            raise ValueError("the value is too long for the DHT")
        try:
            with _pending(self._putting, (identity.node_id, salt)) as pending:
                self._session.apply_settings({"alert_mask": self._alerts()})
                key = _expanded_key(identity)
                self._session.dht_put_mutable_item(key, identity.node_id, value, salt)
                with trio.move_on_after(seconds):
                    await pending.done.wait()
        finally:
            self._session.apply_settings({"alert_mask": self._alerts()})
        return pending.stored

    async def get(
        self,
        node_id: NodeId,
        salt: bytes,
        seconds: float = ITEM_SECONDS,
        *,
        newer: Callable[[bytes], None] | None = None,
    ) -> bytes | None:
        """What the node stored under `salt`; None if no answer came in time.

        The signature was checked by libtorrent; of several values the one with the
        highest sequence number counts. `newer` hears of each that is the best so far,
        long before the last of those asked has answered or is given up.
        """
        with _pending(self._getting, (node_id, salt)) as pending:
            pending.newer = newer
            self._session.dht_get_mutable_item(node_id, salt)
            with trio.move_on_after(seconds):
                await pending.done.wait()
        return pending.value

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

    # --- running --------------------------------------------------------------------

    def _open(self) -> lt.session:
        settings: lt.settings_pack = {
            "enable_dht": True,
            "enable_lsd": False,
            "enable_upnp": False,
            "enable_natpmp": False,
            "enable_incoming_tcp": False,
            "enable_outgoing_tcp": False,
            "enable_incoming_utp": False,
            "enable_outgoing_utp": False,
            "alert_mask": self._alerts(),
            **self.entrances.settings(self._settings.host, self._settings.port),
        }
        session: lt.session = self._lt.session(settings)
        # Its constructor has a parameter for the state of before, and ignores it (2.1.1).
        for node in self.entrances.known:
            session.add_dht_node(node)
        return session

    def _alerts(self) -> int:
        """The kinds of alerts to send. The word that an item was stored is of a kind of which
        there is one for each packet from strangers, so it is asked for only when it matters.
        """
        kinds = self._lt.alert.category_t
        mask = (
            kinds.dht_operation_notification | kinds.status_notification | kinds.error_notification
        )
        return mask | kinds.dht_notification if self._putting else mask

    async def _pump(self) -> None:
        """Hand out alerts; libtorrent writes a byte when there are some again."""
        while True:
            await trio.lowlevel.wait_readable(self._readable)
            with suppress(BlockingIOError):
                while self._readable.recv(4096):
                    pass
            for alert in self._session.pop_alerts():
                self._take(alert)

    def _take(self, alert: Any) -> None:
        lt = self._lt
        if isinstance(alert, lt.dht_get_peers_reply_alert):
            for found in list(self._found.get(alert.info_hash.to_bytes(), ())):
                found(alert.peers())
        elif isinstance(alert, lt.dht_mutable_item_alert):
            value = alert.item
            for pending in self._getting.get((alert.key, alert.salt), ()):
                if isinstance(value, bytes) and value and alert.seq > pending.seq:
                    pending.value, pending.seq = value, alert.seq
                    if pending.newer is not None:
                        pending.newer(value)
                if alert.authoritative:  # the last word
                    pending.done.set()
        elif isinstance(alert, lt.dht_put_alert):
            for pending in self._putting.get((alert.public_key, alert.salt), ()):
                pending.stored = alert.num_success
                pending.done.set()
        elif isinstance(alert, lt.external_ip_alert):
            address = alert.external_address
            self._external[len(packed_ip(address))] = address
        elif isinstance(alert, lt.listen_succeeded_alert):
            self._listening.set()
        elif isinstance(alert, lt.listen_failed_alert):
            self._refusal = alert.error.message()

    async def _join(self) -> None:
        """Wait for the first node to answer, and until names of others are known."""
        pause, longest = RESOLVE_PAUSES
        while not self.joined.is_set() or self.entrances.unresolved:
            if self.entrances or not self.entrances.unresolved:
                with trio.move_on_after(JOIN_SECONDS if self.entrances else 0):
                    while not dht_state.decode(self._state()):
                        await trio.sleep(JOIN_LOOK_SECONDS)
                self.joined.set()
            if self.entrances.unresolved:
                await trio.sleep(pause)
                pause = min(2 * pause, longest)
                await self.entrances.resolve()
                settings = self.entrances.settings(self._settings.host, self._settings.port)
                self._session.apply_settings(settings)

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
        del self._session  # ends it, and with it whoever writes into the socket
        self._readable.close()
        self._writable.close()


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


@contextmanager
def _pending(
    table: dict[tuple[bytes, bytes], list[_Pending]], key: tuple[bytes, bytes]
) -> Iterator[_Pending]:
    pending = _Pending()
    table.setdefault(key, []).append(pending)
    try:
        yield pending
    finally:
        table[key].remove(pending)
        if not table[key]:
            del table[key]


def _expanded_key(identity: Identity) -> bytes:
    """The private key in the form that libtorrent signs with: RFC 8032, section 5.1.5."""
    expanded = bytearray(hashlib.sha512(identity.private.private_bytes_raw()).digest())
    expanded[0] &= 0b1111_1000
    expanded[31] &= 0b0111_1111
    expanded[31] |= 0b0100_0000
    return bytes(expanded)
