"""Rows 9, 11, 12 and 14: what one machine shows about furymesh alone."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from blake3 import blake3

from tests.bench.data import free_memory
from tests.bench.furymesh_peer import CLI, ENVIRONMENT, GATE, SHARE_TIMEOUT, Furymesh, home
from tests.bench.libtorrent_peer import Libtorrent, make_torrent
from tests.bench.measure import FINISH_TIMEOUT, Options, Outcome, alternate, content
from tests.bench.peer import READY_TIMEOUT, Download, Loopback, Peer
from tests.bench.process import BenchError, Child, Crew
from tests.netns.relay import DelayLine
from tests.waiting import looks

RESUME_FACTOR = 5  # × --size: 10 GiB by default
WHOLE_CHUNKS = 4 * 2**20  # bytes; the largest default chunk, so no short one blurs the count
RESUME_SECONDS = 24  # a download slow enough that its progress lines show the half
FIRST_DATA = 256 * 1024  # bytes from the seed: more than handshakes, so chunks were asked for
LINKS = 32
LINK_RATE = 4_000_000  # bytes a second for each of the 32: all of them busy, none finishes
LINK_SECONDS = 10.0
LOOK_SECONDS = 0.5  # between looks at its memory, whose peak is remembered
START_RUNS = 10  # starts a round; one alone is all noise
READ_SIZE = 1 << 20


def _run(argv: Sequence[str]) -> subprocess.CompletedProcess[bytes]:
    environment = {**os.environ, **ENVIRONMENT}
    return subprocess.run(
        argv, capture_output=True, timeout=READY_TIMEOUT, check=False, env=environment
    )


def _command(*argv: str) -> float:
    """Run a command to its end; wall seconds. Raises BenchError unless it exits 0."""
    start = time.monotonic()
    done = _run(argv)
    seconds = time.monotonic() - start
    if done.returncode != 0:
        raise BenchError(f"{' '.join(argv[:4])} …: {done.stderr.decode()[-300:].strip()}")
    return seconds


def _stored(data: Sequence[str]) -> int:
    """Chunks that the resume data in `data` vouches for."""
    argv = [*CLI, "list-resume", "--json", *data]
    done = _run(argv)
    try:
        return sum(int(entry["chunks_done"]) for entry in json.loads(done.stdout))
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise BenchError(f"list-resume: {done.stderr.decode()[-300:].strip()}") from error


def _interrupt(child: Child, start: float) -> int:
    """Kill the download in its second half; the last count of chunks it reported."""
    begun = child.expect("started", FINISH_TIMEOUT)
    half = int(begun.fields["chunks_total"]) // 2
    while time.monotonic() < start + FINISH_TIMEOUT:
        fields = child.expect("progress", FINISH_TIMEOUT).fields
        if int(fields["chunks_done"]) >= half:
            child.signal(signal.SIGKILL)
            return int(fields["chunks_done"])
    raise child.error("never reached the half")


def resume_after_kill(options: Options) -> list[Outcome]:
    """Row 9. A relay between the two counts bytes and sees the first data go by."""
    wished = RESUME_FACTOR * options.size
    free = min(shutil.disk_usage(options.work).free, free_memory())
    room = int(free / 2.5)  # source, part, slack
    size = min(wished, room - room % WHOLE_CHUNKS)
    work, source = content(options, "resume", size)
    peer = Furymesh()
    carried: list[float] = []

    def once(_: str) -> tuple[float, float]:
        into = work / "leecher"
        with ExitStack() as stack:
            stack.callback(shutil.rmtree, into, ignore_errors=True)
            peer.prepare(source, 1, work)
            wanted = Download(Loopback(), [], into)
            with Crew(work / "logs") as crew:
                seed = peer.seed(crew, Loopback(), 0)
                slow = replace(wanted, peers=[seed.address], rate=size // RESUME_SECONDS)
                first = peer.leech(crew, slow)
                chunks = _interrupt(first.child, first.go())
            stored = _stored(home(into / "home"))
            if stored < chunks:
                raise BenchError(f"{stored} chunks on record after {chunks} were reported")
            # At another port: the one that is remembered would lead past the relay.
            crew = stack.enter_context(Crew(work / "logs"))
            seed = peer.seed(crew, Loopback(), 0)
            line = stack.enter_context(DelayLine(seed.address, 0.0, mark=FIRST_DATA))
            second = peer.leech(crew, replace(wanted, peers=[line.address]))
            start = second.go()
            if line.event(FINISH_TIMEOUT)["event"] != "mark":
                raise BenchError("the resumed download fetched nothing")
            first_request = time.monotonic() - start
            done = second.child.expect("complete", FINISH_TIMEOUT).fields
            source.check(Path(done["path"]))
            moved = int(line.event(FINISH_TIMEOUT)["to_client"])
        fetched, missing = int(done["bytes_fetched"]), size - stored * peer.chunk_size
        if moved < fetched:
            raise BenchError(f"{fetched} bytes reported as fetched, {moved} passed the relay")
        carried.append(moved / max(missing, 1))
        return max(0, fetched - missing) / 1e6, first_request * 1000

    runs, notes = alternate(["furymesh"], options.rounds, once)
    if size < wished:
        notes.append(f"room for {size / 2**30:.1f} GiB only, not {wished / 2**30:.1f}")
    if carried:
        notes.append(f"the seed sent {max(carried):.4f} × the bytes missing at the kill")
    title = f"kill -9 past 50 % of {size / 2**30:.1f} GiB:"
    again = [pair[0] for pair in runs["furymesh"]]
    delay = [pair[1] for pair in runs["furymesh"]]
    fetched = Outcome("9", f"{title} fetched again", "MB", "0", "0", {"furymesh": again})
    fetched.notes = notes
    begun = Outcome(
        "9", f"{title} start → first data", "ms", "a journal read", "≤ 150 ms", {"furymesh": delay}
    )
    return [
        fetched.judge(max(again, default=None), lambda score: score == 0),
        begun.judge(begun.median("furymesh"), lambda score: score <= 150),
    ]


def share_rate(options: Options) -> list[Outcome]:
    """Row 11: sharing a file whose bytes are in memory already."""
    work, source = content(options, "share", options.size)

    def blake3_here() -> float:
        hasher = blake3(max_threads=1)
        buffer = memoryview(bytearray(READ_SIZE))
        start = time.monotonic()
        with source.path.open("rb", buffering=0) as file:
            while count := file.readinto(buffer):
                hasher.update(buffer[:count])
        return time.monotonic() - start

    def share() -> float:
        data = work / "home"
        shutil.rmtree(data, ignore_errors=True)
        with Crew(work / "logs") as crew:
            argv = [sys.executable, GATE, "share", str(source.path), "--json", *home(data)]
            child = crew.spawn(argv, ENVIRONMENT)
            child.expect("ready", READY_TIMEOUT)
            start = child.release()
            return child.expect(None, SHARE_TIMEOUT).at - start

    def torrent() -> float:
        start = time.monotonic()
        make_torrent(source, work / "bench.torrent")
        return time.monotonic() - start

    ways = {"furymesh": share, "BLAKE3, one thread": blake3_here, "libtorrent (SHA-1)": torrent}
    runs, notes = alternate(
        list(ways), options.rounds, lambda name: source.size / ways[name]() / 1e9
    )
    title = f"share {options.size / 2**30:.2f} GiB, warm cache"
    row = Outcome("11", title, "GB/s", "2 cores", "≥ 1.2 × BLAKE3", runs, notes=notes)
    return [row.judge(row.ratio("furymesh", "BLAKE3, one thread"), lambda score: score >= 1.2)]


def memory(options: Options) -> list[Outcome]:
    """Row 12: peak RSS of a node with 32 links, all of them being served."""
    work, source = content(options, "memory", options.size)
    peers: dict[str, Peer] = {"furymesh": Furymesh(), "libtorrent": Libtorrent()}
    wanted = [name for name in peers if name in options.peers]

    def once(name: str) -> float:
        peer = peers[name]
        into = work / "leechers"
        with ExitStack() as stack:
            stack.callback(shutil.rmtree, into, ignore_errors=True)
            crew = stack.enter_context(Crew(work / "logs"))
            peer.prepare(source, 1, work)
            seed = peer.seed(crew, Loopback(), 0)
            wanted = Download(Loopback(), [seed.address], into, rate=LINK_RATE)
            waiting = [
                peer.leech(crew, replace(wanted, into=into / str(number)))
                for number in range(LINKS)
            ]
            for leecher in waiting:
                leecher.go()
            for _ in looks(LOOK_SECONDS, LINK_SECONDS):
                seed.child.sample()
            idle = [number for number in range(LINKS) if _held(into / str(number)) < LINK_RATE]
            if idle:
                raise BenchError(f"void: {len(idle)} of {LINKS} links carried next to nothing")
            return seed.child.peak_rss / 1e6

    runs, notes = alternate(wanted, options.rounds, once)
    row = Outcome("12", f"peak RSS of a node, {LINKS} links", "MB", "–", "≤ 120 MB", runs)
    row.notes = notes
    return [row.judge(max(runs.get("furymesh", []), default=None), lambda score: score <= 120)]


def _held(folder: Path) -> int:
    """Bytes on disk of the largest file in `folder`: the download itself, holes not counted."""
    return max((path.stat().st_blocks * 512 for path in folder.rglob("*")), default=0)


def start_time(options: Options) -> list[Outcome]:
    """Row 14: wall time of the smallest command, beside the interpreter's own."""
    data = home(options.folder("start") / "home")
    ways = {
        "furymesh": [*CLI, "list-resume", *data],
        "python -c pass": [sys.executable, "-c", "pass"],
        "import trio": [sys.executable, "-c", "import trio"],
    }
    runs, notes = alternate(
        list(ways), options.rounds * START_RUNS, lambda name: _command(*ways[name])
    )
    row = Outcome("14", "`furymesh list-resume`, wall", "s", "–", "≤ 0.30 s", runs, notes=notes)
    return [row.judge(row.median("furymesh"), lambda score: score <= 0.30)]


ROWS: dict[str, Callable[[Options], list[Outcome]]] = {
    "9": resume_after_kill,
    "11": share_rate,
    "12": memory,
    "14": start_time,
}
