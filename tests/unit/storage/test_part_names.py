"""Names of parts, and their removal."""

from __future__ import annotations

from pathlib import Path

import pytest

from furymesh.core.errors import UsageError
from furymesh.core.ids import FileId
from furymesh.storage.part_names import fitting_name, part_path, remove_part

FILE_ID = FileId(b"\x1f\x2e\x3d\x4c" + bytes(28))


def test_a_part_lies_beside_its_final_name() -> None:
    assert part_path(Path("/d/film.mkv"), FILE_ID) == Path("/d/film.mkv.1f2e3d4c.part")


@pytest.mark.parametrize("name", ["x" * 255, "é" * 127, "日" * 85])
def test_the_longest_names_still_have_a_part(tmp_path: Path, name: str) -> None:
    part = part_path(tmp_path / name, FILE_ID)
    part.touch()
    assert part.name.endswith(".1f2e3d4c.part")
    assert len(part.name.encode()) > 250


def test_a_name_that_fits_is_kept_even_if_it_is_no_text() -> None:
    assert fitting_name("caf\udce9", "_1.txt") == "caf\udce9_1.txt"


def test_removing_a_part(tmp_path: Path) -> None:
    part = part_path(tmp_path / "x", FILE_ID)
    remove_part(part, FILE_ID)
    part.touch()
    remove_part(part, FILE_ID)
    assert not part.exists()
    (part / "deep" / "er").mkdir(parents=True)
    (part / "deep" / "file").touch()
    remove_part(part, FILE_ID)
    assert not part.exists()


def test_a_link_is_removed_and_not_what_it_leads_to(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    (precious / "sub").mkdir(parents=True)
    part = part_path(tmp_path / "x", FILE_ID)
    part.symlink_to(precious)
    remove_part(part, FILE_ID)
    assert (precious / "sub").is_dir()
    assert not part.is_symlink()


@pytest.mark.parametrize("name", ["precious", "x.part", "x.aaaaaaaa.part"])
def test_forged_resume_data_cannot_have_other_files_removed(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    with pytest.raises(UsageError, match="not the part"):
        remove_part(tmp_path / name, FILE_ID)
    assert (tmp_path / name).exists()
