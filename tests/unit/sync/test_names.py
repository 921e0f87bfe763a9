"""Names that parts have, and names that nobody else may have."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from furymesh.core.errors import InvalidManifestError
from furymesh.core.paths import check_path, folded
from furymesh.sync import FileWriter, Folder, TransferLockManager, is_reserved
from furymesh.sync.names import is_distinct_part, part_name, place_of


@st.composite
def names(draw: st.DrawFn) -> str:
    name = draw(st.text(min_size=1, max_size=100)) * draw(st.sampled_from([1, 1, 1, 9]))
    name = name.encode("utf-8", "ignore")[:255].decode("utf-8", "ignore")
    try:
        (only,) = check_path(name)
    except (InvalidManifestError, ValueError):
        return draw(st.text("aAßéx.", min_size=1, max_size=250)) + "x"
    return only


@given(names())
def test_every_distinct_part_is_known_as_one_and_fits(name: str) -> None:
    part = part_name(name, distinct=True)
    assert len(part.encode()) <= 255
    for spelling in (part, part.upper().lower() if part.isascii() else part):
        assert is_distinct_part(spelling)
        assert is_reserved(f"deep/{spelling}")
        assert is_reserved(f"{spelling}/deep")


@given(names(), names())
def test_two_files_have_two_parts_where_they_are_two_files(one: str, other: str) -> None:
    parts = {folded(part_name(name, distinct=True)) for name in (one, other)}
    assert len(parts) == len({folded(one), folded(other)})


@pytest.mark.parametrize(
    "path",
    [
        *("x.part", "part", ".part", "x.00000000.part", "a/b.part/c", "x.part.part"),
        *("transfer_lock.json", ".transfer_lock.json.bak", "deep/.transfer_lock.json"),
        *(
            "deep/transfer_warnings.log",
            "transfer_warnings.log.1",
            ".furymesh",
            "a/.furymesh-trash",
        ),
    ],
)
def test_names_that_only_look_like_ours_are_files_like_any_other(tmp_path: Path, path: str) -> None:
    assert not is_reserved(path)
    folder = Folder(tmp_path, distinct_parts=True)
    writer = FileWriter(path, 4, 0, folder=folder)
    assert writer.write_chunk(b"12") + writer.write_chunk(b"34") == 4
    assert (tmp_path / path).read_bytes() == b"1234"
    folder.close()


@pytest.mark.parametrize(
    "path",
    [
        *(".transfer_lock.json", ".TRANSFER_LOCK.JSON", ".transfer_lock.json/x"),
        *("..transfer_lock.json.0123.tmp", "transfer_warnings.log", "Transfer_Warnings.log/x"),
        *(".furymesh-trash", ".furymesh-trash/a", ".FuryMesh-index", f"a/{part_name('x', True)}"),
        *(f"{part_name('x', True)}/a", part_name("X", True).upper(), part_name("y" * 255, True)),
    ],
)
def test_names_of_ours_are_refused_whatever_parts_are_called(tmp_path: Path, path: str) -> None:
    assert is_reserved(path)
    for distinct in (False, True):
        with pytest.raises(InvalidManifestError):
            place_of(path, distinct)
        with (
            TransferLockManager(tmp_path, distinct_parts=distinct) as lock,
            pytest.raises(InvalidManifestError),
        ):
            lock.create_lock_file("", [{"filename": path, "size": 1}], 1)


def test_a_file_and_another_called_like_its_part_arrive_side_by_side(tmp_path: Path) -> None:
    contents = {"x": b"one, ", "x.part": b"two, ", "x.part.part": b"three"}
    with TransferLockManager(tmp_path, distinct_parts=True) as lock:
        lock.create_lock_file("", [{"filename": name, "size": 5} for name in contents], 15)
        writers = {name: FileWriter(name, 5, 0, lock) for name in contents}
        for name, content in contents.items():
            assert writers[name].write_chunk(content[:3]) == 3
        for name, content in contents.items():
            assert writers[name].write_chunk(content[3:]) == 2
        assert {name: (tmp_path / name).read_bytes() for name in contents} == contents
        # The next transfer of one does not touch the others, nor does the next session.
        lock.create_lock_file("", [{"filename": "x", "size": 5}], 5)
        writer = FileWriter("x", 5, 0, lock, overwrite_mode=True)
        writer.write_chunk(b"new")
        assert {name: (tmp_path / name).read_bytes() for name in contents} == contents
        writer.write_chunk(b"er")
        lock.cleanup_on_completion()
    assert {name: (tmp_path / name).read_bytes() for name in contents} == contents | {"x": b"newer"}


def test_a_directory_called_like_a_part_may_be_synced(tmp_path: Path) -> None:
    folder = Folder(tmp_path, distinct_parts=True)
    for name in ("x.part/deep", "x"):
        assert FileWriter(name, 1, 0, folder=folder).write_chunk(b"1") == 1
    assert (tmp_path / "x").read_bytes() == (tmp_path / "x.part/deep").read_bytes() == b"1"
    folder.close()
