"""Locks between processes, with real processes."""

from __future__ import annotations

import json
import os
import re
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from furymesh.core.errors import AlreadyRunningError, EnvironmentFault
from furymesh.core.ids import FileId
from furymesh.storage.lock import DownloadLock, FileLock, lock_open_file

FILE_ID = FileId(b"\xab" * 32)

HOLDER = """
import sys
from pathlib import Path
from furymesh.core.errors import AlreadyRunningError
from furymesh.core.ids import FileId
from furymesh.storage.lock import DownloadLock
lock = DownloadLock(Path(sys.argv[1]), FileId(b"\\xab" * 32))
sys.stdin.readline()
try:
    lock.acquire("furymesh get")
except AlreadyRunningError as error:
    print(error, flush=True)
    sys.exit(5)
print("held", flush=True)
sys.stdin.readline()
lock.release()
"""


def start(directory: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(directory)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def tell(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()


def answer(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def finish(process: subprocess.Popen[str]) -> int:
    process.communicate()
    return process.returncode


def test_the_lock_is_private_and_gone_after_release(tmp_path: Path) -> None:
    lock = DownloadLock(tmp_path / "resume", FILE_ID)
    lock.acquire("furymesh get")
    assert lock.held
    assert stat.S_IMODE(lock.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(lock.path.parent.stat().st_mode) == 0o700
    assert json.loads(lock.path.read_text())["pid"] == os.getpid()
    lock.release()
    lock.release()
    assert not lock.path.exists()
    with lock:
        lock.acquire("again")
    assert not lock.held


def test_the_refusal_names_the_holder(tmp_path: Path) -> None:
    with DownloadLock(tmp_path, FILE_ID) as mine:
        mine.acquire("furymesh \x1b[31mget")
        expected = (
            rf"already being downloaded by process {os.getpid()}"
            r" \(furymesh \\x1b\[31mget, since \d\d:\d\d:\d\d\); wait .*"
        )
        with pytest.raises(AlreadyRunningError) as caught:
            DownloadLock(tmp_path, FILE_ID).acquire("other")
        assert re.fullmatch(expected, str(caught.value))
        with pytest.raises(AlreadyRunningError, match="this process"):
            mine.acquire("twice")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": "x"}', "[" * 4000, "\xff"])
def test_a_holder_that_says_nothing_sensible_still_holds(
    tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("furymesh.storage.lock._LOOK_INTERVAL", 0)
    with DownloadLock(tmp_path, FILE_ID) as mine:
        mine.acquire("furymesh get")
        mine.path.write_text(text, "latin-1")
        with pytest.raises(AlreadyRunningError, match="by another process"):
            DownloadLock(tmp_path, FILE_ID).acquire("other")


def test_a_holder_is_not_called_by_the_name_of_the_one_killed_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("furymesh.storage.lock._LOOK_INTERVAL", 0)
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    with DownloadLock(tmp_path, FILE_ID) as mine:
        mine.acquire("furymesh get")
        for pid, named in ((dead.pid, "by another process"), (1, "by process 1 ")):
            mine.path.write_text(json.dumps({"pid": pid, "command": "x", "since": 0}))
            with pytest.raises(AlreadyRunningError, match=named):
                DownloadLock(tmp_path, FILE_ID).acquire("other")


def test_text_without_a_kernel_lock_holds_nobody_up(tmp_path: Path) -> None:
    record = {"pid": os.getpid(), "command": "furymesh get", "since": 0}
    lock = DownloadLock(tmp_path, FILE_ID)
    lock.path.write_text(json.dumps(record) + "x" * 1000)
    lock.acquire("furymesh resume")
    assert json.loads(lock.path.read_text())["command"] == "furymesh resume"
    lock.release()


def test_a_link_or_pipe_in_place_of_the_lock_is_refused(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    link = FileLock(tmp_path / "link")
    link.path.symlink_to(victim)
    with pytest.raises(EnvironmentFault, match="cannot lock"):
        link.acquire("x")
    pipe = FileLock(tmp_path / "pipe")
    os.mkfifo(pipe.path)
    with pytest.raises(EnvironmentFault, match="not a regular file"):
        pipe.acquire("x")
    assert victim.read_text() == "precious"


def test_a_lock_file_replaced_by_hand_is_not_removed(tmp_path: Path) -> None:
    lock = FileLock(tmp_path / "lock")
    lock.acquire("x")
    lock.path.unlink()
    lock.path.write_text("of somebody else")
    lock.release()
    assert lock.path.read_text() == "of somebody else"


def test_whoever_waited_on_a_removed_file_starts_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = FileLock(tmp_path / "lock"), FileLock(tmp_path / "lock")
    first.acquire("first")
    really_open = os.open

    def open_then_lose_the_race(*args: object, **kwargs: object) -> int:
        fd = really_open(*args, **kwargs)  # type: ignore[arg-type]
        first.release()
        return fd

    monkeypatch.setattr("furymesh.storage.lock.os.open", open_then_lose_the_race)
    second.acquire("second")
    monkeypatch.undo()
    with pytest.raises(AlreadyRunningError):
        first.acquire("first")
    second.release()


def test_of_processes_that_race_exactly_one_wins_and_the_dead_block_nobody(
    tmp_path: Path,
) -> None:
    racers = [start(tmp_path) for _ in range(4)]
    for racer in racers:
        tell(racer)
    answers = [answer(racer) for racer in racers]
    assert answers.count("held") == 1
    winner = racers[answers.index("held")]
    for racer, said in zip(racers, answers, strict=True):
        if racer is not winner:
            assert f"by process {winner.pid} (furymesh get" in said
            assert finish(racer) == 5

    winner.send_signal(signal.SIGKILL)
    finish(winner)
    with DownloadLock(tmp_path, FILE_ID) as next_one:
        next_one.acquire("furymesh get")


def test_many_races_within_one_machine_admit_one_holder_at_a_time(tmp_path: Path) -> None:
    """Children acquire and release in a loop; a shared counter would show an overlap."""
    script = """
import sys
from pathlib import Path
from furymesh.core.errors import AlreadyRunningError
from furymesh.storage.lock import FileLock
inside = Path(sys.argv[1]) / "inside"
rounds = 0
while rounds < 50:
    lock = FileLock(Path(sys.argv[1]) / "lock")
    try:
        lock.acquire("racer")
    except AlreadyRunningError:
        continue
    inside.touch(exist_ok=False)
    inside.unlink()
    lock.release()
    rounds += 1
"""
    racers = [
        subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stderr=subprocess.PIPE)
        for _ in range(3)
    ]
    for racer in racers:
        _, errors = racer.communicate()
        assert racer.returncode == 0, errors.decode()


def test_a_directory_can_be_locked_while_it_is_open(tmp_path: Path) -> None:
    one, other = (os.open(tmp_path, os.O_RDONLY) for _ in range(2))
    try:
        lock_open_file(one, tmp_path, what="being downloaded")
        with pytest.raises(AlreadyRunningError, match="already being downloaded"):
            lock_open_file(other, tmp_path, what="being downloaded")
    finally:
        os.close(one)
        os.close(other)


def test_a_file_that_was_renamed_after_it_was_opened_is_not_locked(tmp_path: Path) -> None:
    path = tmp_path / "part"
    path.touch()
    fd = os.open(path, os.O_RDWR)
    path.rename(tmp_path / "final")
    try:
        with pytest.raises(AlreadyRunningError):
            lock_open_file(fd, path, what="being downloaded")
    finally:
        os.close(fd)


def test_lock_whose_directory_is_gone_is_given_up_without_a_word(tmp_path: Path) -> None:
    place = tmp_path / "data"
    lock = FileLock(place / "a.lock")
    lock.acquire()
    before = len(os.listdir("/proc/self/fd"))
    place.rename(tmp_path / "elsewhere")
    place.touch()
    lock.release()
    assert not lock.held
    assert len(os.listdir("/proc/self/fd")) == before - 1
