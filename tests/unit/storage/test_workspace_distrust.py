"""Resume data that is forged, foreign or cut off at the worst moment."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from furymesh.core.bitfield import chunks_of
from furymesh.core.errors import EnvironmentFault, SourceChangedError
from furymesh.core.hashing import HashAlgorithm
from furymesh.core.layout import Entry, EntryKind
from furymesh.core.manifest import Manifest
from furymesh.core.snapshot import ResumeMeta
from furymesh.storage.order import Order, Settings
from furymesh.storage.part_names import part_path
from furymesh.storage.renames import rename_exchange
from furymesh.storage.resume import ResumeData
from furymesh.storage.workspace import Workspace
from tests.unit.swarm.lab import CHUNK, blob, manifest_of

DATA = blob(8)
MANIFEST = manifest_of(DATA)
ALL = MANIFEST.header.geometry.all_chunks
ENTRIES = (
    Entry("a", EntryKind.FILE, 3 * CHUNK),
    Entry("b/c", EntryKind.FILE, len(DATA) - 3 * CHUNK),
)
FOLDER = Manifest.build(
    HashAlgorithm.BLAKE3,
    MANIFEST.header.geometry,
    b"".join(MANIFEST.digest(chunk) for chunk in range(8)),
    entries=ENTRIES,
)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    place = tmp_path / "files"
    place.mkdir()
    return Settings(tmp_path / "data", tmp_path / "resume", place)


def start(
    settings: Settings,
    *,
    manifest: Manifest = MANIFEST,
    output: Path | None = None,
    overwrite: bool = False,
) -> tuple[Workspace, int, int]:
    order = Order(manifest.file_id, name="film.bin", output=output, overwrite=overwrite)
    workspace = Workspace(order, settings)
    workspace.lock()
    try:
        workspace.recall()
        workspace.remember_header(manifest)
        for page in range(manifest.header.page_count):
            workspace.remember_page(page)
        return (workspace, *workspace.open("a hint", ()))
    except BaseException:
        workspace.close()
        raise


def fill(workspace: Workspace, chunks: int = ALL) -> None:
    assert workspace.resume is not None
    for chunk in chunks_of(chunks):
        workspace.part.write_chunk(chunk, DATA[chunk * CHUNK : (chunk + 1) * CHUNK])
        workspace.resume.add(chunk)


def begun(settings: Settings, chunks: int = 0b111, **forged: object) -> None:
    """An unfinished download, with these fields of its resume data replaced."""
    workspace, _, _ = start(settings)
    fill(workspace, chunks)
    assert workspace.resume is not None
    workspace.resume.update_meta(**forged)
    workspace.close()


def claiming(settings: Settings, chunks: int = 0, **forged: object) -> None:
    """Resume data out of nowhere that claims these chunks."""
    facts: dict[str, object] = {"name": "x", "output": "", "part": "", **forged}
    meta = ResumeMeta(MANIFEST.file_id, created_at=1.0, **facts)  # type: ignore[arg-type]
    with ResumeData.create(settings.resume_dir, meta) as resume:
        for chunk in chunks_of(chunks):
            resume.add(chunk)


# --- single facts -------------------------------------------------------------------


def test_header_of_something_else_is_passed_over(settings: Settings) -> None:
    claiming(settings, header=b"rubbish")
    workspace = Workspace(Order(MANIFEST.file_id), settings)
    workspace.lock()
    workspace.recall()
    assert workspace.manifest is None
    workspace.close()


def test_peers_that_are_no_addresses_are_passed_over(settings: Settings) -> None:
    begun(settings, peers=("nowhere", "192.0.2.1:7000", "\x1b[0m:1", "a..b:1"))
    workspace, good, _ = start(settings)
    assert workspace.known_peers == ("192.0.2.1:7000",)
    assert good == 0b111
    workspace.close()


def test_key_of_no_length_is_refused_while_the_link_gives_none(settings: Settings) -> None:
    claiming(settings, key=b"short")
    workspace = Workspace(Order(MANIFEST.file_id, key=bytes(32)), settings)
    workspace.lock()
    workspace.recall()
    assert workspace.key == bytes(32)
    workspace.close()


@pytest.mark.parametrize(
    ("size", "chunk_size", "total"),
    [
        (len(DATA), CHUNK, 2_000_000),
        (len(DATA), CHUNK, 3),
        (len(DATA), 2 * CHUNK, 8),
        (1, CHUNK, 8),
        (None, None, 8),
    ],
)
def test_other_chunk_counts_vouch_for_nothing(
    settings: Settings, size: int | None, chunk_size: int | None, total: int
) -> None:
    part = part_path(settings.download_dir / "film.bin", MANIFEST.file_id)
    part.write_bytes(DATA)
    claiming(
        settings,
        min(ALL, (1 << total) - 1),
        size=size,
        chunk_size=chunk_size,
        chunks_total=total,
        output=str(settings.download_dir / "film.bin"),
        part=str(part),
    )
    workspace, good, doubtful = start(settings)
    assert (good, doubtful) == (0, ALL)
    assert workspace.resume is not None
    assert workspace.resume.meta.chunks_total == 8
    workspace.close()


# --- where it is published ----------------------------------------------------------


@pytest.mark.parametrize("output", ["{tmp}/elsewhere/evil", "evil", ""])
def test_output_where_no_part_lies_is_not_believed(
    settings: Settings, tmp_path: Path, output: str
) -> None:
    (tmp_path / "elsewhere").mkdir()
    begun(settings, output=output.format(tmp=tmp_path))
    workspace, good, _ = start(settings)
    assert workspace.final == settings.download_dir / "film.bin"
    assert good == 0b111
    workspace.close()


@pytest.mark.parametrize("part", ["film.part", ""])
def test_part_that_cannot_be_is_not_looked_for(settings: Settings, part: str) -> None:
    begun(settings, part=part)
    workspace, good, _ = start(settings)
    assert good == 0b111
    workspace.close()


def test_disk_that_is_not_mounted_is_told(settings: Settings, tmp_path: Path) -> None:
    away = tmp_path / "disk"
    away.mkdir()
    workspace, _, _ = start(settings, output=away / "film.bin")
    fill(workspace, 0b11)
    workspace.close()
    away.rename(tmp_path / "unplugged")
    with pytest.raises(EnvironmentFault, match="there is no directory"):
        start(settings)
    (tmp_path / "unplugged").rename(away)
    again, good, _ = start(settings)
    assert (again.final, good) == (away / "film.bin", 0b11)
    again.close()


@pytest.mark.parametrize("name", ["x" * 300 + "/y", "y/" * 3000 + "x"])
def test_outputs_too_long_for_the_system_are_one_line(settings: Settings, name: str) -> None:
    with pytest.raises(EnvironmentFault):
        start(settings, output=settings.download_dir / name)


# --- after publishing ---------------------------------------------------------------


@pytest.mark.parametrize("manifest", [MANIFEST, FOLDER], ids=["file", "folder"])
def test_edited_result_is_not_served(settings: Settings, manifest: Manifest) -> None:
    workspace, _, _ = start(settings, manifest=manifest)
    fill(workspace)
    path = workspace.publish()
    source = workspace.source(path)
    view = memoryview(bytearray(CHUNK))
    try:
        source.read_into(1, 0, view)
        assert view == DATA[CHUNK : 2 * CHUNK]
        with (path / "a" if manifest is FOLDER else path).open("r+b") as file:
            file.write(b"edited")
        with pytest.raises(SourceChangedError):
            source.read_into(0, 0, view)
        assert not source.resident_read_into(0, 0, view)
        if manifest is FOLDER:
            source.read_into(5, 0, view)  # in another file
    finally:
        source.close()
        workspace.close()


def test_killed_while_removing_the_replaced_folder(settings: Settings) -> None:
    final = settings.download_dir / "film.bin"
    final.mkdir()
    (final / "old").write_bytes(b"replaced")
    first, _, _ = start(settings, manifest=FOLDER, overwrite=True, output=final)
    # An existing folder is a place to put things: overwrite what lies in it.
    first.close()
    target = first.final
    target.mkdir()
    (target / "old").write_bytes(b"replaced")
    fill_folder, _, _ = start(settings, manifest=FOLDER, overwrite=True, output=final)
    fill(fill_folder)
    part = fill_folder.part.path
    fill_folder.part.sync()
    fill_folder.close()
    rename_exchange(part, target)  # and here the process dies
    again, good, doubtful = start(settings, manifest=FOLDER, overwrite=True, output=final)
    assert (good, doubtful) == (ALL, 0)
    assert again.publish() == target
    again.close()
    assert sorted(os.listdir(target)) == ["a", "b"]
    assert not part.exists()


def test_killed_after_publishing_a_folder_to_the_output_asked_for(settings: Settings) -> None:
    """Its name is a folder now, and yet not a place to put another copy into."""
    final = settings.download_dir / "films"
    first, _, _ = start(settings, manifest=FOLDER, output=final)
    fill(first)
    part = first.part.path
    first.part.sync()
    first.close()
    part.rename(final)  # and here the process dies
    again, good, doubtful = start(settings, manifest=FOLDER, output=final)
    assert (again.final, good, doubtful) == (final, ALL, 0)
    assert again.publish() == final
    again.close()
    assert sorted(os.listdir(final)) == ["a", "b"]


def test_a_result_is_not_taken_back_where_not_every_chunk_was_recorded(settings: Settings) -> None:
    first, _, _ = start(settings)
    fill(first, ALL & ~0b1)
    first.part.write_chunk(0, DATA[:CHUNK])
    part = first.part.path
    first.close()
    final = settings.download_dir / "film.bin"
    part.rename(final)
    second, good, _ = start(settings)
    assert good == 0
    assert final.read_bytes() == DATA
    second.close()


def test_a_folder_with_the_inode_of_our_file_is_not_taken_for_it(settings: Settings) -> None:
    first, _, _ = start(settings)
    fill(first)
    final = settings.download_dir / "film.bin"
    final.mkdir()
    (final / "mine").write_bytes(b"precious")
    assert first.resume is not None
    first.resume.update_meta(part_inode=final.stat().st_ino)
    first.part.path.unlink()
    first.close()
    second, good, _ = start(settings)
    assert good == 0
    assert (final / "mine").read_bytes() == b"precious"
    second.close()


def test_a_result_that_was_moved_away_before_the_resume_data_went_is_fetched_again(
    settings: Settings, tmp_path: Path
) -> None:
    first, _, _ = start(settings)
    fill(first)
    first.part.path.rename(tmp_path / "mine now")
    first.close()
    second, good, _ = start(settings)
    assert good == 0
    assert "is gone" in second.notes[0]
    second.close()


def test_part_itself_is_never_removed(settings: Settings) -> None:
    """The final name holds a whole copy, and the part is one too."""
    first, _, _ = start(settings)
    fill(first)
    part = first.part.path
    first.close()
    (settings.download_dir / "film.bin").write_bytes(DATA)
    second, good, _ = start(settings)
    assert good == ALL
    assert second.part.path == part
    assert second.publish().name == "film_1.bin"
    second.close()
