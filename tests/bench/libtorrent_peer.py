"""libtorrent, tuned and unencrypted: each session a process of its own."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import libtorrent as lt

from tests.bench.data import Source
from tests.bench.libtorrent_session import Orders
from tests.bench.peer import READY_TIMEOUT, Finish, Leecher, Place, Seed
from tests.bench.process import Child, Crew

SCRIPT = str(Path(__file__).with_name("libtorrent_session.py"))


CHOSEN_BY_SIZE = 0  # libtorrent's own default piece size, right for swarms
BULK_PIECES = 8 * 1024 * 1024  # bytes; one seed, one leecher is fastest with large pieces
BULK_THREADS = 2  # hashing on both processors


def make_torrent(source: Source, torrent: Path, piece_size: int = CHOSEN_BY_SIZE) -> None:
    """Hash `source` with SHA-1 and write the torrent; `piece_size` in bytes."""
    storage = lt.file_storage()
    lt.add_files(storage, str(source.path))
    creator = lt.create_torrent(storage, piece_size, lt.create_torrent.v1_only)
    lt.set_piece_hashes(creator, str(source.path.parent))
    torrent.write_bytes(lt.bencode(creator.generate()))


@dataclass(slots=True)
class Session:
    """One leeching session, held until `go`."""

    child: Child
    path: Path

    def go(self) -> float:
        return self.child.release()

    def finish(self, timeout: float) -> Finish:
        done = self.child.expect("complete", timeout)
        return Finish(done.at, self.path, int(done.fields["received"]))


@dataclass(slots=True)
class Libtorrent:
    """The peer that furymesh is measured against; optionally super-seeding."""

    name: str = "libtorrent"
    super_seeding: bool = False
    piece_size: int = CHOSEN_BY_SIZE
    hashing_threads: int = 1  # libtorrent's own default
    _source: Path = Path()
    _torrent: Path = Path()

    def prepare(self, source: Source, seeds: int, work: Path) -> None:
        self._source = source.path
        self._torrent = work / f"{self.name}.torrent"
        make_torrent(source, self._torrent, self.piece_size)

    def _start(self, crew: Crew, place: Place, orders: Orders) -> Child:
        argv = [sys.executable, SCRIPT, json.dumps(asdict(orders))]
        return crew.spawn(place.command(argv))

    def seed(self, crew: Crew, place: Place, number: int) -> Seed:
        listen = f"{place.address}:{place.port}"
        folder = str(self._source.parent)
        orders = Orders(
            str(self._torrent),
            folder,
            listen,
            [],
            True,
            self.super_seeding,
            None,
            self.hashing_threads,
        )
        child = self._start(crew, place, orders)
        port = child.expect("listening", READY_TIMEOUT).fields["port"]
        return Seed(child, f"{place.address}:{port}")

    def leech(
        self,
        crew: Crew,
        place: Place,
        peers: Sequence[str],
        into: Path,
        *,
        stay: bool = False,
        rate: int | None = None,
    ) -> Leecher:
        into.mkdir(parents=True, exist_ok=True)
        listen = f"{place.address}:{place.port}"
        orders = Orders(
            str(self._torrent),
            str(into),
            listen,
            list(peers),
            False,
            False,
            rate,
            self.hashing_threads,
        )
        child = self._start(crew, place, orders)
        child.expect("listening", READY_TIMEOUT)
        return Session(child, into / self._source.name)
