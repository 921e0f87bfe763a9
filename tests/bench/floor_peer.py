"""The floor: the same bytes moved and hashed by the same kernel and C code, and nothing else.

A seed sends the file with sendfile; a leecher receives a mebibyte at a time, and
a second thread hashes each with BLAKE3 and writes it. No cipher, no protocol, no
second reading before the end: what this machine takes for a download that does
less than furymesh may ever do.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

from blake3 import blake3

from tests.bench.data import Source
from tests.bench.peer import READY_TIMEOUT, Download, Gated, Leecher, Place, Seed
from tests.bench.process import Crew

MIB = 1024 * 1024
BUFFERS = 8  # mebibytes received and not yet written
ROOT = str(Path(__file__).resolve().parents[2])


@dataclass(slots=True)
class Floor:
    """sendfile → recv → BLAKE3 → pwrite."""

    name: str = "floor"
    leechers_listen: bool = False
    _source: Path = Path()

    def prepare(self, source: Source, seeds: int, work: Path) -> None:
        self._source = source.path

    def seed(self, crew: Crew, place: Place, number: int) -> Seed:
        argv = [sys.executable, "-m", __name__, "seed", str(self._source), place.address]
        child = crew.spawn(place.command(argv), {"PYTHONPATH": ROOT})
        port = child.expect("listening", READY_TIMEOUT).fields["port"]
        return Seed(child, f"{place.address}:{port}")

    def leech(self, crew: Crew, wanted: Download) -> Leecher:
        wanted.check_plain(self.name, one_source=True)
        wanted.into.mkdir(parents=True, exist_ok=True)
        path, size = wanted.into / self._source.name, self._source.stat().st_size
        argv = [sys.executable, "-m", __name__, "leech", str(path), wanted.peers[0], str(size)]
        child = crew.spawn(wanted.place.command(argv), {"PYTHONPATH": ROOT})
        child.expect("ready", READY_TIMEOUT)
        return Gated(child, path)


def seed(path: str, address: str) -> None:
    """Send the file to whoever connects."""
    with socket.create_server((address, 0)) as server, open(path, "rb") as file:
        say("listening", port=server.getsockname()[1])
        size = os.fstat(file.fileno()).st_size
        while True:
            connection, _ = server.accept()
            with connection:
                at = 0
                while at < size:
                    at += os.sendfile(connection.fileno(), file.fileno(), at, size - at)


def leech(path: str, peer: str, size: int) -> None:
    """Receive, hash and write `size` bytes."""
    say("ready")
    sys.stdin.readline()
    host, _, port = peer.rpartition(":")
    free: SimpleQueue[memoryview] = SimpleQueue()
    full: SimpleQueue[tuple[memoryview, int] | None] = SimpleQueue()
    for _ in range(BUFFERS):
        free.put(memoryview(bytearray(MIB)))

    def store() -> None:
        while (item := full.get()) is not None:
            view, at = item
            blake3(view).digest()
            os.pwrite(fd, view, at)
            free.put(memoryview(view.obj))

    with socket.create_connection((host, int(port))) as connection:
        fd = os.open(path, os.O_RDWR | os.O_CREAT)
        os.ftruncate(fd, size)
        thread = threading.Thread(target=store)
        thread.start()
        for at in range(0, size, MIB):
            view = free.get()[: min(MIB, size - at)]
            done = 0
            while done < len(view):
                got = connection.recv_into(view[done:], 0, socket.MSG_WAITALL)
                if not got:
                    sys.exit("the seed went away")
                done += got
            full.put((view, at))
        full.put(None)
        thread.join()
        os.close(fd)
    say("complete")
    sys.stdin.read()


def say(event: str, **fields: object) -> None:
    print(json.dumps({"event": event, **fields}), flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "seed":
        seed(sys.argv[2], sys.argv[3])
    else:
        leech(sys.argv[2], sys.argv[3], int(sys.argv[4]))
