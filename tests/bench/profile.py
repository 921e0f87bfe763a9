"""`python -m tests.bench.profile`: where each CPU second of a GB goes, at both ends.

Samples one download on loopback (rows 1 and 2) with Linux perf and sorts the samples by
what they were doing. Needs perf and the right to use it; the interpreter's start
is not counted.
"""

from __future__ import annotations

import argparse
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import tabulate

from tests.bench.__main__ import size
from tests.bench.data import make_source, touch_memory
from tests.bench.furymesh_peer import Furymesh
from tests.bench.measure import FINISH_TIMEOUT
from tests.bench.peer import Download, Loopback
from tests.bench.process import BenchError, Crew

HERTZ = 997  # samples a second of CPU time; a prime keeps out of step with timers
# What a sample in the kernel was asked for, by the system call at the bottom of it.
CALLS = (
    (re.compile("recvfrom|recvmsg"), "receive"),
    (re.compile("sendto|sendmsg"), "send"),
    (re.compile("pwrite"), "write the part, and the journal"),
    (re.compile("preadv"), "read the file"),
    (re.compile("futex|epoll|sched_yield"), "wait and wake"),
)


@dataclass(frozen=True, slots=True)
class Sample:
    """One tick of the CPU clock: the thread, the program's own function, all frames."""

    thread: int
    leaf: str
    frames: str

    @property
    def work(self) -> str:
        """What it was doing, in words."""
        if "blake3" in self.leaf:
            return "BLAKE3"
        if "gcm" in self.leaf or "aes" in self.leaf:
            return "AES-256-GCM"
        if "[kernel" not in self.leaf and "[unknown]" not in self.leaf:
            return "Python"
        for call, words in CALLS:
            if call.search(self.frames):
                return words
        return "other kernel"


def read_samples(lines: Iterable[str]) -> Iterator[Sample]:
    """The samples that `perf script -F tid,ip,sym,dso` printed."""
    head, frames = "", list[str]()
    for line in (*lines, ""):
        if line.strip():
            if head:
                frames.append(line.strip())
            else:
                head = line.strip()
        elif head:
            yield Sample(int(head.split()[0]), frames[0] if frames else "", " ".join(frames))
            head, frames = "", []


def summary(samples: Iterable[Sample]) -> Counter[str]:
    """Samples by work; the reading and hashing of the last check are told from the first."""
    by_thread: defaultdict[int, Counter[str]] = defaultdict(Counter)
    for sample in samples:
        by_thread[sample.thread][sample.work] += 1
    total: Counter[str] = Counter()
    for works in by_thread.values():
        stores = works["write the part, and the journal"] > works["read the file"]
        checks = not stores and works["BLAKE3"] > 0
        for work, count in works.items():
            again = checks and work in ("BLAKE3", "read the file")
            total[f"{work}, last check" if again else work] += count
    return total


@contextmanager
def recorder(pid: int, into: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A perf that samples the process already. Raises BenchError if it cannot."""
    ours, its = socket.socketpair()
    argv = ["perf", "record", "-q", "-e", "cpu-clock", "-F", str(HERTZ), "-g"]
    argv += ["-o", str(into), "-p", str(pid), "--control", f"fd:{its.fileno()},{its.fileno()}"]
    with ours:  # until the end: without it perf gives up
        with its:
            perf = subprocess.Popen(argv, pass_fds=[its.fileno()], stderr=subprocess.DEVNULL)
        try:
            answer = b""
            with suppress(OSError):
                ours.sendall(b"ping\n")  # answered once it has begun
                answer = ours.recv(len(b"ack\n"))
            if not answer:
                raise BenchError(f"perf ended with {perf.wait()} before it saw anything")
            yield perf
        finally:
            perf.kill()
            perf.wait()


def sampled(perf: subprocess.Popen[bytes], data: Path) -> Counter[str]:
    perf.terminate()
    perf.wait(30)
    argv = ["perf", "script", "-i", str(data), "-F", "tid,ip,sym,dso"]
    script = subprocess.run(argv, capture_output=True, text=True, check=False)
    if not script.stdout:
        raise BenchError(f"perf saw nothing: {script.stderr.strip()[:200]}")
    return summary(read_samples(script.stdout.splitlines()))


def one_download(bytes_: int, seeds: int, work: Path) -> tuple[Counter[str], Counter[str], float]:
    """Samples of the seeds and of the leecher, and the seconds it took."""
    source = make_source(work / "bench.bin", bytes_)
    peer = Furymesh()
    peer.prepare(source, seeds, work)
    touch_memory(work, bytes_)
    with ExitStack() as stack:
        crew = stack.enter_context(Crew(work / "logs"))
        serving = [peer.seed(crew, Loopback(), number) for number in range(seeds)]
        addresses = [seed.address for seed in serving]
        leecher = peer.leech(crew, Download(Loopback(), addresses, work / "leecher"))
        data = [work / f"{number}.perf" for number in range(seeds + 1)]
        pids = [*(seed.child.pid for seed in serving), leecher.child.pid]
        recorders = [stack.enter_context(recorder(*each)) for each in zip(pids, data, strict=True)]
        start = leecher.go()
        finish = leecher.finish(FINISH_TIMEOUT)
        ends = [sampled(*pair) for pair in zip(recorders, data, strict=True)]
        source.check(finish.path)
    return sum(ends[:-1], Counter()), ends[-1], finish.at - start


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.profile", description=__doc__)
    parser.add_argument("--size", type=size, default=2 * 2**30)
    parser.add_argument("--seeds", type=int, default=1)
    chosen = parser.parse_args()
    if shutil.which("perf") is None:
        print("perf is not installed (Debian: linux-perf)", file=sys.stderr)
        return 1
    work = Path(tempfile.mkdtemp(prefix="furymesh-profile-", dir="/dev/shm"))
    try:
        seed, leecher, seconds = one_download(chosen.size, chosen.seeds, work)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    unit = HERTZ * chosen.size / 1e9
    works = sorted(seed | leecher, key=lambda work: -(seed[work] + leecher[work]))
    rows = [(work, seed[work] / unit, leecher[work] / unit) for work in works]
    rows.append(("together", seed.total() / unit, leecher.total() / unit))
    print(tabulate.tabulate(rows, ("CPU s/GB", "seeds", "leecher"), floatfmt=".3f"))
    print(f"{chosen.size / seconds / 1e9:.2f} GB/s while being sampled")
    return 0


if __name__ == "__main__":
    sys.exit(main())
