"""Rate limits, measured with real processes, most of them in the same ten seconds."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import pytest
import trio

from furymesh.core.link import Link
from furymesh.node import face
from furymesh.node.config import Config, load_config
from tests.e2e.mesh import DEADLINE, Mesh, Process
from tests.waiting import looks

SECONDS = 10.0
LARGE_SECONDS = 5.0  # a hundred megabytes a second fill a disk soon
SPARE_SECONDS = 3.0  # nothing may be complete before it was measured
LOOK_SECONDS = 0.5  # asking costs the node time
SMALL, MIDDLE, LARGE = 200_000, 5_000_000, 100_000_000  # bytes a second
THIN = 20_000
CHUNK = {THIN: 16 << 10, SMALL: 16 << 10, MIDDLE: 64 << 10, LARGE: 256 << 10}
RECEIVERS = ("one", "two", "three")  # nodes without a limit
SLOW = ((SMALL, "one"), (SMALL, "fair"), (THIN, "one", "fair"))
TOLERANCE = 0.03
ATTEMPTS = 3


@dataclass
class Curve:
    """How far a download was, and when."""

    limit: int  # bytes a second, of this download alone
    points: list[tuple[float, int]] = field(default_factory=list)
    peers: list[int] = field(default_factory=list)

    @property
    def done(self) -> bool:
        """Whether it was looked at for long enough."""
        seconds = LARGE_SECONDS if self.limit == LARGE else SECONDS
        return bool(self.points) and self.points[-1][0] - self.points[0][0] >= seconds

    def rate(self, since: float = 0.0, until: float = math.inf) -> float:
        """Bytes a second between the first look and the last, of those in this time."""
        looks = [point for point in self.points if since <= point[0] <= until]
        (begun, before), (ended, after) = looks[0], looks[-1]
        return (after - before) / (ended - begun)


class Bench:
    """Nodes and downloads that all run at the same time, and how each of them fares."""

    def __init__(self, mesh: Mesh, pool: ThreadPoolExecutor) -> None:
        self.curves: dict[str, Curve] = {}
        self._mesh = mesh
        self._pool = pool
        self._gets: dict[str, Process] = {}
        self._watching: list[Future[None]] = []
        self._nodes: dict[str, Process] = {}
        self._addresses: dict[str, str] = {}
        self._configs: dict[str, Config] = {}
        self._files = 0

    def rate(self, *names: str) -> float:
        """Bytes a second of these downloads together, in the time when all were looked at.

        Whoever begins first has more than its part of a limit until the others begin.
        """
        curves = [self.curves[name] for name in names]
        since = max(curve.points[0][0] for curve in curves)
        until = min(curve.points[-1][0] for curve in curves)
        return sum(curve.rate(since, until) for curve in curves)

    def share(self, rate: int, *homes: str) -> Link:
        """Share a file that lasts long enough at this rate."""
        self._files += 1
        chunk = CHUNK[rate]
        seconds = (LARGE_SECONDS if rate == LARGE else SECONDS) + SPARE_SECONDS
        path = self._mesh.root / f"{self._files}.bin"
        with path.open("wb") as file:  # no other has its length, so none has its id
            file.truncate((int(rate * seconds) // chunk + self._files) * chunk)
        for home in homes:
            shared = self._mesh.share(home, path, chunk_size=chunk)
        return shared.link

    def node(self, name: str, *options: object, config: str = "") -> None:
        home = self._mesh.home(name)
        place = self._mesh.config_of(home)
        place.write_text(place.read_text() + config)
        self._configs[name] = load_config(place, home)
        listen = ("--listen", "127.0.0.1:0", "--json")
        self._nodes[name] = self._mesh.start(home, "node", *listen, *options)

    def listen(self) -> None:
        """Wait until every node does."""
        for name, process in self._nodes.items():
            self._addresses[name] = process.expect("listening")["addresses"][0]

    def get(self, name: str, rate: int, link: Link, *options: object, peers: Sequence[str]) -> None:
        """Download in a process of its own."""
        addresses = [self._addresses[peer] for peer in peers]
        process = self._mesh.start_get(name, link.text, *options, peers=addresses)
        self._gets[name] = process
        self.curves[name] = curve = Curve(rate)
        self._watching.append(self._pool.submit(_watch_get, process, curve))

    def get_large(self, name: str, link: Link, *options: object, peers: Sequence[str]) -> None:
        """Download alone, again if the machine was too busy with other things to keep up."""
        for attempt in range(ATTEMPTS):
            again = f"{name}-{attempt}"
            self.get(again, LARGE, link, *options, peers=peers)
            self.measured()
            self._gets.pop(again).kill()
            self.curves[name] = self.curves.pop(again)
            if self.rate(name) / LARGE >= 1 - TOLERANCE:
                return

    def detach(self, name: str, rate: int, link: Link, *, node: str, peer: str) -> None:
        """Let a node download from another."""
        flags = ("--detach", "--peer", self._addresses[peer], "--output", self._mesh.root / name)
        done = self._mesh.call(node, "get", link.text, *flags)
        assert done.code == 0, done.err
        self.curves[name] = curve = Curve(rate)
        watch = self._pool.submit(_watch_node, self._configs[node], link, CHUNK[rate], curve)
        self._watching.append(watch)

    def measured(self) -> None:
        """Wait until all of what was started was looked at for long enough."""
        for watch in self._watching:
            watch.result()
        self._watching.clear()


def _watch_get(process: Process, curve: Curve) -> None:
    while not curve.done:
        event = process.expect("progress", lambda event: event["bytes_done"] > 0)
        curve.points.append((time.monotonic(), event["bytes_done"]))
        curve.peers.append(event["peers"])


def _watch_node(config: Config, link: Link, chunk: int, curve: Curve) -> None:
    for seconds in looks(LOOK_SECONDS):
        asked_at = time.monotonic()
        status = trio.run(face.status, config)
        assert status is not None
        downloads = status["downloads"]
        assert isinstance(downloads, list)
        for download in downloads:  # none before the node has begun
            if download["file_id"] == link.file_id.hex() and download["chunks_done"]:
                at = (asked_at + time.monotonic()) / 2
                curve.points.append((at, download["chunks_done"] * chunk))
        if curve.done:
            break
        assert seconds < DEADLINE, curve


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    mesh = Mesh(tmp_path_factory.mktemp("limits"))
    try:
        with ThreadPoolExecutor(16) as pool:
            bench = Bench(mesh, pool)
            _run(bench)
        yield bench
    finally:
        mesh.close()


def _run(bench: Bench) -> None:
    """Slow receivers have seeds of their own: they keep a seed's few slots from fast ones."""
    small, own, thin = (bench.share(*what) for what in SLOW)
    middle = bench.share(MIDDLE, "two", "three", "up-large")
    first, second = bench.share(MIDDLE, "two"), bench.share(MIDDLE, "three")
    large = bench.share(LARGE, "two", "three", "up-large")
    up_small = bench.share(SMALL, "own")
    up_middle = [bench.share(MIDDLE, "up-middle") for _ in RECEIVERS]
    limits = "node: {{max_download: {}}}\ntransfer: {{max_download: {}}}\n"
    for name in RECEIVERS:
        bench.node(name)
    bench.node("up-middle", config=f"node: {{max_upload: {MIDDLE}}}\n")
    bench.node("up-large", "--max-upload", "100M")
    bench.node("fair", config=limits.format("5M", "20M"))
    bench.node("own", "--max-upload", SMALL, config=limits.format("5M", "200K"))
    bench.listen()

    bench.get("small", SMALL, small, "--max-download", "200K", peers=["one"])
    bench.get("middle", MIDDLE, middle, "--max-download", "5M", peers=["two", "three", "up-large"])
    bench.get("thin", THIN, thin, "--max-download", "20K", peers=["one", "fair"])
    bench.detach("first", MIDDLE, first, node="fair", peer="two")
    bench.detach("second", MIDDLE, second, node="fair", peer="three")
    bench.detach("own", SMALL, own, node="own", peer="fair")
    bench.detach("up-small", SMALL, up_small, node="one", peer="own")
    for node, link in zip(RECEIVERS, up_middle, strict=True):
        bench.detach(f"up-middle-{node}", MIDDLE, link, node=node, peer="up-middle")
    bench.measured()
    bench.get_large("large", large, "--max-download", "100M", peers=["two", "three"])
    bench.get_large("up-large", large, peers=["up-large"])


