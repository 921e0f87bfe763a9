"""What `sftp_write` and `sftp_read` promise, against every kind of server, both ways to call."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from furymesh.core.errors import NotFoundError, UsageError
from furymesh.sftp.sound import TAIL_BYTES
from tests.sftp.conftest import LONG_AGO, Face, MakeFile
from tests.sftp.servers import Server

SIZES = [0, 3_000_001]
SIZE = 3_000_001
TEMP = ".hussh.tmp"


@pytest.mark.parametrize("atomic", [False, True], ids=["plain", "atomic"])
@pytest.mark.parametrize("size", SIZES)
def test_a_file_arrives_with_its_mode_and_time(
    server: Server, face: Face, make_file: MakeFile, tmp_path: Path, size: int, atomic: bool
) -> None:
    source = make_file("source", size)
    source.chmod(0o640)
    there, back = tmp_path / "there", tmp_path / "back"
    assert face.write(server, source, str(there), atomic=atomic).moved == size
    assert face.read(server, str(there), back, atomic=atomic).moved == size
    for path in (there, back):
        assert path.read_bytes() == source.read_bytes()
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
        assert path.stat().st_mtime == LONG_AGO
    assert sorted(os.listdir(tmp_path)) == ["back", "source", "there"]


def test_without_flags_what_is_there_is_replaced(
    server: Server, face: Face, make_file: MakeFile
) -> None:
    source, target = make_file("source", SIZE), make_file("target", SIZE + 100)
    assert face.write(server, source, str(target)).reused == 0
    assert target.read_bytes() == source.read_bytes()
    back = make_file("back", SIZE + 100)
    assert face.read(server, str(target), back).reused == 0
    assert back.read_bytes() == source.read_bytes()


def test_atomic_goes_through_the_temporary_name(
    server: Server, face: Face, make_file: MakeFile, tmp_path: Path
) -> None:
    source, old = make_file("source", SIZE), make_file("target", 10)
    before = old.read_bytes()
    seen = set()

    def look(done: int, total: int) -> None:
        seen.add((old.read_bytes() == before, (tmp_path / f"target{TEMP}").exists(), total))

    face.write(server, source, str(old), atomic=True, progress=look)
    assert seen == {(True, True, SIZE)}
    assert old.read_bytes() == source.read_bytes()


def test_the_temporary_name_can_be_chosen(
    server: Server, face: Face, make_file: MakeFile, tmp_path: Path
) -> None:
    source = make_file("source", SIZE)
    seen = set()
    face.write(
        server,
        source,
        str(tmp_path / "target"),
        atomic=True,
        temp_suffix=".new",
        progress=lambda *_: seen.update(os.listdir(tmp_path)),
    )
    assert seen == {"source", "target.new"}
    for bad in ("", "a/b", "x" * 100):
        with pytest.raises(UsageError, match="temp_suffix"):
            face.write(server, source, str(tmp_path / "other"), atomic=True, temp_suffix=bad)


@pytest.mark.parametrize(
    ("verify", "kept"),
    [("tail", 1), ("tail", SIZE - 1), ("full", 1_000_000), ("size", 1_000_000)],
)
def test_resume_moves_only_what_is_missing(
    server: Server, face: Face, make_file: MakeFile, tmp_path: Path, kept: int, verify: str
) -> None:
    source = make_file("source", SIZE)
    there, back = tmp_path / "there", tmp_path / "back"
    for path in (there, back):
        path.write_bytes(source.read_bytes()[:kept])
    done = face.write(server, source, str(there), resume=True, verify=verify)
    assert (done.reused, done.moved) == (kept, SIZE - kept)
    done = face.read(server, str(there), back, resume=True, verify=verify)
    assert (done.reused, done.moved) == (kept, SIZE - kept)
    assert there.read_bytes() == back.read_bytes() == source.read_bytes()


@pytest.mark.parametrize("atomic", [False, True], ids=["plain", "atomic"])
@pytest.mark.parametrize("longer", [0, 1000])
def test_resume_leaves_what_is_complete_as_it_is(
    server: Server, face: Face, make_file: MakeFile, longer: int, atomic: bool
) -> None:
    source = make_file("source", SIZE)
    target = make_file("target", 0)
    target.write_bytes(source.read_bytes() + b"more" * (longer // 4))
    before = (target.stat().st_ino, target.read_bytes())
    modified = target.stat().st_mtime_ns
    assert face.write(server, source, str(target), atomic=atomic, resume=True).moved == 0
    assert face.read(server, str(source), target, atomic=atomic, resume=True).moved == 0
    assert (target.stat().st_ino, target.read_bytes()) == before
    if atomic or longer:  # else what an earlier run left is finished
        assert target.stat().st_mtime_ns == modified


def test_what_was_complete_but_not_finished_is_finished(
    server: Server, face: Face, make_file: MakeFile, tmp_path: Path
) -> None:
    source = make_file("source", SIZE)
    source.chmod(0o640)
    for transfer in (face.write, face.read):
        target = tmp_path / "target"
        target.write_bytes(source.read_bytes())
        target.chmod(0o600)
        one, other = (source, str(target)) if transfer == face.write else (str(source), target)
        assert transfer(server, one, other, resume=True).moved == 0
        assert stat.S_IMODE(target.stat().st_mode) == 0o640
        assert target.stat().st_mtime == LONG_AGO
        target.unlink()


@pytest.mark.parametrize("longer", [0, 1000])
def test_resume_replaces_what_is_long_enough_but_of_another_file(
    server: Server, face: Face, make_file: MakeFile, longer: int
) -> None:
    source, target = make_file("source", SIZE), make_file("target", SIZE + longer)
    assert face.write(server, source, str(target), resume=True).moved == SIZE
    assert target.read_bytes() == source.read_bytes()
    target = make_file("other", SIZE + longer)
    assert face.read(server, str(source), target, resume=True).moved == SIZE
    assert target.read_bytes() == source.read_bytes()


def test_size_alone_decides_if_that_is_asked_for(
    server: Server, face: Face, make_file: MakeFile
) -> None:
    source, target = make_file("source", SIZE), make_file("target", SIZE)
    assert face.write(server, source, str(target), resume=True, verify="size").moved == 0
    assert face.read(server, str(source), target, resume=True, verify="size").moved == 0


def test_atomic_and_resume_continue_the_temporary_file(
    server: Server, face: Face, make_file: MakeFile, tmp_path: Path
) -> None:
    source = make_file("source", SIZE)
    for number, transfer in enumerate([face.write, face.read]):
        target = make_file(f"target{number}", 50)
        temporary = tmp_path / f"target{number}{TEMP}"
        temporary.write_bytes(source.read_bytes()[:1_000_000])
        one, other = (source, str(target)) if transfer == face.write else (str(source), target)
        done = transfer(server, one, other, atomic=True, resume=True)
        assert (done.reused, done.moved) == (1_000_000, SIZE - 1_000_000)
        assert target.read_bytes() == source.read_bytes()
        assert not temporary.exists()


def test_a_corrupt_prefix_is_replaced_from_where_it_differs(
    server: Server, face: Face, make_file: MakeFile
) -> None:
    source = make_file("source", SIZE)
    for transfer in (face.write, face.read):
        target = make_file("target", 0)
        prefix = bytearray(source.read_bytes()[:2_000_000])
        prefix[1_234_567] ^= 1
        target.write_bytes(prefix)
        one, other = (source, str(target)) if transfer == face.write else (str(source), target)
        assert transfer(server, one, other, resume=True).reused == 1_234_567
        assert target.read_bytes() == source.read_bytes()


@pytest.mark.parametrize(("verify", "found"), [("tail", False), ("full", True)])
def test_beyond_the_tail_only_full_compares(
    server: Server, face: Face, make_file: MakeFile, verify: str, found: bool
) -> None:
    size = TAIL_BYTES + 2_000_000
    source = make_file("source", size)
    for transfer in (face.write, face.read):
        target = make_file("target", 0)
        prefix = bytearray(source.read_bytes()[: size - 1000])
        prefix[100] ^= 1
        target.write_bytes(prefix)
        one, other = (source, str(target)) if transfer == face.write else (str(source), target)
        done = transfer(server, one, other, resume=True, verify=verify)
        assert done.reused == (100 if found else size - 1000)
        assert (target.read_bytes() == source.read_bytes()) is found


def test_a_source_changed_since_the_last_attempt_is_compared_whole(
    server: Server, face: Face, make_file: MakeFile
) -> None:
    size = TAIL_BYTES + 2_000_000
    for transfer in (face.write, face.read):
        source, target = make_file("source", size), make_file("target", 0)
        target.write_bytes(source.read_bytes()[: size - 1000])
        os.utime(target, (LONG_AGO, LONG_AGO))
        with source.open("r+b") as file:  # in its first bytes, far from the tail
            file.write(b"changed")
        one, other = (source, str(target)) if transfer == face.write else (str(source), target)
        assert transfer(server, one, other, resume=True).reused < 7
        assert target.read_bytes() == source.read_bytes()


def test_progress_ends_at_the_size_and_counts_what_was_there(
    server: Server, face: Face, make_file: MakeFile, tmp_path: Path
) -> None:
    source = make_file("source", SIZE)
    (tmp_path / "target").write_bytes(source.read_bytes()[:1000])
    seen: list[tuple[int, int]] = []
    face.write(
        server,
        source,
        str(tmp_path / "target"),
        resume=True,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen[0] == (1000, SIZE)
    assert seen[-1] == (SIZE, SIZE)
    assert seen == sorted(seen)


def test_what_is_not_there_is_named(server: Server, face: Face, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="missing"):
        face.read(server, str(tmp_path / "missing"), tmp_path / "here")
    with pytest.raises(NotFoundError, match="missing"):
        face.write(server, tmp_path / "missing", str(tmp_path / "there"))
    (tmp_path / "source").write_bytes(b"x")
    with pytest.raises(NotFoundError, match="no such file or directory; check the path"):
        face.write(server, tmp_path / "source", str(tmp_path / "missing" / "there"))
    assert os.listdir(tmp_path) == ["source"]
