"""One libtorrent session in a process of its own, driven by lines on stdin.

The only argument is a JSON object; see `Orders`. Prints {"event": "listening"} when
it can be reached, then, for a leecher, waits for a line, connects to its peers and
prints {"event": "complete"} when every piece has passed its check and is written:
the finished alert alone comes while blocks are still queued for the disk.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field

import libtorrent as lt

MIB = 1024 * 1024
ENCRYPTION_OFF = 2  # settings_pack's pe_disabled
ALERTS = (
    lt.alert.category_t.status_notification
    | lt.alert.category_t.error_notification
    | lt.alert.category_t.storage_notification  # cache_flushed_alert
)
POLL = 200  # milliseconds a wait for alerts may last


@dataclass(frozen=True, slots=True)
class Orders:
    """What the driver wants: the torrent file, where its content is or goes, and how."""

    torrent: str
    folder: str
    listen: str
    hashing_threads: int
    peers: list[str] = field(default_factory=list)
    rate: int | None = None
    seed: bool = False
    super_seeding: bool = False


def settings(orders: Orders) -> lt.settings_pack:
    """The fast form: no uTP, no encryption, deep queues, everybody unchoked."""
    return {
        "listen_interfaces": orders.listen,
        "enable_outgoing_utp": False,
        "enable_incoming_utp": False,
        "in_enc_policy": ENCRYPTION_OFF,
        "out_enc_policy": ENCRYPTION_OFF,
        "enable_dht": False,
        "enable_lsd": False,
        "enable_upnp": False,
        "enable_natpmp": False,
        "aio_threads": 4,
        "hashing_threads": orders.hashing_threads,
        "max_out_request_queue": 2000,
        "max_allowed_in_request_queue": 4000,
        "send_buffer_watermark": 16 * MIB,
        "send_buffer_low_watermark": 1 * MIB,
        "send_buffer_watermark_factor": 300,
        "max_queued_disk_bytes": 64 * MIB,
        "unchoke_slots_limit": -1,
        "allow_multiple_connections_per_ip": True,
        "connection_speed": 1000,
        "connections_limit": 500,
        "listen_queue_size": 200,
        "strict_super_seeding": False,
        "download_rate_limit": orders.rate or 0,
        "alert_mask": ALERTS,
    }


def say(event: str, **fields: object) -> None:
    print(json.dumps({"event": event, **fields}), flush=True)


def wait_for(session: lt.session, kind: type[lt.alert]) -> None:
    while True:
        session.wait_for_alert(POLL)
        for alert in session.pop_alerts():
            if isinstance(alert, kind):
                return
            if isinstance(alert, (lt.listen_failed_alert, lt.torrent_error_alert)):
                sys.exit(alert.message())


def main() -> None:
    orders = Orders(**json.loads(sys.argv[1]))
    session = lt.session(settings(orders))
    torrent = lt.add_torrent_params()
    torrent.ti = lt.torrent_info(orders.torrent)
    torrent.save_path = orders.folder
    torrent.flags &= ~(lt.torrent_flags.auto_managed | lt.torrent_flags.paused)
    if orders.seed:
        torrent.flags |= lt.torrent_flags.seed_mode
    if orders.super_seeding:
        torrent.flags |= lt.torrent_flags.super_seeding
    wait_for(session, lt.listen_succeeded_alert)
    handle = session.add_torrent(torrent)
    say("listening", port=session.listen_port())
    if not orders.seed:
        if not sys.stdin.readline():
            return
        for peer in orders.peers:
            host, _, port = peer.rpartition(":")
            handle.connect_peer((host, int(port)))
        wait_for(session, lt.torrent_finished_alert)
        handle.flush_cache()
        wait_for(session, lt.cache_flushed_alert)
        say("complete", received=handle.status().total_payload_download)
    sys.stdin.read()


if __name__ == "__main__":
    main()
