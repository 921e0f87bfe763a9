"""The receiving disk of folder sync fails: what a file loses is its own, and is sent again."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from furymesh.sync import LOCK_NAME, LOG_NAME
from tests.faults.disk import ROOT, SEED, Calls, Outcome, build_faults, why_no_faults
from tests.faults.sync_cases import CHUNK, DATA, source
from tests.reliability import Record

EVERY = Calls.OPEN | Calls.CREATE | Calls.READ | Calls.WRITE | Calls.SYNC | Calls.RENAME
EVERY |= Calls.RESIZE | Calls.REMOVE
CHANGES = Calls.CREATE | Calls.WRITE | Calls.SYNC | Calls.RENAME
SWEEPS = {
    Outcome.EIO: EVERY,
    Outcome.ENOSPC: CHANGES,
    Outcome.EMFILE: Calls.OPEN | Calls.CREATE,
    Outcome.SHORT: Calls.WRITE,
    Outcome.KILL: Calls.WRITE | Calls.SYNC | Calls.RENAME | Calls.REMOVE,
}
EACH = -1  # the number of every call
SAMPLE = 10
PENDING, IN_PROGRESS = "pending", "in_progress"


class Cases:
    """Runs functions of tests/faults/sync_cases.py."""

    def __init__(self, library: Path) -> None:
        self.calls = 0  # of the last one, from the moment of arming
        self._process = subprocess.Popen(
            [sys.executable, "-W", "error", "-m", "tests.faults.sync_cases"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT), "LD_PRELOAD": str(library)},
            text=True,
        )

    def close(self) -> None:
        self._process.communicate(timeout=10)

    def run(
        self,
        case: str,
        folder: Path,
        kinds: Calls = EVERY,
        number: int = 0,
        outcome: int = errno.EIO,
        place: Path | None = None,
    ) -> Any:
        """Run a case; its `number`-th call of these kinds below `place` fails."""
        folder.mkdir(exist_ok=True)
        order = {
            "case": case,
            "folder": str(folder),
            "place": str(place or folder),
            "kinds": int(kinds),
            "number": number,
            "outcome": int(outcome),
        }
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        code, answer, self.calls = json.loads(self._process.stdout.readline())
        assert code in (0, -signal.SIGKILL), (order, code)
        return answer


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cases]:
    if (reason := why_no_faults()) is not None:
        pytest.skip(reason)
    started = Cases(build_faults(tmp_path_factory.mktemp("library")))
    yield started
    started.close()


def log(folder: Path) -> str:
    return (folder / LOG_NAME).read_text()


# --- one thing fails ----------------------------------------------------------------


def test_a_part_whose_sync_failed_is_sent_again_and_the_others_go_on(
    cases: Cases, tmp_path: Path
) -> None:
    answer = cases.run("flush", tmp_path, Calls.SYNC, 1)
    assert answer["states"] == [[IN_PROGRESS, CHUNK], [PENDING, 0]]
    assert not answer["part"]
    assert answer["rest"] == [len(DATA) - CHUNK, True]
    assert answer["next"][:2] == [0, 0]
    assert "its part was lost or changed" in answer["next"][2]
    assert answer["again"] == [len(DATA), True]
    assert "cannot sync" in log(tmp_path)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes() == DATA


def test_a_writer_is_told_at_once_that_what_it_wrote_is_lost(cases: Cases, tmp_path: Path) -> None:
    returned, written, error = cases.run("update", tmp_path, Calls.SYNC, 1)
    assert (returned, written) == (0, 0)
    assert "its part was lost" in error


def test_a_file_whose_sync_failed_begins_afresh(cases: Cases, tmp_path: Path) -> None:
    answer = cases.run("alone", tmp_path, Calls.SYNC, 1)
    assert answer.pop("error").startswith(f"cannot sync {tmp_path}/a: input/output error")
    assert answer == {
        "complete": False,
        "written": 0,
        "retries": 1,
        "state": [PENDING, 0],
        "names": [],
        "then": [True, None],
    }
    assert (tmp_path / "a").read_bytes() == DATA


def test_a_name_that_cannot_be_made_durable_is_taken_back(cases: Cases, tmp_path: Path) -> None:
    answer = cases.run("alone", tmp_path, Calls.SYNC, 2)
    assert answer.pop("error").startswith(f"cannot sync {tmp_path}/a: input/output error")
    assert answer == {
        "complete": False,
        "written": len(DATA),
        "retries": 0,
        "state": [IN_PROGRESS, len(DATA)],
        "names": ["a.part"],
        "then": [True, None],
    }
    assert (tmp_path / "a").read_bytes() == DATA


def test_a_disk_that_loses_everything_is_given_up(cases: Cases, tmp_path: Path) -> None:
    assert cases.run("give_up", tmp_path, Calls.SYNC, 1) == [4, True, "failed", 0]
    assert sorted(os.listdir(tmp_path)) == sorted([LOCK_NAME, LOG_NAME])


@pytest.mark.parametrize("number", [1, 2], ids=["data", "names"])
def test_a_group_that_cannot_be_synced_at_once_is_synced_one_by_one(
    cases: Cases, tmp_path: Path, number: int
) -> None:
    answer = cases.run("group", tmp_path, Calls.SYNC, number)
    assert all(complete for complete, _, _ in answer), answer
    assert cases.calls > len(answer)


def test_what_is_lost_in_a_group_is_one_file(cases: Cases, tmp_path: Path) -> None:
    answer = cases.run("group", tmp_path, Calls.SYNC, EACH, place=tmp_path / "0/0.part")
    (lost,) = [file for file in answer if not file[0]]
    assert lost[1] == 0
    assert lost[2].startswith(f"cannot sync {tmp_path}/0/0: input/output error")
    assert finished(tmp_path).keys() == {f"{n}/{n}" for n in range(1, len(answer))}


def test_a_name_that_is_refused_is_replaced_by_a_numbered_one(cases: Cases, tmp_path: Path) -> None:
    answer = cases.run("alone", tmp_path, Calls.RENAME, 1)
    assert (answer["complete"], answer["names"]) == (True, ["a_1"])
    assert "cannot rename the part of" in log(tmp_path)


def test_without_any_free_name_the_part_stays_whole(cases: Cases, tmp_path: Path) -> None:
    answer = cases.run("alone", tmp_path, Calls.RENAME, EACH, errno.ENOSPC)
    assert (answer["complete"], answer["written"]) == (False, len(DATA))
    assert answer["error"].startswith(f"cannot finish {tmp_path}/a: the disk is full")
    assert answer["names"] == ["a.part"]


def test_a_part_that_cannot_be_read_begins_afresh(cases: Cases, tmp_path: Path) -> None:
    answer = cases.run("resume", tmp_path, Calls.READ, 1)
    assert answer == {
        "first": [0, len(DATA) - CHUNK],
        "written": [0, len(DATA)],
        "done": [True, True],
    }


@pytest.mark.parametrize("outcome", [errno.EIO, errno.EMFILE, errno.ENOMEM])
def test_a_lock_that_cannot_be_read_this_time_costs_nothing(
    cases: Cases, tmp_path: Path, outcome: int
) -> None:
    answer = cases.run("load", tmp_path, Calls.OPEN, 1, outcome)
    assert answer["error"].startswith(f"cannot read {tmp_path / LOCK_NAME}: ")
    assert answer["parts"] == ["a.part", "b.part"]


def test_a_lock_that_may_not_be_read_is_as_none(cases: Cases, tmp_path: Path) -> None:
    answer = cases.run("load", tmp_path, Calls.OPEN, 1, errno.EACCES)
    assert answer["loaded"] is False
    assert "the transfer lock was not used: permission denied" in log(tmp_path)


@pytest.mark.parametrize("kinds", [Calls.OPEN, Calls.REMOVE])
def test_an_old_part_that_cannot_be_removed_costs_nothing_else(
    cases: Cases, tmp_path: Path, kinds: Calls
) -> None:
    parts, written = cases.run("stale_parts", tmp_path, kinds, 1, errno.EACCES)
    assert len(parts) == 1
    assert written == [len(DATA)] * 2, "it is replaced when the file comes"
    assert "cannot remove the old part of" in log(tmp_path)


# --- anything fails -----------------------------------------------------------------


def finished(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.endswith((".part", ".tmp", LOCK_NAME, LOG_NAME))
    }


def fail_at(cases: Cases, folder: Path, outcome: Outcome, number: int) -> None:
    case, files = (outcome.name, number), source()
    errors = cases.run("session", folder, SWEEPS[outcome], number, outcome)
    assert errors is None or len(errors) <= 1, (case, errors)
    here = finished(folder)
    wrong = {name for name, data in here.items() if files.get(name) != data}
    assert not wrong, (case, wrong)
    if errors or len(here) < len(files) or (folder / LOCK_NAME).exists():
        assert errors != [] or len(here) == len(files), case
        assert cases.run("session", folder) == [], case
        here = finished(folder)
    assert here == files, case
    left = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert left - {LOG_NAME} == here.keys(), case


@pytest.mark.parametrize("outcome", list(SWEEPS), ids=lambda outcome: outcome.name)
@pytest.mark.parametrize("long", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_whatever_call_fails_the_next_session_completes(
    cases: Cases, tmp_path: Path, outcome: Outcome, long: bool, record_property: Record
) -> None:
    assert cases.run("session", tmp_path / "probe", SWEEPS[outcome], 0, outcome) == []
    calls = cases.calls
    assert calls > 5, "the calls are not seen"
    numbers = list(range(1, calls + 1))
    if not long and calls > SAMPLE:
        numbers = Random(SEED + outcome).sample(numbers, SAMPLE)
    for number in numbers:
        fail_at(cases, tmp_path / str(number), outcome, number)
    record_property("cases", len(numbers))
    record_property("result", "what failed was told, and the next session completed")
