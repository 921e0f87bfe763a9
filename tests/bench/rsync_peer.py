"""rsync from a daemon: one seed, one leecher, no swarm."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tests.bench.data import Source
from tests.bench.peer import Download, Leecher, Place, Seed, Ungated, await_port, free_port
from tests.bench.process import Crew


@dataclass(slots=True)
class Rsync:
    """Whole files, no delta, no compression: rsync at its fastest."""

    name: str = "rsync"
    leechers_listen: bool = False
    _source: Path = Path()
    _config: Path = Path()

    def prepare(self, source: Source, seeds: int, work: Path) -> None:
        self._source = source.path
        self._config = work / "rsyncd.conf"
        module = f"[bench]\npath = {source.path.parent}\nread only = yes\nuse chroot = no\n"
        self._config.write_text(module + "uid = root\ngid = root\n")

    def seed(self, crew: Crew, place: Place, number: int) -> Seed:
        port = free_port(place.address)
        options = ["--daemon", "--no-detach", f"--address={place.address}", f"--port={port}"]
        argv = ["rsync", *options, f"--config={self._config}"]
        child = crew.spawn(place.command(argv))
        await_port(child, place.address, port)
        return Seed(child, f"{place.address}:{port}")

    def leech(self, crew: Crew, wanted: Download) -> Leecher:
        wanted.check_plain(self.name, one_source=True)
        wanted.into.mkdir(parents=True, exist_ok=True)
        url = f"rsync://{wanted.peers[0]}/bench/{self._source.name}"
        argv = ["rsync", "--archive", "--whole-file", "--inplace", url, str(wanted.into)]
        return Ungated(crew, wanted.place.command(argv), wanted.into / self._source.name)
