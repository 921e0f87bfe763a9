"""Transfers that break: what is left, what goes on, and that no target is ever partial."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest
import trio

from furymesh.core.errors import (
    DiskFullError,
    EnvironmentFault,
    LinkClosedError,
    SourceChangedError,
)
from furymesh.sftp import AsyncConnection
from furymesh.sftp.pipeline import WINDOW_BYTES
from tests.faults.test_full_disk import fill
from tests.sftp.conftest import SEED, Face, MakeFile
from tests.sftp.servers import Server, serving

MIB = 1024 * 1024
SIZE = 12 * MIB
TEMP = ".hussh.tmp"
DIRECTIONS = ["write", "read"]


@pytest.fixture(scope="module")
def mortal(kind: str) -> Iterator[Server]:
    """A server to be killed and started again."""
    with serving(kind) as made:
        yield made


def names_of(direction: str, source: Path, target: Path) -> tuple[object, object]:
    """The two paths of a call; all of them lie on this machine."""
    return (source, str(target)) if direction == "write" else (str(source), target)


@pytest.mark.parametrize(
    ("points", "atomic"),
    [
        (3, True),
        pytest.param(10, True, marks=pytest.mark.slow),
        pytest.param(10, False, marks=pytest.mark.slow),
    ],
    ids=["3 atomic", "10 atomic", "10 plain"],
)
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_a_killed_server_costs_one_window_at_most(
    mortal: Server,
    face: Face,
    make_file: MakeFile,
    tmp_path: Path,
    direction: str,
    atomic: bool,
    points: int,
) -> None:
    source, target = make_file("source", SIZE), tmp_path / "target"
    call = getattr(face, direction)
    last = 0
    for point in sorted(Random(SEED).sample(range(1, SIZE - WINDOW_BYTES), points)):
        seen: list[int] = []

        def note(done: int, total: int, seen: list[int] = seen, point: int = point) -> None:
            seen.append(done)
            if done >= point:
                mortal.kill()

        names = names_of(direction, source, target)
        with pytest.raises(LinkClosedError, match="lost; run this again"):
            call(mortal, *names, atomic=atomic, resume=True, progress=note)
        mortal.start()
        # All that was acknowledged is kept; not more than a window was under way.
        assert seen[0] >= last, f"seed {SEED}, killed at {point}"
        last = seen[-1]
        assert target.exists() is not atomic
    done = call(mortal, *names_of(direction, source, target), atomic=atomic, resume=True)
    assert done.reused >= last
    assert done.moved + done.reused == SIZE
    assert target.read_bytes() == source.read_bytes()
    assert sorted(os.listdir(tmp_path)) == ["source", "target"]


class Reader(threading.Thread):
    """Hashes a file in a loop; `seen` are the digests, None for no file."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        self._over = threading.Event()
        self.seen: set[str | None] = set()
        self.looks = 0

    def run(self) -> None:
        while not self._over.is_set():
            self.look()

    def look(self) -> None:
        try:
            self.seen.add(digest(self._path.read_bytes()))
        except FileNotFoundError:
            self.seen.add(None)
        self.looks += 1

    def stop(self) -> None:
        self._over.set()
        self.join()
        self.look()


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_a_reader_never_sees_a_partial_target(
    renaming: Server, face: Face, make_file: MakeFile, direction: str
) -> None:
    source, target = make_file("source", 2 * MIB), make_file("target", MIB)
    whole = {digest(path.read_bytes()) for path in (source, target)}
    reader = Reader(target)
    reader.start()
    try:
        for _ in range(5):
            getattr(face, direction)(renaming, *names_of(direction, source, target), atomic=True)
    finally:
        reader.stop()
    assert digest(source.read_bytes()) in reader.seen
    # Without a rename that replaces there is a moment without the name, and no other.
    allowed = whole | {None} if renaming.lacks_posix_rename and direction == "write" else whole
    assert reader.seen <= allowed
    assert sorted(path.name for path in target.parent.iterdir()) == ["source", "target"]


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_a_reader_sees_no_partial_target_when_the_server_dies(
    mortal: Server, face: Face, make_file: MakeFile, direction: str
) -> None:
    source, target = make_file("source", 8 * MIB), make_file("target", MIB)
    whole = {digest(path.read_bytes()) for path in (source, target)}
    reader = Reader(target)
    reader.start()
    try:
        with pytest.raises(LinkClosedError):
            getattr(face, direction)(
                mortal,
                *names_of(direction, source, target),
                atomic=True,
                progress=lambda done, _: mortal.kill() if done > 4 * MIB else None,
            )
        mortal.start()
        assert digest(target.read_bytes()) != digest(source.read_bytes())
        getattr(face, direction)(mortal, *names_of(direction, source, target), atomic=True)
    finally:
        reader.stop()
    assert reader.seen == whole


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_a_source_that_changes_meanwhile_is_not_passed_off_as_whole(
    server: Server, face: Face, make_file: MakeFile, tmp_path: Path, direction: str, resume: bool
) -> None:
    source, target = make_file("source", SIZE), make_file("target", 100)
    before = target.read_bytes()

    def change(done: int, total: int) -> None:
        with source.open("r+b") as file:
            file.write(os.urandom(100))

    call = getattr(face, direction)
    names = names_of(direction, source, target)
    with pytest.raises(SourceChangedError, match="try again"):
        call(server, *names, atomic=True, resume=resume, progress=change)
    assert target.read_bytes() == before
    assert (tmp_path / f"target{TEMP}").exists() is resume
    call(server, *names, atomic=True, resume=resume)
    assert target.read_bytes() == source.read_bytes()


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_a_source_that_shrinks_meanwhile_is_reported(
    server: Server, face: Face, make_file: MakeFile, tmp_path: Path, direction: str
) -> None:
    source, target = make_file("source", SIZE), tmp_path / "target"
    with pytest.raises(SourceChangedError, match="try again"):
        getattr(face, direction)(
            server,
            *names_of(direction, source, target),
            atomic=True,
            progress=lambda done, _: os.truncate(source, MIB) if done > MIB else None,
        )
    assert os.listdir(tmp_path) == ["source"]


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_a_full_disk_is_named_and_what_is_kept_goes_on(
    server: Server, face: Face, make_file: MakeFile, small_disk: Path, direction: str
) -> None:
    source, target = make_file("source", 6 * MIB), small_disk / "target"
    temporary = small_disk / f"target{TEMP}"
    ballast = fill(small_disk, 2 * MIB)
    call = getattr(face, direction)
    names = names_of(direction, source, target)
    with pytest.raises(DiskFullError, match=r"disk (there )?is full; free some space"):
        call(server, *names, atomic=True)
    assert not temporary.exists()
    with pytest.raises(DiskFullError):
        call(server, *names, atomic=True, resume=True)
    assert not target.exists()
    assert temporary.exists()
    ballast.unlink()
    assert call(server, *names, atomic=True, resume=True).reused > 0
    assert target.read_bytes() == source.read_bytes()


