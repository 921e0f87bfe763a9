"""Folders: the paths that shares may have, no links, nothing outside."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from furymesh.core.errors import EnvironmentFault, FuryMeshError, ProtocolError, UsageError
from tests.sftp.asyncssh_server import LISTED
from tests.sftp.conftest import LONG_AGO, Face, MakeFile
from tests.sftp.servers import Server, serving

TEMP = ".hussh.tmp"


def tree(root: Path) -> dict[str, tuple[bytes, int] | None]:
    """Files with their content and mode, None for directories."""
    return {
        str(path.relative_to(root)): (path.read_bytes(), stat.S_IMODE(path.stat().st_mode))
        if path.is_file()
        else None
        for path in root.rglob("*")
    }


@pytest.fixture
def folder(make_file: MakeFile, tmp_path: Path) -> Path:
    for name, size in [("a/b/c", 100), ("a/d", 0), ("e f", 300_000), ("ä", 10)]:
        make_file(f"folder/{name}", size)
    make_file("folder/run", 10).chmod(0o755)
    (tmp_path / "folder" / "empty" / "below").mkdir(parents=True)
    return tmp_path / "folder"


@pytest.mark.parametrize("atomic", [False, True], ids=["plain", "atomic"])
def test_a_folder_goes_there_and_back(
    server: Server, face: Face, folder: Path, tmp_path: Path, atomic: bool
) -> None:
    there, back = tmp_path / "there", tmp_path / "back"
    assert face.write(server, folder, str(there), atomic=atomic).files == 5
    assert face.read(server, str(there), back, atomic=atomic).files == 5
    assert tree(there) == tree(back) == tree(folder)
    assert (back / "a/b/c").stat().st_mtime == LONG_AGO
    # Again: everything is there, and what is gone comes again.
    (back / "a/b/c").unlink()
    done = face.read(server, str(there), back, atomic=atomic, resume=True)
    assert (done.moved, done.reused) == (100, 300_020)
    assert face.write(server, folder, str(there), atomic=atomic, resume=True).moved == 0
    assert tree(there) == tree(back) == tree(folder)


def test_links_and_pipes_are_left_out_and_named(
    server: Server, face: Face, folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_text("secret")
    (folder / "link").symlink_to(tmp_path / "secret")
    (folder / "a" / "up").symlink_to(tmp_path)
    os.mkfifo(folder / "pipe")
    for done in (
        face.write(server, folder, str(tmp_path / "there")),
        face.read(server, str(folder), tmp_path / "back"),
    ):
        assert done.skipped == ("a/up", "link", "pipe")
    for name in ("there", "back"):
        assert not any(path.is_symlink() for path in (tmp_path / name).rglob("*"))
        assert len(tree(tmp_path / name)) == 9


def test_a_link_in_the_way_of_a_folder_is_not_followed(
    server: Server, face: Face, folder: Path, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    for name in ("there", "back"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a").symlink_to(outside)
    with pytest.raises(EnvironmentFault, match="not a directory is in the way"):
        face.write(server, folder, str(tmp_path / "there"))
    with pytest.raises(EnvironmentFault, match="cannot create"):
        face.read(server, str(folder), tmp_path / "back")
    assert not list(outside.iterdir())


@pytest.fixture(scope="module")
def liar() -> Iterator[Server]:
    with serving("asyncssh", trick="lying") as made:
        yield made


@pytest.mark.parametrize(
    "name", ["../evil", "/evil", "a/b", "CON", "new\nline", "x" * 300, "dot.", "\u202ecod.exe"]
)
def test_names_that_mean_another_place_are_refused(
    liar: Server, face: Face, tmp_path: Path, name: str
) -> None:
    (tmp_path / LISTED).write_text(name)
    with pytest.raises(ProtocolError, match=r"cannot fetch .* refused") as caught:
        face.read(liar, str(tmp_path), tmp_path / "folder" / "back")
    assert str(caught.value).isprintable()
    assert os.listdir(tmp_path) == [LISTED]


def test_names_that_collide_elsewhere_are_refused(
    server: Server, face: Face, tmp_path: Path
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in ("name", "NAME"):
        (folder / name).write_text(name)
    with pytest.raises(ProtocolError, match="collides"):
        face.read(server, str(folder), tmp_path / "back")
    with pytest.raises(UsageError, match="collides"):
        face.write(server, folder, str(tmp_path / "there"))
    assert os.listdir(tmp_path) == ["folder"]


@pytest.mark.parametrize("ending", [TEMP, f"{TEMP}.old"])
def test_a_file_that_is_named_like_a_temporary_one_is_refused(
    server: Server, face: Face, make_file: MakeFile, tmp_path: Path, ending: str
) -> None:
    make_file(f"folder/x{ending}", 10)
    for call, names in [
        (face.write, (tmp_path / "folder", str(tmp_path / "there"))),
        (face.read, (str(tmp_path / "folder"), tmp_path / "back")),
    ]:
        with pytest.raises(UsageError, match="choose another temp_suffix"):
            call(server, *names, atomic=True)
        call(server, *names, atomic=True, temp_suffix=".new")


def test_a_file_in_the_place_of_a_folder_stays(
    server: Server, face: Face, folder: Path, make_file: MakeFile, tmp_path: Path
) -> None:
    taken = make_file("taken", 10)
    before = taken.read_bytes()
    with pytest.raises(FuryMeshError, match="in the way"):
        face.write(server, folder, str(taken))
    with pytest.raises(FuryMeshError, match="in the way"):
        face.read(server, str(folder), taken)
    assert taken.read_bytes() == before
