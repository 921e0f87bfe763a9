"""aria2c to aria2c over BitTorrent, unencrypted.

aria2c takes no peer addresses, so a tracker of one answer runs in this process and
tells the leecher where the seeds are.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.bench.data import Source
from tests.bench.libtorrent_peer import make_torrent
from tests.bench.peer import Download, Leecher, Place, Seed, Ungated, await_port, free_port
from tests.bench.process import Crew

COMMON = (
    "aria2c",
    "--no-conf",
    "--quiet",
    "--enable-dht=false",
    "--enable-dht6=false",
    "--bt-enable-lpd=false",
    "--enable-peer-exchange=false",
    "--bt-max-peers=0",
    "--bt-exclude-tracker=*",
    "--file-allocation=none",
    "--disk-cache=64M",
    "--follow-torrent=mem",
)


def serve_tracker(crew: Crew, peers: Sequence[str]) -> str:
    """Start the tracker; returns its announce URL."""
    compact = b""
    for peer in peers:
        host, _, port = peer.rpartition(":")
        compact += socket.inet_aton(host) + int(port).to_bytes(2, "big")
    answer = b"d8:intervali600e5:peers%d:%se" % (len(compact), compact)

    class Tracker(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Tracker)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    crew.callback(server.server_close)
    crew.callback(server.shutdown)
    return f"http://127.0.0.1:{server.server_address[1]}/announce"


@dataclass(slots=True)
class Aria2:
    """aria2c as seed and leecher; on loopback only, where its tracker is."""

    name: str = "aria2"
    leechers_listen: bool = False
    _source: Path = Path()
    _torrent: Path = Path()

    def prepare(self, source: Source, seeds: int, work: Path) -> None:
        self._source = source.path
        self._torrent = work / "aria2.torrent"
        make_torrent(source, self._torrent)

    def seed(self, crew: Crew, place: Place, number: int) -> Seed:
        port = free_port(place.address)
        options = ["--seed-ratio=0", "--bt-seed-unverified=true", f"--listen-port={port}"]
        argv = [*COMMON, *options, "--dir", str(self._source.parent), str(self._torrent)]
        child = crew.spawn(place.command(argv))
        await_port(child, place.address, port)
        return Seed(child, f"{place.address}:{port}")

    def leech(self, crew: Crew, wanted: Download) -> Leecher:
        wanted.check_plain(self.name, one_source=False)
        into, place = wanted.into, wanted.place
        into.mkdir(parents=True, exist_ok=True)
        tracker = serve_tracker(crew, wanted.peers)
        options = [f"--listen-port={free_port(place.address)}", f"--bt-tracker={tracker}"]
        argv = [*COMMON, *options, "--seed-time=0", "--dir", str(into), str(self._torrent)]
        return Ungated(crew, place.command(argv), into / self._source.name)
