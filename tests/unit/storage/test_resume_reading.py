"""Resume data as it is listed and read: damaged, odd, or of somebody else."""

from __future__ import annotations

import os
import tracemalloc
from pathlib import Path

import pytest

from furymesh.cli.resume_view import detail_lines, summary_record
from furymesh.core.errors import DamagedResumeDataError, EnvironmentFault, NotFoundError
from furymesh.storage.resume import Damaged, Summary, list_all, peek, resume_path
from tests.unit.storage.resume_lab import BOOT, FILE_ID, create, load


def test_listing_shows_good_and_damaged_and_ignores_the_rest(tmp_path: Path) -> None:
    assert list_all(tmp_path / "missing") == []
    with create(tmp_path) as resume:
        resume.add(1)
        bad = tmp_path / f"{'ee' * 32}.resume"
        bad.write_bytes(b"")
        other = tmp_path / f"{'ff' * 32}.resume"
        other.write_bytes(resume.path.read_bytes())
        (tmp_path / "notes.txt").touch()
        (tmp_path / f"{'5a' * 32}.lock").touch()
        found = list_all(tmp_path, boot_id=BOOT)
    assert [type(item) for item in found] == [Summary, Damaged, Damaged]
    good, empty, foreign = found
    assert isinstance(good, Summary)
    assert isinstance(empty, Damaged)
    assert isinstance(foreign, Damaged)
    assert good.chunks_done == 1
    assert good.updated_at > 1e9
    assert empty.file_id == b"\xee" * 32
    assert "cut short" in empty.reason
    assert "another download" in foreign.reason


def test_what_is_missing_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        load(tmp_path)
    with pytest.raises(NotFoundError):
        peek(tmp_path / "notes.txt")


def test_links_pipes_and_directories_are_not_resume_data(tmp_path: Path) -> None:
    with create(tmp_path / "real") as resume:
        real = resume.path
    path = resume_path(tmp_path, FILE_ID)
    path.symlink_to(real)
    with pytest.raises(DamagedResumeDataError, match="it is a link"):
        load(tmp_path)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(DamagedResumeDataError, match="not a file of this user"):
        load(tmp_path)
    path.unlink()
    path.mkdir()
    with pytest.raises((DamagedResumeDataError, EnvironmentFault)):
        load(tmp_path)


def test_resume_data_of_another_user_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create(tmp_path).close()
    stranger = os.geteuid() + 1
    monkeypatch.setattr("furymesh.storage.resume_reader.os.geteuid", lambda: stranger)
    with pytest.raises(DamagedResumeDataError, match="this user"):
        load(tmp_path)


def test_an_absurdly_large_file_is_not_read(tmp_path: Path) -> None:
    create(tmp_path).close()
    os.truncate(resume_path(tmp_path, FILE_ID), 2**40)
    with pytest.raises(DamagedResumeDataError, match="impossibly large"):
        load(tmp_path)


def test_reading_takes_the_room_of_the_file_and_not_of_the_largest_one(tmp_path: Path) -> None:
    create(tmp_path).close()
    tracemalloc.start()
    try:
        peek(resume_path(tmp_path, FILE_ID), boot_id=BOOT)
        assert tracemalloc.get_traced_memory()[1] < 4 * 1024 * 1024
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("seconds", [-(2**33), 2**39])
def test_a_file_of_an_impossible_time_can_be_listed(tmp_path: Path, seconds: int) -> None:
    create(tmp_path).close()
    path = resume_path(tmp_path, FILE_ID)
    os.utime(path, (seconds, seconds))
    summary = peek(path, boot_id=BOOT)
    assert summary_record(summary)["updated_at"][:4] in ("1970", "9999", "2446")  # ext4 ends there
    assert list(detail_lines(summary))


def test_no_message_shows_the_content_key(tmp_path: Path) -> None:
    with create(tmp_path) as resume:
        assert "kkk" not in repr(resume.meta)
        assert "kkk" not in repr(peek(resume.path, boot_id=BOOT))


def test_a_directory_that_cannot_be_made_is_one_plain_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(EnvironmentFault):
        create(tmp_path / "file" / "resume")
    with pytest.raises(EnvironmentFault):
        list_all(tmp_path / "file")
