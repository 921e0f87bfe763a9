"""A process that has one TCP port forwarded by the router, until its stdin ends.

Run as `python -P router_child.py OWN_ADDRESS PORT GATEWAY AGENT`; GATEWAY may be empty. It
needs nothing of furymesh. A line of JSON on stdout says how things are, whenever that
changes: `{"ports": [public ports], "host": "public address", "troubles": {protocol: why}}`,
or `{"failed": why}` once.

libtorrent does the work. It is kept apart because a session that ends waits for routers
that say nothing, half a minute and with Python's lock held, and because what it reads
comes from anybody on the network. When whoever started it is killed, it ends in order.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import sys
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import libtorrent as lt

STOP_SECONDS = 2.0  # for a router to say that it is over
ROUTERS = {"upnp": "UPnP", "natpmp": "PCP or NAT-PMP"}  # as libtorrent names them


class Asking:
    """A session, and what routers have granted and said by now."""

    def __init__(self, own: str, port: int, gateway: str, agent: str) -> None:
        import libtorrent as lt

        self._lt = lt
        self._port = port
        self._ours: set[int] | None = None  # libtorrent's numbers of it, once it was asked for
        self._ports: dict[str, int] = {}
        self._host = ""
        self._troubles: dict[str, str] = {}
        self.readable, self._writable = socket.socketpair()
        self.readable.setblocking(False)
        self._writable.setblocking(False)
        kinds = lt.alert.category_t
        settings: lt.settings_pack = {
            "listen_interfaces": f"{own}:0",
            "enable_upnp": True,
            "enable_natpmp": True,
            "natpmp_gateway": gateway,
            "upnp_ignore_nonrouters": True,  # such as are not in this network
            "user_agent": agent,  # stands in the router's table
            "alert_mask": kinds.port_mapping_notification | kinds.status_notification,
            "enable_dht": False,
            "enable_lsd": False,
            "enable_incoming_tcp": False,
            "enable_outgoing_tcp": False,
            "enable_incoming_utp": False,
            "enable_outgoing_utp": False,
        }
        self._session = lt.session(settings)
        self._session.set_alert_fd(self._writable.fileno())

    def state(self) -> dict[str, Any]:
        return {
            "ports": list(self._ports.values()),
            "host": self._host,
            "troubles": self._troubles,
        }

    def take_alerts(self) -> None:
        """Take note of what has happened; there may be nothing."""
        while select.select([self.readable], [], [], 0)[0]:
            self.readable.recv(4096)
        for alert in self._session.pop_alerts():
            self._take(alert)

    def take_back(self) -> None:
        """A datagram is sent for PCP and NAT-PMP; for UPnP an answer is waited for."""
        self._session.apply_settings({"enable_upnp": False, "enable_natpmp": False})
        self._session.listen_port()  # comes back when that is done
        end = time.monotonic() + STOP_SECONDS
        while "upnp" in self._ports and (left := end - time.monotonic()) > 0:
            select.select([self.readable], [], [], left)
            self.take_alerts()

    def _take(self, alert: Any) -> None:
        lt = self._lt
        if isinstance(alert, lt.listen_succeeded_alert) and self._ours is None:
            tcp, port = lt.portmap_protocol.tcp, self._port
            self._ours = set(self._session.add_port_mapping(tcp, port, port))
        elif isinstance(alert, lt.external_ip_alert):
            self._host = alert.external_address
        elif isinstance(alert, lt.portmap_alert):
            if alert.mapping in (self._ours or ()):
                self._note(alert, alert.external_port, "")
            elif alert.external_port:  # of the session's own ports, at which there is nobody
                self._session.delete_port_mapping(alert.mapping)
        elif isinstance(alert, lt.portmap_error_alert) and alert.mapping in (self._ours or ()):
            self._note(alert, 0, alert.error.message())

    def _note(self, alert: lt.portmap_alert | lt.portmap_error_alert, port: int, why: str) -> None:
        router = str(alert.map_transport)
        self._ports.pop(router, None)
        self._troubles.pop(ROUTERS[router], None)
        if port:
            self._ports[router] = port
        elif why:
            self._troubles[ROUTERS[router]] = why


def main(own: str, port: str, gateway: str, agent: str) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):  # it ends with whoever started it
        signal.signal(number, signal.SIG_IGN)
    try:
        asking = Asking(own, int(port), gateway, agent)
    except (ImportError, OSError) as error:
        print(json.dumps({"failed": str(error)}), flush=True)
        return
    told = ""
    while sys.stdin not in select.select([sys.stdin, asking.readable], [], [])[0]:
        asking.take_alerts()
        if (state := json.dumps(asking.state())) != told:
            told = state
            print(told, flush=True)
    asking.take_back()
    os._exit(0)  # without waiting for routers that say nothing


if __name__ == "__main__":
    main(*sys.argv[1:])