@pytest.mark.parametrize(
    ("names", "limit"),
    [
        (["up-small"], SMALL),
        ([f"up-middle-{node}" for node in RECEIVERS], MIDDLE),
        (["up-large"], LARGE),
        (["small"], SMALL),
        (["middle"], MIDDLE),
        (["large"], LARGE),
        (["first", "second"], MIDDLE),
        (["own"], SMALL),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, list) else str(value),
)
def test_a_limit_holds(bench: Bench, names: list[str], limit: int) -> None:
    """No less passes and no more: over one link and over three, from flags and configuration."""
    assert bench.rate(*names) == pytest.approx(limit, rel=TOLERANCE)


def test_two_downloads_share_the_limit_of_their_node(bench: Bench) -> None:
    assert bench.rate("first") == pytest.approx(MIDDLE / 2, rel=0.2)
    assert bench.rate("second") == pytest.approx(MIDDLE / 2, rel=0.2)


def test_links_share_a_limit(bench: Bench) -> None:
    for node in RECEIVERS:
        assert bench.rate(f"up-middle-{node}") == pytest.approx(MIDDLE / 3, rel=0.3)


def test_no_link_dies_of_a_low_limit(bench: Bench) -> None:
    thin = bench.curves["thin"]
    assert thin.peers[-1] == 2, thin
    assert thin.rate() / THIN == pytest.approx(1.0, abs=0.3)  # a chunk is most of a second
