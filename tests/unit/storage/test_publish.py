"""Publishing a verified part: names, modes, replacing, and dying on the way."""

from __future__ import annotations

import errno
import itertools
import os
import signal
import stat
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from furymesh.core.errors import EnvironmentFault, VerificationError
from furymesh.core.layout import Entry, EntryKind, Layout
from furymesh.storage import publish as publishing
from furymesh.storage import renames
from furymesh.storage.publish import find_published, publish, publish_in

SINGLE = Layout.of_file(5)
FOLDER = Layout(
    [
        Entry("bin/run", EntryKind.EXECUTABLE, 3),
        Entry("docs/deep/none", EntryKind.FILE, 0),
        Entry("docs/read", EntryKind.FILE, 4),
        Entry("empty/inner", EntryKind.DIRECTORY, 0),
        Entry("top", EntryKind.FILE, 3),
    ]
)
WHOLE = {"bin/run": "run", "docs/deep/none": "", "docs/read": "read", "top": "top"}


def plant(root: Path, files: dict[str, str]) -> Path:
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    return root


def harvest(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): path.read_text() for path in root.rglob("*") if path.is_file()
    }


def new_file(directory: Path) -> Path:
    part = directory / "x.part"
    part.write_text("bytes")
    return part


def new_folder(directory: Path) -> Path:
    return plant(directory / "x.part", WHOLE)


# --- names --------------------------------------------------------------------


def test_a_file_gets_its_name(tmp_path: Path) -> None:
    final = tmp_path / "film.mkv"
    assert publish(new_file(tmp_path), final, SINGLE) == final
    assert os.listdir(tmp_path) == ["film.mkv"]
    assert final.read_text() == "bytes"


def test_a_folder_gets_its_name_its_empty_directories_and_nothing_else(tmp_path: Path) -> None:
    final = tmp_path / "Album"
    assert publish(new_folder(tmp_path), final, FOLDER) == final
    assert os.listdir(tmp_path) == ["Album"]
    assert harvest(final) == WHOLE
    assert (final / "empty" / "inner").is_dir()


@pytest.mark.parametrize(
    ("name", "second", "third"),
    [
        ("film.mkv", "film_1.mkv", "film_2.mkv"),
        ("README", "README_1", "README_2"),
        (".profile", ".profile_1", ".profile_2"),
        ("a.tar.gz", "a.tar_1.gz", "a.tar_2.gz"),
        ("x" * 251 + ".mkv", "x" * 249 + "_1.mkv", "x" * 249 + "_2.mkv"),
    ],
)
def test_existing_files_are_kept_and_the_next_free_name_is_used(
    tmp_path: Path, name: str, second: str, third: str
) -> None:
    names = [publish(new_file(tmp_path), tmp_path / name, SINGLE).name for _ in range(3)]
    assert names == [name, second, third]
    assert sorted(os.listdir(tmp_path)) == sorted(names)


@pytest.mark.parametrize(
    "name", ["a." + "x" * 253, "." + "x" * 254, "é." + "日" * 84], ids=lambda name: ascii(name)[:9]
)
def test_the_longest_names_are_numbered_too(tmp_path: Path, name: str) -> None:
    names = {publish(new_file(tmp_path), tmp_path / name, SINGLE).name for _ in range(12)}
    assert len(names) == 12
    assert names == set(os.listdir(tmp_path))


def test_existing_folders_are_kept_too(tmp_path: Path) -> None:
    plant(tmp_path / "Album", {"mine": "precious"})
    (tmp_path / "Album_1").symlink_to(tmp_path / "nowhere")
    assert publish(new_folder(tmp_path), tmp_path / "Album", FOLDER).name == "Album_2"
    assert harvest(tmp_path / "Album") == {"mine": "precious"}
    assert (tmp_path / "Album_1").is_symlink()


def test_names_run_out_in_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("furymesh.storage.publish.MAX_SUFFIX", 1)
    for name in ("x", "x_1"):
        (tmp_path / name).touch()
    part = new_file(tmp_path)
    with pytest.raises(EnvironmentFault, match="choose another --output"):
        publish(part, tmp_path / "x", SINGLE)
    assert part.exists()


def test_a_published_part_is_found_again(tmp_path: Path) -> None:
    final, part = tmp_path / "film.mkv", new_file(tmp_path)
    final.write_text("other")
    inode = part.stat().st_ino
    assert find_published(final, inode) is None
    published = publish(part, final, SINGLE)
    assert find_published(final, inode) == published
    assert find_published(tmp_path / "missing" / "film.mkv", inode) is None


# --- overwrite ----------------------------------------------------------------


def test_overwrite_replaces_a_file_or_a_link_to_one(tmp_path: Path) -> None:
    final, kept = tmp_path / "film.mkv", tmp_path / "kept"
    final.write_text("old")
    assert publish(new_file(tmp_path), final, SINGLE, overwrite=True) == final
    assert final.read_text() == "bytes"
    kept.write_text("precious")
    final.unlink()
    final.symlink_to(kept)
    publish(new_file(tmp_path), final, SINGLE, overwrite=True)
    assert kept.read_text() == "precious"
    assert not final.is_symlink()


