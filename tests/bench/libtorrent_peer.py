"""libtorrent, tuned and unencrypted: each session a process of its own."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import libtorrent as lt

from tests.bench.data import Source
from tests.bench.libtorrent_session import Orders
from tests.bench.peer import READY_TIMEOUT, Download, Gated, Leecher, Place, Seed
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
class Libtorrent:
    """The peer that furymesh is measured against; optionally super-seeding."""

    name: str = "libtorrent"
    leechers_listen: bool = True
    super_seeding: bool = False
    piece_size: int = CHOSEN_BY_SIZE
    hashing_threads: int = 1  # libtorrent's own default
    _source: Path = Path()
    _torrent: Path = Path()

    def prepare(self, source: Source, seeds: int, work: Path) -> None:
        self._source = source.path
        self._torrent = work / f"{self.name}.torrent"
        make_torrent(source, self._torrent, self.piece_size)

    def _orders(self, place: Place, folder: Path) -> Orders:
        return Orders(
            str(self._torrent),
            str(folder),
            f"{place.address}:{place.port}",
            hashing_threads=self.hashing_threads,
        )

    def _start(self, crew: Crew, place: Place, orders: Orders) -> Child:
        argv = [sys.executable, SCRIPT, json.dumps(asdict(orders))]
        return crew.spawn(place.command(argv))

    def seed(self, crew: Crew, place: Place, number: int) -> Seed:
        orders = self._orders(place, self._source.parent)
        orders = replace(orders, seed=True, super_seeding=self.super_seeding)
        child = self._start(crew, place, orders)
        port = child.expect("listening", READY_TIMEOUT).fields["port"]
        return Seed(child, f"{place.address}:{port}")

    def leech(self, crew: Crew, wanted: Download) -> Leecher:
        wanted.into.mkdir(parents=True, exist_ok=True)
        orders = self._orders(wanted.place, wanted.into)
        orders = replace(orders, peers=list(wanted.peers), rate=wanted.rate)
        child = self._start(crew, wanted.place, orders)
        child.expect("listening", READY_TIMEOUT)
        path = wanted.into / self._source.name
        return Gated(child, path, lambda fields: int(fields["received"]))
