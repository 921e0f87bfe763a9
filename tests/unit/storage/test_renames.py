from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path

import pytest

from furymesh.core.errors import EnvironmentFault
from furymesh.storage import renames
from furymesh.storage.renames import (
    rename_exchange,
    rename_exchange_in,
    rename_no_replace,
    rename_no_replace_in,
)


@pytest.fixture(params=["kernel", "fallback"])
def renaming(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "fallback":
        monkeypatch.setattr(renames, "_renameat2", lambda *_: False)


@pytest.mark.usefixtures("renaming")
def test_rename_no_replace(tmp_path: Path) -> None:
    source, target, taken = tmp_path / "s", tmp_path / "t", tmp_path / "taken"
    for make in (Path.touch, Path.mkdir):
        make(source)
        rename_no_replace(source, target)
        assert not source.exists()
        assert target.exists()
        make(taken)
        with pytest.raises(FileExistsError):
            rename_no_replace(target, taken)
        assert target.exists()
        for path in (target, taken):
            path.rmdir() if path.is_dir() else path.unlink()
    with pytest.raises(EnvironmentFault, match="cannot rename"):
        rename_no_replace(source, target)
    taken.symlink_to("nowhere")
    source.touch()
    with pytest.raises(FileExistsError):
        rename_no_replace(source, taken)


def test_a_failed_fallback_leaves_no_claimed_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(renames, "_renameat2", lambda *_: False)

    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "rename", fail)
    (tmp_path / "source").mkdir()
    with pytest.raises(EnvironmentFault, match="cannot rename"):
        rename_no_replace(tmp_path / "source", tmp_path / "target")
    assert os.listdir(tmp_path) == ["source"]


def test_a_failed_exchange_is_undone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(renames, "_renameat2", lambda *_: False)
    (tmp_path / "other").touch()
    with pytest.raises(EnvironmentFault, match="cannot exchange"):
        rename_exchange(tmp_path / "none", tmp_path / "other")
    assert os.listdir(tmp_path) == ["other"]


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.EINVAL])
def test_kernels_without_the_flag_get_the_fallback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def unsupported(*_: object) -> int:
        ctypes.set_errno(code)
        return -1

    for function in (unsupported, None):
        monkeypatch.setattr(renames, "_libc_renameat2", lambda answer=function: answer)
        (tmp_path / "a").touch()
        rename_no_replace(tmp_path / "a", tmp_path / "b")
        assert os.listdir(tmp_path) == ["b"]
        (tmp_path / "b").unlink()


@pytest.mark.usefixtures("renaming")
def test_rename_exchange(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir()
    other.write_bytes(b"x")
    rename_exchange(one, other)
    assert one.read_bytes() == b"x"
    assert other.is_dir()
    with pytest.raises(EnvironmentFault):
        rename_exchange(tmp_path / "none", other)
    assert other.is_dir()
    assert sorted(os.listdir(tmp_path)) == ["one", "other"]


@pytest.mark.usefixtures("renaming")
def test_names_in_an_open_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inside = tmp_path / "inside"
    (inside / "folder").mkdir(parents=True)
    (inside / "one").write_bytes(b"1")
    monkeypatch.chdir(tmp_path)
    directory = os.open(inside, os.O_RDONLY)
    try:
        rename_no_replace_in(directory, "one", "two")
        rename_no_replace_in(directory, "folder", "other")
        with pytest.raises(FileExistsError):
            rename_no_replace_in(directory, "two", "other")
        rename_exchange_in(directory, "two", "other")
    finally:
        os.close(directory)
    assert sorted(os.listdir(inside)) == ["other", "two"]
    assert (inside / "other").read_bytes() == b"1"
    assert os.listdir(tmp_path) == ["inside"]
