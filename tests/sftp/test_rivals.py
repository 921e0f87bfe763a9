"""Two uploads to one target, and what a `replace` leaves that was broken off."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from furymesh.core.errors import AlreadyRunningError, SourceChangedError
from furymesh.sftp import Connection
from tests.sftp.conftest import Face, MakeFile
from tests.sftp.servers import Server

SIZE = 3_000_001
TEMP = ".hussh.tmp"


def test_a_second_upload_to_the_same_target_is_refused_until_the_first_is_done(
    server: Server, make_file: MakeFile, tmp_path: Path
) -> None:
    source, target = make_file("source", SIZE), tmp_path / "target"
    begun, go_on = threading.Event(), threading.Event()
    done: list[object] = []

    def wait(moved: int, total: int) -> None:
        begun.set()
        assert go_on.wait(20)

    with Connection(**server.address) as one, Connection(**server.address) as other:
        first = threading.Thread(
            target=lambda: done.append(one.sftp_write(source, str(target), True, progress=wait))
        )
        first.start()
        try:
            assert begun.wait(20)
            for spelled in (str(target), f"{tmp_path}/x/../target"):
                with pytest.raises(AlreadyRunningError, match="wait for that to end"):
                    other.sftp_write(source, spelled, atomic=True)
            other.sftp_write(source, str(tmp_path / "elsewhere"), atomic=True)
            assert not target.exists()
        finally:
            go_on.set()
            first.join()
        assert done
        assert other.sftp_write(source, str(target), atomic=True).moved == SIZE


@pytest.mark.parametrize("rival", ["another file", "no file"])
def test_a_temporary_file_that_another_program_replaced_is_not_published(
    server: Server, face: Face, make_file: MakeFile, tmp_path: Path, rival: str
) -> None:
    source, target = make_file("source", SIZE), make_file("target", 100)
    temporary = tmp_path / f"target{TEMP}"
    before = target.read_bytes()

    def replace(moved: int, total: int) -> None:
        if moved == total:
            temporary.unlink()
            if rival == "another file":
                temporary.write_bytes(b"half of someth")

    with pytest.raises(AlreadyRunningError, match="another program uploads"):
        face.write(server, source, str(target), atomic=True, progress=replace)
    assert target.read_bytes() == before
    assert temporary.exists() is (rival == "another file")


@pytest.mark.parametrize("target_is_there", [False, True], ids=["before it", "after it"])
@pytest.mark.parametrize("resume", [False, True])
def test_a_rename_in_two_steps_that_was_broken_off_is_repaired(
    renaming: Server,
    face: Face,
    make_file: MakeFile,
    tmp_path: Path,
    resume: bool,
    target_is_there: bool,
) -> None:
    source = make_file("source", SIZE)
    old = make_file(f"target{TEMP}.old", 50)
    target = tmp_path / "target"
    if target_is_there:
        target.write_bytes(b"new")
    before = target.read_bytes() if target_is_there else old.read_bytes()

    def change(moved: int, total: int) -> None:
        os.utime(source)

    with pytest.raises(SourceChangedError):
        face.write(renaming, source, str(target), atomic=True, resume=resume, progress=change)
    assert target.read_bytes() == before
    assert not old.exists()
    face.write(renaming, source, str(target), atomic=True, resume=resume)
    assert target.read_bytes() == source.read_bytes()
    assert sorted(os.listdir(tmp_path)) == ["source", "target"]
