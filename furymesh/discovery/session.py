"""A session of libtorrent that does only what it is told, and its alerts in trio.

It is made for torrents; here it has none. It works in a thread of its own, and tells
what happened by alerts. A byte in a socket says that there are some again.

Making and ending a session holds Python's lock, in whatever thread it is done:
10-40 ms and 2-6 ms, as measured.
"""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import trio

if TYPE_CHECKING:
    import libtorrent as lt

# Nothing by itself: what a session is for is switched on.
_IDLE: lt.settings_pack = {
    "enable_dht": False,
    "enable_lsd": False,
    "enable_upnp": False,
    "enable_natpmp": False,
    "enable_incoming_tcp": False,
    "enable_outgoing_tcp": False,
    "enable_incoming_utp": False,
    "enable_outgoing_utp": False,
}


class Session:
    """A running session; `handle` is libtorrent's own."""

    def __init__(self, settings: lt.settings_pack) -> None:
        """Raises ImportError where libtorrent cannot be loaded, OSError for want of a socket."""
        import libtorrent as lt

        self._readable, self._writable = socket.socketpair()
        try:
            self._readable.setblocking(False)
            self._writable.setblocking(False)
            self.handle: lt.session = lt.session({**_IDLE, **settings})
            self.handle.set_alert_fd(self._writable.fileno())
        except BaseException:
            self._readable.close()
            self._writable.close()
            raise

    async def alerts(self) -> list[Any]:
        """Wait until there may be alerts, and take them; for one task at a time."""
        await trio.lowlevel.wait_readable(self._readable)
        with suppress(BlockingIOError):
            while self._readable.recv(4096):
                pass
        return self.handle.pop_alerts()

    def close(self) -> None:
        del self.handle  # ends it, and with it whoever writes into the socket
        self._readable.close()
        self._writable.close()
