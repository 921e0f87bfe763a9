"""Hosts on one network that run furymesh, where no address is typed anywhere."""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack
from pathlib import Path

from tests.e2e.mesh import Mesh, Process, write_blob
from tests.netns.lab import Host, Lab, Shape, _run, mbit

CONFIG = "discovery: {dht: {enabled: false}}\n"
FLOOD = Path(__file__).with_name("lan_flood.py")
FAST = Shape(mbit(1000), mbit(1000))
SIZE = 2_000_000
CHUNK_SIZE = 64 * 1024
FLOOD_RATE = 10_000  # datagrams a second
ALIASES = 150  # addresses of one who lies


class Segment:
    """Hosts that run furymesh as it comes, but for the DHT, unless `config` says otherwise."""

    def __init__(self, lab: Lab, mesh: Mesh, stack: ExitStack) -> None:
        self.hosts = lab.hosts
        self.config = CONFIG
        self.mesh = mesh
        self.source = mesh.root / "content.bin"
        self._stack = stack
        self._count = 0

    def share(self, *homes: str, size: int = SIZE, chunk_size: int = CHUNK_SIZE) -> str:
        """Share the same content from these homes; the bare file id."""
        write_blob(self.source, size, seed=21)
        for home in homes:
            self._home(home)
            shared = self.mesh.share(home, self.source, chunk_size=chunk_size)
        return shared.file_id.hex()

    def run(self, host: Host, home: str, command: str, *arguments: object) -> Process:
        return self.mesh.start(self._home(home), command, "--json", *arguments, on=host)

    def start(self, host: Host, argv: list[str]) -> Process:
        self._count += 1
        log = self.mesh.root / f"{self._count}.err"
        process = Process(host.command(argv), log, self.mesh.files("work"), dict(os.environ))
        self._stack.callback(process.clean_up)
        return process

    def node(self, host: Host, home: str) -> Process:
        process = self.run(host, home, "node", "--listen", "0.0.0.0:0")
        process.expect("listening")
        return process

    def aliases(self, host: Host, count: int) -> list[str]:
        """Give a host more addresses."""
        aliases = [f"10.77.0.{100 + number}" for number in range(count)]
        for alias in aliases:
            _run("ip", "-n", host.namespace, "addr", "add", f"{alias}/32", "dev", "eth0")
        return aliases

    def flood(self, host: Host, aliases: list[str], seed: int, *options: object) -> Process:
        """One who lies to whoever asks, from many addresses."""
        script = [sys.executable, str(FLOOD), "--rate", str(FLOOD_RATE)]
        flags = ["--seed", str(seed), *map(str, options)]
        process = self.start(host, [*script, *flags, *aliases])
        process.expect("ready")
        return process

    def _home(self, name: str) -> Path:
        data = self.mesh.home(name)
        self.mesh.config_of(data).write_text(self.config)
        return data
