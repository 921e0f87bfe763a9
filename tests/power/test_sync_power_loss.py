"""The power goes off at any moment of a folder sync, and the disk forgets what it may.

A session that receives new files, and one that replaces all of them, are recorded.
In every state that they may leave behind, a name has a whole file or what it had
before, and the lock claims nothing that is not there; from some of the states another
session goes on.
"""

from __future__ import annotations

import hashlib
import shutil
import sys
from pathlib import Path
from random import Random

import pytest

from furymesh.sync import LOCK_NAME, LOG_NAME, Status
from furymesh.sync.lock_format import FileState, decode
from furymesh.sync.names import PART_SUFFIX, part_name
from tests.faults.disk import ROOT
from tests.faults.sync_cases import receive, source
from tests.power import trace
from tests.power.disk import Contents, Recording, on_disk
from tests.reliability import Record

pytestmark = pytest.mark.skipif(not trace.AVAILABLE, reason="no strace to record with")

SEED = 9
BOOT_AFTER = b"\x01" * 16  # another than that of this machine, in which was recorded
OLD, NEW = source(0), source(1)
PROGRAM = """
import sys
from pathlib import Path
from tests.faults.sync_cases import receive, source
for seed in (0, 1):
    assert receive(Path(sys.argv[1]), source(seed)) == []
"""
SAMPLE = 25  # states from which a session goes on
FEWEST_STATES = 1000

Found = dict[str, bytes | None]


def sha256(data: bytes | None) -> str:
    return hashlib.sha256(data).hexdigest() if data is not None else ""


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    root = tmp_path_factory.mktemp("recorded")
    disk = root / "disk"
    disk.mkdir()
    trace.run([sys.executable, "-c", PROGRAM, str(disk)], root / "trace", cwd=ROOT)
    made = Recording(disk, trace.read(root / "trace", [disk]))
    told = {path: content for path, _, content in made.everything().walk()}
    assert told == on_disk(disk), "the model is not what the disk holds"
    assert {path: data for path, data in told.items() if data is not None} == NEW
    return made


def check_claim(found: Found, path: str, state: FileState) -> None:
    above, slash, name = path.rpartition("/")
    final = found.get(above + slash + (state.saved_as or name))
    if sha256(final) == state.original_hash:
        return
    assert state.status is not Status.COMPLETED, "a file counts as completed that is not there"
    if state.transferred_bytes:
        part = (found.get(above + slash + part_name(name)) or b"")[: state.transferred_bytes]
        assert sha256(part) == state.partial_hash, "bytes are vouched for that are not there"


def check(found: Found) -> None:
    for path, data in found.items():
        if data is not None and not path.endswith((PART_SUFFIX, ".tmp", LOCK_NAME)):
            assert data in (OLD[path], NEW[path]), f"{path} has its name and is not whole"
    if raw := found.get(LOCK_NAME):
        for path, state in decode(raw).files.items():
            check_claim(found, path, state)


def put(folder: Path, found: Found) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for path, data in found.items():
        if data is None:
            (folder / path).mkdir()
        else:
            (folder / path).write_bytes(data)


@pytest.mark.promise(4)
@pytest.mark.parametrize("long", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_after_a_power_cut_names_are_of_whole_files_and_the_lock_is_true(
    recording: Recording, place: Path, long: bool, record_property: Record
) -> None:
    states: dict[tuple[tuple[str, bytes | None], ...], str] = {}
    for name, state in recording.states():
        states.setdefault(listing(state), name)
    assert len(states) >= FEWEST_STATES
    for listed, name in states.items():
        try:
            check(dict(listed))
        except AssertionError as error:
            error.add_note(f"state: {name}")
            raise
    folder = place / "disk"
    chosen = list(states) if long else Random(SEED).sample(list(states), SAMPLE)
    for listed in chosen:
        put(folder, dict(listed))
        where = f"state: {states[listed]}; seed {SEED}"
        assert receive(folder, NEW, boot_id=BOOT_AFTER) == [], where
        left = {path: data for path, data in on_disk(folder).items() if data is not None}
        left.pop(LOG_NAME, None)
        assert left == NEW, where
    record_property("cases", len(states))
    record_property("result", "folder sync: whole files have names, the lock claims what is there")


def listing(state: Contents) -> tuple[tuple[str, bytes | None], ...]:
    return tuple((path, data) for path, _, data in state.walk())