def test_overwrite_replaces_no_device_pipe_or_socket(tmp_path: Path) -> None:
    part, final = new_file(tmp_path), tmp_path / "final"
    os.mkfifo(final)  # as /dev/null would be to root
    with pytest.raises(EnvironmentFault, match="it is a device, a pipe or a socket"):
        publish(part, final, SINGLE, overwrite=True)
    directory = os.open(tmp_path, os.O_RDONLY)
    with pytest.raises(EnvironmentFault, match="name another file"):
        publish_in(directory, part.name, final, 5)
    os.close(directory)
    assert stat.S_ISFIFO(final.lstat().st_mode)
    assert part.read_text() == "bytes"


def test_overwrite_replaces_a_folder_whole(tmp_path: Path) -> None:
    final = plant(tmp_path / "Album", {"docs/old": "old", "top": "old"})
    assert publish(new_folder(tmp_path), final, FOLDER, overwrite=True) == final
    assert harvest(final) == WHOLE
    assert os.listdir(tmp_path) == ["Album"]


def test_overwrite_with_nothing_there_is_as_without(tmp_path: Path) -> None:
    assert publish(new_folder(tmp_path), tmp_path / "A", FOLDER, overwrite=True).name == "A"
    assert publish(new_file(tmp_path), tmp_path / "f", SINGLE, overwrite=True).name == "f"


def test_overwrite_never_trades_a_folder_for_a_file_or_back(tmp_path: Path) -> None:
    folder = plant(tmp_path / "Album", {"mine": "precious"})
    with pytest.raises(EnvironmentFault, match="a directory is in the way"):
        publish(new_file(tmp_path), folder, SINGLE, overwrite=True)
    (tmp_path / "x.part").unlink()
    for name in ("file", "link"):
        final = tmp_path / name
        final.symlink_to(folder) if name == "link" else final.write_text("precious")
        with pytest.raises(EnvironmentFault, match="it is not one"):
            publish(new_folder(tmp_path), final, FOLDER, overwrite=True)
    assert harvest(folder) == {"mine": "precious"}
    assert (tmp_path / "file").read_text() == "precious"
    assert harvest(tmp_path / "x.part") == WHOLE


# --- modes --------------------------------------------------------------------


@pytest.mark.parametrize(("before", "after"), [(0o644, 0o755), (0o600, 0o700), (0o640, 0o750)])
def test_executable_for_whoever_may_read(tmp_path: Path, before: int, after: int) -> None:
    part = new_file(tmp_path)
    part.chmod(before)
    final = publish(part, tmp_path / "tool", SINGLE, executable=True)
    assert stat.S_IMODE(final.stat().st_mode) == after


def test_a_folder_says_itself_what_is_executable(tmp_path: Path) -> None:
    final = publish(new_folder(tmp_path), tmp_path / "Album", FOLDER)
    assert (final / "bin/run").stat().st_mode & 0o100
    assert not (final / "top").stat().st_mode & 0o111


# --- refusals -----------------------------------------------------------------


def test_a_part_of_the_wrong_size_is_not_published(tmp_path: Path) -> None:
    part = new_file(tmp_path)
    part.write_text("longer than it should be")
    with pytest.raises(VerificationError, match="instead of 5"):
        publish(part, tmp_path / "film", SINGLE)
    folder = plant(tmp_path / "y.part", WHOLE | {"docs/read": ""})
    with pytest.raises(VerificationError, match="instead of 4"):
        publish(folder, tmp_path / "Album", FOLDER)
    assert sorted(os.listdir(tmp_path)) == ["x.part", "y.part"]


@pytest.mark.parametrize("stranger", ["virus", "docs/virus", "empty/inner/virus"])
def test_a_part_with_strangers_in_it_is_not_published(tmp_path: Path, stranger: str) -> None:
    part = plant(new_folder(tmp_path), {stranger: "evil"})
    with pytest.raises(VerificationError, match="virus does not belong"):
        publish(part, tmp_path / "Album", FOLDER)
    assert os.listdir(tmp_path) == ["x.part"]


@pytest.mark.parametrize("folder", [False, True])
def test_another_file_in_the_place_of_a_verified_one_is_not_published(
    tmp_path: Path, folder: bool
) -> None:
    part = new_folder(tmp_path) if folder else new_file(tmp_path)
    layout = FOLDER if folder else SINGLE
    files = [part / file.path if folder else part for file in layout.files]
    verified = [file.stat().st_ino for file in files]
    raw = files[-1].read_bytes()
    files[-1].rename(tmp_path / "aside")
    files[-1].write_bytes(bytes(len(raw)))  # as a program does that restores a copy
    with pytest.raises(VerificationError, match="something else replaced it"):
        publish(part, tmp_path / "final", layout, inodes=verified)
    assert not (tmp_path / "final").exists()
    (tmp_path / "aside").rename(files[-1])
    assert publish(part, tmp_path / "final", layout, inodes=verified) == tmp_path / "final"