def test_a_read_only_directory_is_named(kind: str, face: Face, make_file: MakeFile) -> None:
    source = make_file("source", MIB)
    with serving(kind, unprivileged=True) as server:
        directory = server.home / "read only"
        directory.mkdir(mode=0o777)
        target = directory / "target"
        target.write_bytes(b"old")
        target.chmod(0o666)
        directory.chmod(0o555)
        with pytest.raises(EnvironmentFault, match="permission denied; check its permissions"):
            face.write(server, source, str(target), atomic=True)
        assert target.read_bytes() == b"old"
        directory.chmod(0o755)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_a_read_only_disk_is_named(
    server: Server, face: Face, make_file: MakeFile, small_disk: Path, direction: str
) -> None:
    source, target = make_file("source", MIB), small_disk / "target"
    target.write_bytes(b"old")
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    for resume in (False, True):
        reason = "can only be read; choose another|read-only file system; choose a place"
        with pytest.raises(EnvironmentFault, match=f"cannot write .*target.*({reason})"):
            getattr(face, direction)(
                server, *names_of(direction, source, target), atomic=True, resume=resume
            )
    assert target.read_bytes() == b"old"


@pytest.mark.parametrize("old", [None, 100])
def test_atomic_works_without_a_rename_that_replaces(
    renaming: Server, face: Face, make_file: MakeFile, tmp_path: Path, old: int | None
) -> None:
    source, target = make_file("source", MIB), tmp_path / "target"
    if old:
        make_file("target", old)
    face.write(renaming, source, str(target), atomic=True)
    assert target.read_bytes() == source.read_bytes()
    assert sorted(os.listdir(tmp_path)) == ["source", "target"]


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("what", ["link", "directory"])
def test_what_is_in_the_way_stays_and_is_named(
    server: Server, face: Face, make_file: MakeFile, tmp_path: Path, what: str, direction: str
) -> None:
    source, precious = make_file("source", MIB), make_file("precious", 10)
    before = precious.read_bytes()
    target = tmp_path / "target"
    target.symlink_to(precious) if what == "link" else target.mkdir()
    for resume in (False, True):
        with pytest.raises(EnvironmentFault, match=r"in the way|links"):
            getattr(face, direction)(server, *names_of(direction, source, target), resume=resume)
    temporary = tmp_path / f"other{TEMP}"
    temporary.symlink_to(precious)
    names = names_of(direction, source, tmp_path / "other")
    with pytest.raises(EnvironmentFault, match=r"in the way|links"):
        getattr(face, direction)(server, *names, atomic=True, resume=True)
    assert precious.read_bytes() == before


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_cancelling_removes_the_temporary_file_or_keeps_it_for_resume(
    server: Server, make_file: MakeFile, tmp_path: Path, direction: str, resume: bool
) -> None:
    source, target = make_file("source", SIZE), tmp_path / "target"
    scope = trio.CancelScope()

    async def call() -> None:
        async with AsyncConnection(**server.address) as connection:
            transfer: Callable[..., object] = getattr(connection, f"sftp_{direction}")
            with scope:
                await transfer(  # type: ignore[misc]
                    *names_of(direction, source, target),
                    atomic=True,
                    resume=resume,
                    progress=lambda done, _: scope.cancel() if done > MIB else None,
                )
            assert scope.cancelled_caught
            assert (tmp_path / f"target{TEMP}").exists() is resume
            await connection.sftp_write(source, str(tmp_path / "again"))  # it still works

    trio.run(call)
    assert not target.exists()


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_an_interrupt_ends_a_blocking_transfer(
    server: Server, make_file: MakeFile, tmp_path: Path, direction: str, face: Face
) -> None:
    if not face.blocking:
        return  # trio's own business
    source, target = make_file("source", SIZE), tmp_path / "target"
    main = threading.main_thread().ident
    assert main
    sent: list[int] = []

    def interrupt(done: int, total: int) -> None:
        if not sent and done > MIB:
            sent.append(done)
            signal.pthread_kill(main, signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        getattr(face, direction)(
            server, *names_of(direction, source, target), atomic=True, progress=interrupt
        )
    assert os.listdir(tmp_path) == ["source"]


@pytest.mark.parametrize("error", [ZeroDivisionError, ValueError, BrokenPipeError])
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_an_error_of_the_callback_is_the_callers(
    server: Server,
    face: Face,
    make_file: MakeFile,
    tmp_path: Path,
    direction: str,
    error: type[Exception],
) -> None:
    source, target = make_file("source", MIB), tmp_path / "target"

    def fail(done: int, total: int) -> None:
        if done:
            raise error

    with pytest.raises(error):
        getattr(face, direction)(
            server, *names_of(direction, source, target), atomic=True, progress=fail
        )
    assert os.listdir(tmp_path) == ["source"]


def test_a_server_that_changes_no_modes_and_times_is_put_up_with(
    face: Face, make_file: MakeFile, tmp_path: Path
) -> None:
    source, target = make_file("source", MIB), tmp_path / "target"
    with serving("asyncssh", trick="undescribed") as server:
        done = face.write(server, source, str(target), atomic=True)
        assert done.notes == ("127.0.0.1 does not keep modes and times of files",)
        assert target.read_bytes() == source.read_bytes()
        # Nor can it cut a file off: what differs is sent anew from the start.
        target.write_bytes(source.read_bytes()[:1000] + b"another file")
        face.write(server, source, str(target), resume=True)
        assert target.read_bytes() == source.read_bytes()
