"""Items of the DHT: what a node stores there under its id, signed, for others (BEP 44).

libtorrent asks and stores; here is who waits for what. Always true: the tables hold
the requests that somebody waits for, and no others.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import trio

from furymesh.core.ids import NodeId
from furymesh.net.identity import Identity

if TYPE_CHECKING:
    import libtorrent as lt

# For an item to be stored, or all answers about one to be there: a node that is gone, of
# which there is always one, takes 15 seconds of it.
ITEM_SECONDS = 30.0
MAX_ITEM = 1000  # bytes of a stored value, bencoded; BEP 44


@dataclass(slots=True)
class _Pending:
    """A request for an item, or to store one: the best answer so far."""

    done: trio.Event = field(default_factory=trio.Event)
    value: bytes | None = None
    seq: int = -1
    newer: Callable[[bytes], None] | None = None  # told of each better value
    stored: int = 0


_Table = dict[tuple[bytes, bytes], list[_Pending]]  # by node id and salt


class Items:
    """Stores and fetches items while a session runs, which hands it what it has to `take`."""

    def __init__(self, session: lt.session, alerts: int) -> None:
        """`alerts` are the kinds that the session sends anyhow."""
        import libtorrent as lt

        self._lt = lt
        self._session = session
        self._alerts = alerts
        self._getting: _Table = {}
        self._putting: _Table = {}

    async def put(
        self, identity: Identity, salt: bytes, value: bytes, seconds: float = ITEM_SECONDS
    ) -> int:
        """Store `value` under the node id and `salt`, instead of what was there.

        libtorrent asks for the item that is there first and signs one with the next
        sequence number. Returns how many nodes keep it: 0 if none answered in time.
        """
        if len(value) > MAX_ITEM - 10:  # its length and a colon are bencoded with it
            raise ValueError("the value is too long for the DHT")
        try:
            with _pending(self._putting, (identity.node_id, salt)) as pending:
                self._ask_for_alerts()
                key = _expanded_key(identity)
                self._session.dht_put_mutable_item(key, identity.node_id, value, salt)
                with trio.move_on_after(seconds):
                    await pending.done.wait()
        finally:
            self._ask_for_alerts()
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

    def take(self, alert: Any) -> None:
        """Hand an alert to whom it concerns, if it is about items."""
        if isinstance(alert, self._lt.dht_mutable_item_alert):
            value = alert.item
            for pending in self._getting.get((alert.key, alert.salt), ()):
                if isinstance(value, bytes) and value and alert.seq > pending.seq:
                    pending.value, pending.seq = value, alert.seq
                    if pending.newer is not None:
                        pending.newer(value)
                if alert.authoritative:  # the last word
                    pending.done.set()
        elif isinstance(alert, self._lt.dht_put_alert):
            for pending in self._putting.get((alert.public_key, alert.salt), ()):
                pending.stored = alert.num_success
                pending.done.set()

    def close(self) -> None:
        """Let go of the session, which ends with the last who holds it."""
        del self._session

    def _ask_for_alerts(self) -> None:
        """The word that an item was stored is of a kind of which there is one for each packet
        from strangers, so it is asked for only when it matters.
        """
        more = self._lt.alert.category_t.dht_notification if self._putting else 0
        self._session.apply_settings({"alert_mask": self._alerts | more})


@contextmanager
def _pending(table: _Table, key: tuple[bytes, bytes]) -> Iterator[_Pending]:
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