def test_missing_or_linked_content_is_not_published(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFault, match="cannot finish"):
        publish(tmp_path / "x.part", tmp_path / "film", SINGLE)
    (tmp_path / "secret").write_text("bytes")
    (tmp_path / "x.part").symlink_to(tmp_path / "secret")
    with pytest.raises(EnvironmentFault, match="cannot finish"):
        publish(tmp_path / "x.part", tmp_path / "film", SINGLE)
    (tmp_path / "x.part").unlink()
    part = new_folder(tmp_path)
    (part / "top").unlink()
    (part / "top").symlink_to(tmp_path / "secret")
    with pytest.raises(EnvironmentFault, match="cannot finish"):
        publish(part, tmp_path / "Album", FOLDER)
    assert not (tmp_path / "Album").exists()


def test_the_output_directory_must_be_there(tmp_path: Path) -> None:
    part = new_file(tmp_path)
    with pytest.raises(EnvironmentFault, match="does not exist; create it"):
        publish(part, tmp_path / "missing" / "film", SINGLE)
    (tmp_path / "file").touch()
    with pytest.raises(EnvironmentFault, match="does not exist; create it"):
        publish(part, tmp_path / "file" / "film", SINGLE)
    assert part.exists()


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES, errno.EIO])
def test_a_refused_sync_keeps_the_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def fail(fd: int) -> None:
        raise OSError(code, os.strerror(code))

    part = new_file(tmp_path)
    monkeypatch.setattr("furymesh.storage.publish.os.fsync", fail)
    with pytest.raises(EnvironmentFault):
        publish(part, tmp_path / "film", SINGLE)
    assert os.listdir(tmp_path) == ["x.part"]


# --- dying on the way ---------------------------------------------------------


def test_everything_is_synced_before_the_rename_and_the_name_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    really_sync, really_rename = os.fsync, renames.rename_no_replace

    def fsync(fd: int) -> None:
        calls.append(Path(os.readlink(f"/proc/self/fd/{fd}")).name)
        really_sync(fd)

    def rename(source: Path, target: Path) -> None:
        calls.append("RENAME")
        really_rename(source, target)

    part = new_folder(tmp_path)
    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(publishing, "rename_no_replace", rename)
    publish(part, tmp_path / "Album", FOLDER)
    at = calls.index("RENAME")
    assert set(calls[:at]) == {
        *("run", "none", "read", "top"),
        *("bin", "docs", "deep", "empty", "inner", "x.part"),
    }
    assert calls.index("deep") < calls.index("docs") < calls.index("x.part")
    assert calls[at + 1 :] == [tmp_path.name]


@pytest.mark.parametrize("overwrite", [False, True], ids=["beside", "overwrite"])
@pytest.mark.parametrize("kind", ["file", "folder"])
def test_killed_anywhere_the_name_leads_to_the_old_or_the_whole_new(
    tmp_path: Path, kind: str, overwrite: bool
) -> None:
    layout = SINGLE if kind == "file" else FOLDER
    old = {"f": "old"} if kind == "file" else {"f/old": "old", "f/top": "old"}
    new = {"f": "bytes"} if kind == "file" else {f"f/{path}": WHOLE[path] for path in WHOLE}
    for kill_at in itertools.count(1):
        directory = tmp_path / str(kill_at)
        directory.mkdir()
        plant(directory, old)
        part = new_file(directory) if kind == "file" else new_folder(directory)
        inode = part.stat().st_ino
        work = partial(publish, part, directory / "f", layout, overwrite=overwrite)
        killed = killed_during(work, kill_at)
        seen = harvest(directory)
        named = {path: text for path, text in seen.items() if path.split("/")[0] == "f"}
        published = find_published(directory / "f", inode)
        assert (published is None) == (part.exists() and part.stat().st_ino == inode)
        if not overwrite:
            assert named == old
            beside = {path: text for path, text in seen.items() if path.startswith("f_1")}
            assert beside in ({}, {"f_1" + path[1:]: text for path, text in new.items()})
        else:
            assert named in (old, new)
        if not killed:
            break
    assert kill_at > 3


def killed_during(work: Callable[[], object], kill_at: int) -> bool:
    """Run `work` in a child that is killed just before its n-th change to the disk."""
    child = os.fork()
    if child == 0:
        try:
            count = itertools.count(1)

            def counted(really: Callable[..., Any]) -> Callable[..., Any]:
                def call(*args: Any, **kwargs: Any) -> Any:
                    if next(count) == kill_at:
                        os.kill(os.getpid(), signal.SIGKILL)
                    return really(*args, **kwargs)

                return call

            for name in ("fsync", "fchmod", "mkdir", "rename", "unlink", "rmdir"):
                setattr(os, name, counted(getattr(os, name)))
            for name in ("rename_no_replace", "rename_exchange"):
                setattr(publishing, name, counted(getattr(publishing, name)))
            work()
            os._exit(0)
        finally:
            os._exit(1)  # whatever went wrong must not go on as a second pytest
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)
