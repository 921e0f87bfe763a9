"""furymesh through its command line: share, node, get, each with --json."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from tests.bench.data import Source
from tests.bench.peer import READY_TIMEOUT, Download, Gated, Leecher, Place, Seed
from tests.bench.process import BenchError, Crew

ROOT = Path(__file__).resolve().parents[2]
GATE = str(Path(__file__).with_name("gate.py"))
CLI = [sys.executable, "-m", "furymesh"]
ENVIRONMENT = {"PYTHONPATH": str(ROOT)}
SHARE_TIMEOUT = 600.0  # seconds, for hashing the largest file on a slow disk


def home(data: Path, listen: str | None = None, *, lan: bool = False) -> list[str]:
    """Options that keep a process to `data`, off the DHT, and off the LAN unless told."""
    data.mkdir(parents=True, exist_ok=True)
    config: dict[str, object] = {"discovery": {"lan": {"enabled": lan}, "dht": {"enabled": False}}}
    if listen is not None:
        config["node"] = {"listen": listen}
    path = data / "bench.yaml"
    path.write_text(yaml.safe_dump(config))
    return ["--config", str(path), "--data-dir", str(data / "data")]


@dataclass(slots=True)
class Furymesh:
    """The product. Always encrypted; there is no other mode to measure."""

    name: str = "furymesh"
    leechers_listen: bool = False
    link: str = ""
    chunk_size: int = 0
    _source: Path = Path()
    _homes: list[Path] = field(default_factory=list)

    def prepare(self, source: Source, seeds: int, work: Path) -> None:
        self._source = source.path
        self._homes = [work / f"furymesh-seed-{number}" for number in range(seeds)]
        with Crew(work / "furymesh-share") as crew:
            for data in self._homes:
                share = [*CLI, "share", str(source.path), "--json", *home(data)]
                child = crew.spawn(share, ENVIRONMENT)
                shared = child.expect(None, SHARE_TIMEOUT).fields
                self.link, self.chunk_size = str(shared["link"]), int(shared["chunk_size"])
                child.ended(READY_TIMEOUT)

    def seed(self, crew: Crew, place: Place, number: int) -> Seed:
        listen = f"{place.address}:{place.port}"
        node = [*CLI, "node", "--listen", listen, "--json", *home(self._homes[number])]
        child = crew.spawn(place.command(node), ENVIRONMENT)
        addresses = child.expect("listening", READY_TIMEOUT).fields["addresses"]
        if not addresses:
            raise BenchError("furymesh node listens nowhere")
        return Seed(child, str(addresses[0]))

    def leech(self, crew: Crew, wanted: Download) -> Leecher:
        place, path = wanted.place, wanted.into / self._source.name
        options = [option for peer in wanted.peers for option in ("--peer", peer)]
        if wanted.stay:
            options.append("--seed")
        if wanted.rate is not None:
            options += ["--max-download", str(wanted.rate)]
        data = home(wanted.into / "home", f"{place.address}:{place.port}")
        output = ["--output", str(path)]
        get = [sys.executable, GATE, "get", self.link, "--json", *output, *options, *data]
        child = crew.spawn(place.command(get), ENVIRONMENT)
        child.expect("ready", READY_TIMEOUT)
        return Gated(
            child, path, lambda fields: sum(int(peer["bytes"]) for peer in fields["peers"])
        )
