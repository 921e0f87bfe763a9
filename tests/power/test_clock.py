"""The clock is wrong, or is put right while something runs: nothing hangs or is lost.

libfaketime gives a process another time of day, which the test changes while the
process runs. The monotonic clock stays as it is, as it does when a person or a
time server sets the clock of a machine.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.mesh import Event, Mesh, Process, finished, same, write_blob
from tests.e2e.parts import journal, resume_data
from tests.power.conftest import MEMORY
from tests.reliability import Record

LIBRARY = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
pytestmark = pytest.mark.skipif(
    LIBRARY is None, reason="no libfaketime (Debian package faketime) to change the clock with"
)

SEED = 16
CHUNK = 16 * 1024
SIZE = 48 * CHUNK - 100
RATE = "600K"  # a second or so, in which the clock can be set
PATIENCE = 20.0  # seconds that no download here takes, whatever its clock says
JUMP_SECONDS = 0.05  # from one jump of the clock to the next
RIGHT = "+0d"
DAY = 86400
SECONDS = {RIGHT: 0, "-1d": -DAY, "+1d": DAY, "-10y": -3650 * DAY, "+10y": 3650 * DAY}
WRONG = tuple(SECONDS)[1:]


@dataclass(frozen=True, slots=True)
class Clocks:
    """Processes with a clock of their own, and a seed; each clock can be set at any time."""

    user: Mesh
    seed: Mesh
    link: str
    file_id: str
    source: Path

    @staticmethod
    def set(mesh: Mesh, offset: str) -> None:
        """Set the clock of all processes of a mesh, those that run included."""
        place = mesh.root / "clock"
        fresh = place.with_suffix(".new")
        fresh.write_text(offset)
        fresh.rename(place)

    def start(self, address: str) -> Process:
        """A download that takes a while."""
        return self.user.start_get("home", self.link, "--max-download", RATE, peers=[address])

    def check(self, complete: Event) -> None:
        path = Path(complete["path"])
        assert same(path, self.source)
        assert complete["bytes_fetched"] + complete["bytes_reused"] == SIZE
        assert complete["bytes_wasted"] == 0, "a request was given up for its age"
        assert 0 <= complete["seconds"] < PATIENCE, "a duration was measured with the clock"
        path.unlink()


@pytest.fixture
def clocks(place: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Clocks]:
    made = []
    for name in ("user", "seed"):
        root = place / name
        root.mkdir()
        monkeypatch.setenv("LD_PRELOAD", str(LIBRARY))
        monkeypatch.setenv("FAKETIME_TIMESTAMP_FILE", str(root / "clock"))
        monkeypatch.setenv("FAKETIME_NO_CACHE", "1")
        monkeypatch.setenv("FAKETIME_DONT_FAKE_MONOTONIC", "1")
        monkeypatch.setenv("NO_FAKE_STAT", "1")  # times of files are the kernel's
        made.append(Mesh(root))
        Clocks.set(made[-1], RIGHT)
    user, seed = made
    source = write_blob(place / "film.bin", SIZE, SEED)
    shared = seed.share("home", source, chunk_size=CHUNK)
    yield Clocks(user, seed, shared.link.text, shared.file_id.hex(), source)
    user.close()
    seed.close()
    _sweep()


def _sweep() -> None:
    """Remove what libfaketime leaves in shared memory under the number of a killed process.

    It would be in the way of a later process that happens to get that number.
    """
    for path in MEMORY.glob("*faketime_*"):
        process = path.name.rpartition("_")[2]
        if process.isdecimal() and not Path("/proc", process).exists():
            path.unlink(missing_ok=True)


def jump_while_running(
    clocks: Clocks, mesh: Mesh, process: Process, offsets: Sequence[str]
) -> None:
    """The clock of a mesh is set again and again while a download runs."""
    jumps = itertools.cycle([*offsets, RIGHT])
    deadline = time.monotonic() + PATIENCE
    process.expect("started")
    while not process.ended_within(JUMP_SECONDS):
        assert time.monotonic() < deadline, f"it hangs: {process.out[-500:]} {process.err}"
        clocks.set(mesh, next(jumps))
    clocks.set(mesh, RIGHT)
    clocks.check(finished(process))


def interrupt(clocks: Clocks, address: str) -> int:
    process = clocks.start(address)
    process.expect("progress", lambda event: event["bytes_done"] > SIZE // 4)
    process.kill()
    return journal(clocks.user.home("home")).bit_count()


def resume_at(clocks: Clocks, address: str, before: str, after: str) -> None:
    """Interrupted at one time and taken up at another."""
    clocks.set(clocks.user, before)
    kept = interrupt(clocks, address)
    ahead = resume_data(clocks.user.home("home")).meta.created_at - time.time()
    assert abs(ahead - SECONDS[before]) < 60, "the process went by another clock"
    clocks.set(clocks.user, after)
    (item,) = clocks.user.run("home", "list-resume", "--json").events[0]
    assert item["chunks_done"] == kept
    complete = clocks.user.resume("home", clocks.file_id, peers=[address])
    assert complete["bytes_reused"] >= (kept - 1) * CHUNK, "progress was lost"
    clocks.check(complete)
    clocks.set(clocks.user, RIGHT)


def serve_at(clocks: Clocks, address: str, offset: str) -> None:
    """The clock of the sharer is set while it serves; what it shares is known as before."""
    jump_while_running(clocks, clocks.seed, clocks.start(address), [offset])
    clocks.set(clocks.seed, offset)
    listed = clocks.seed.run("home", "list", "--json")
    assert listed.code == 0
    again = clocks.seed.run("home", "share", clocks.source, "--chunk-size", CHUNK, "--json")
    assert again.last["file_id"] == clocks.file_id
    clocks.check(clocks.user.get("home", clocks.link, peers=[address]))
    clocks.set(clocks.seed, RIGHT)


def test_clock_that_jumps_far_ahead_and_back(clocks: Clocks) -> None:
    address = clocks.seed.node("home").address
    jump_while_running(clocks, clocks.user, clocks.start(address), ["+10y", "-10y"])
    resume_at(clocks, address, "+10y", "-10y")


@pytest.mark.promise(16)
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_every_wrong_clock(clocks: Clocks, record_property: Record) -> None:
    address = clocks.seed.node("home").address
    cases = 0
    for offset in WRONG:
        jump_while_running(clocks, clocks.user, clocks.start(address), [offset])
        resume_at(clocks, address, RIGHT, offset)
        resume_at(clocks, address, offset, RIGHT)
        serve_at(clocks, address, offset)
        cases += 4
    record_property("cases", cases)
    record_property("result", "no hang, no ban, no expiry, no chunk fetched twice")
