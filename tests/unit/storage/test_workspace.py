from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from furymesh.core.bitfield import chunks_of
from furymesh.core.errors import (
    AlreadyRunningError,
    DiskFullError,
    EnvironmentFault,
    VerificationError,
    WrongKeyError,
)
from furymesh.core.ids import NodeId, node_id_text
from furymesh.core.link import Mirror, Tracker
from furymesh.core.manifest import Manifest
from furymesh.core.sealing import Sealer
from furymesh.storage import resume
from furymesh.storage.order import Order, Settings
from furymesh.storage.part_names import part_path
from furymesh.storage.placing import SEALED_SUFFIX
from furymesh.storage.resume import ResumeData, Summary, list_all, resume_path
from furymesh.storage.workspace import Workspace
from tests.unit.swarm.lab import CHUNK, blob, manifest_of

DATA = blob(8)
MANIFEST = manifest_of(DATA)
GEOMETRY = MANIFEST.header.geometry
PEERS = ("192.0.2.1:7000",)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    place = tmp_path / "files"
    place.mkdir()
    return Settings(tmp_path / "data", tmp_path / "resume", place)


def order(**changes: object) -> Order:
    return replace(Order(MANIFEST.file_id, name="film.bin"), **changes)  # type: ignore[arg-type]


def opened(settings: Settings, what: Order | None = None) -> tuple[Workspace, int, int]:
    """A workspace in which chunks may be written, with the masks it found."""
    workspace = Workspace(what or order(), settings)
    workspace.lock()
    workspace.recall()
    workspace.remember_header(MANIFEST)
    try:
        good, doubtful = workspace.open("a hint", PEERS)
    except BaseException:
        workspace.close()
        raise
    return workspace, good, doubtful


def write(workspace: Workspace, chunks: int) -> None:
    for chunk in chunks_of(chunks):
        at = chunk * CHUNK
        workspace.part.write_chunk(chunk, memoryview(DATA[at : at + CHUNK]))
        if workspace.resume is not None:
            workspace.resume.add(chunk)


def test_what_was_written_is_there_next_time(settings: Settings) -> None:
    first, good, doubtful = opened(settings)
    assert (good, doubtful) == (0, 0)
    write(first, 0b1011)
    first.close()
    second, good, doubtful = opened(settings)
    assert (good, doubtful) == (0b1011, 0)
    assert second.known_peers == PEERS
    second.close()


def test_what_the_link_names_is_kept_until_another_names_others(settings: Settings) -> None:
    one, two = (
        replace(
            order(),
            trackers=(Tracker.parse(f"udp://192.0.2.{number}:6969"),),
            nodes=(NodeId(bytes([number]) * 32),),
        )
        for number in (1, 2)
    )
    for asked, kept in ((order(), order()), (one, one), (order(), one), (two, two)):
        workspace, _, _ = opened(settings, asked)
        workspace.close()
        data = ResumeData.load(settings.resume_dir, MANIFEST.file_id)
        assert data.meta.trackers == tuple(map(str, kept.trackers))
        assert data.meta.nodes == tuple(map(node_id_text, kept.nodes))
        data.close()


def test_mirrors_are_kept_and_whose_they_are(settings: Settings) -> None:
    mine, other = Mirror.parse("http://192.168.0.1/f"), Mirror.parse("https://m.example/f")
    for named, own, kept in (
        ((), (mine,), {mine: True}),
        ((other,), (), {other: False, mine: True}),
        ((mine,), (), {mine: True, other: False}),
        ((), (other,), {other: True, mine: True}),
    ):
        workspace, _, _ = opened(settings, order(mirrors=named, own_mirrors=own))
        assert workspace.mirrors == kept
        workspace.close()
    data = ResumeData.load(settings.resume_dir, MANIFEST.file_id)
    data.update_meta(mirrors=("ftp://x", "https://m.example/f"), own_mirrors=("",) * 9)
    data.close()
    workspace, _, _ = opened(settings)
    assert workspace.mirrors == {other: False}, "what cannot be read is as good as absent"
    workspace.close()


def test_publishing_leaves_the_file_and_nothing_else(settings: Settings) -> None:
    workspace, _, _ = opened(settings)
    write(workspace, GEOMETRY.all_chunks)
    assert workspace.publish().read_bytes() == DATA
    workspace.close()
    assert os.listdir(settings.download_dir) == ["film.bin"]
    assert os.listdir(settings.resume_dir) == []


def test_a_part_that_something_replaced_gets_no_name(settings: Settings) -> None:
    workspace, _, _ = opened(settings)
    write(workspace, GEOMETRY.all_chunks)
    part = workspace.part.path
    part.rename(f"{part}.old")
    part.write_bytes(bytes(len(DATA)))
    with pytest.raises(VerificationError, match="run this again"):
        workspace.publish()
    workspace.close()
    assert not workspace.final.exists()


def test_killed_after_the_rename_is_taken_back(settings: Settings) -> None:
    """The name is given, and the process dies before the resume data is deleted."""
    first, _, _ = opened(settings)
    write(first, GEOMETRY.all_chunks)
    first.part.sync()
    for page in range(MANIFEST.header.page_count):
        first.remember_page(page)
    first.close()
    part = part_path(settings.download_dir / "film.bin", MANIFEST.file_id)
    part.rename(settings.download_dir / "film.bin")
    second, good, _ = opened(settings)
    assert good == GEOMETRY.all_chunks
    assert second.publish() == settings.download_dir / "film.bin"
    second.close()


def test_without_resume_data_the_part_is_hashed(settings: Settings) -> None:
    first, _, _ = opened(settings)
    write(first, 0b11)
    first.close()
    resume_path(settings.resume_dir, MANIFEST.file_id).unlink()
    second, good, doubtful = opened(settings)
    assert (good, doubtful) == (0, GEOMETRY.all_chunks)
    second.settle(0b11, doubtful & ~0b11)
    second.close()
    third, good, _ = opened(settings)
    assert good == 0b11
    third.close()


def test_resume_data_that_is_a_link_is_replaced_and_the_part_hashed(settings: Settings) -> None:
    first, _, _ = opened(settings)
    write(first, 0b0110)
    first.close()
    path = resume_path(settings.resume_dir, MANIFEST.file_id)
    other = path.rename(settings.data_dir / "other")
    raw = other.read_bytes()
    path.symlink_to(other)
    second, good, doubtful = opened(settings)
    assert (good, doubtful) == (0, GEOMETRY.all_chunks)
    second.close()
    assert not path.is_symlink()
    assert other.read_bytes() == raw


def test_lost_part_is_told(settings: Settings) -> None:
    first, _, _ = opened(settings)
    write(first, 0b11)
    part = first.part.path
    first.close()
    part.unlink()
    second, good, doubtful = opened(settings)
    assert (good, doubtful) == (0, 0)
    assert "is gone" in second.notes[0]
    second.close()


def test_other_output_takes_the_part_along(settings: Settings, tmp_path: Path) -> None:
    first, _, _ = opened(settings)
    write(first, 0b1)
    first.close()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    second, good, _ = opened(settings, order(output=elsewhere / "renamed"))
    assert good == 0b1
    assert second.part.path.parent == elsewhere
    assert os.listdir(settings.download_dir) == []
    second.close()
    # From then on that is where it belongs.
    third, good, _ = opened(settings)
    assert (good, third.final) == (0b1, elsewhere / "renamed")
    third.close()


def test_resume_data_can_be_switched_off(settings: Settings) -> None:
    workspace, _, _ = opened(replace(settings, resume_enabled=False))
    write(workspace, 0b1)
    workspace.note_peers(PEERS)
    workspace.close()
    assert list_all(settings.resume_dir) == []


def test_name_is_the_orders_then_the_peers(settings: Settings) -> None:
    workspace, _, _ = opened(settings, order(name=None))
    assert workspace.final.name == "a hint"
    workspace.close()


def test_one_at_a_time(settings: Settings) -> None:
    first, _, _ = opened(settings)
    with pytest.raises(AlreadyRunningError, match=str(os.getpid())):
        Workspace(order(), settings).lock()
    first.close()
    opened(settings)[0].close()


def test_missing_directory_is_told(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFault, match="create it"):
        opened(settings, order(output=tmp_path / "missing" / "film"))


def test_full_disk_is_told_before_anything_is_fetched(settings: Settings) -> None:
    with pytest.raises(DiskFullError, match="reserve"):
        opened(replace(settings, reserve=2**62))
    assert os.listdir(settings.download_dir) == []


def test_told_not_to_look_it_starts_and_still_leaves_the_reserve(settings: Settings) -> None:
    begun, _, _ = opened(replace(settings, reserve=2**62, check_space=False))
    with pytest.raises(DiskFullError, match=r"free, and .* are kept in reserve"):
        write(begun, 1)
    begun.close()


def test_forged_resume_data_moves_nothing_that_is_not_ours(
    settings: Settings, tmp_path: Path
) -> None:
    first, _, _ = opened(settings)
    assert first.resume is not None
    precious = tmp_path / "precious"
    precious.write_text("mine")
    first.resume.update_meta(part=str(precious))
    first.part.path.unlink()  # or the one that is there would be taken whatever is claimed
    first.close()
    second, _, _ = opened(settings)
    second.close()
    assert precious.read_text() == "mine"


# --- encrypted shares -----------------------------------------------------------------

KEY = bytes(range(32))


def sealed_manifest() -> Manifest:
    from furymesh.core.geometry import Geometry
    from furymesh.core.hashing import HashAlgorithm
    from furymesh.core.sealing import cipher_size

    sealer = Sealer(KEY)
    size = cipher_size(len(DATA), CHUNK)
    count = -(-size // CHUNK)
    plain = CHUNK - 28
    digests = b"".join(
        HashAlgorithm.BLAKE3.digest(sealer.seal(n, DATA[n * plain : (n + 1) * plain]))
        for n in range(count)
    )
    return Manifest.build(HashAlgorithm.BLAKE3, Geometry(size, CHUNK), digests, sealer=sealer)


@pytest.mark.parametrize("key", [None, KEY], ids=["without key", "with key"])
def test_sealed_share(settings: Settings, key: bytes | None) -> None:
    manifest = sealed_manifest()
    workspace = Workspace(Order(manifest.file_id, "film.bin", key=key), settings)
    workspace.lock()
    workspace.recall()
    workspace.remember_header(manifest)
    workspace.open("", ())
    assert workspace.sealed is (key is None)
    assert workspace.final.name.endswith(SEALED_SUFFIX) is (key is None)
    workspace.close()
    (summary,) = list_all(settings.resume_dir)
    assert isinstance(summary, Summary)
    assert summary.meta.key == key


def test_sealed_share_killed_after_the_rename_is_taken_back(settings: Settings) -> None:
    manifest = sealed_manifest()
    geometry = manifest.header.geometry

    def start() -> tuple[Workspace, int]:
        workspace = Workspace(Order(manifest.file_id, "film.bin", key=KEY), settings)
        workspace.lock()
        workspace.recall()
        workspace.remember_header(manifest)
        for page in range(manifest.header.page_count):
            workspace.remember_page(page)
        good, _ = workspace.open("", ())
        return workspace, good

    first, _ = start()
    assert first.resume is not None
    plain = CHUNK - 28
    for chunk in chunks_of(geometry.all_chunks):
        sealed = Sealer(KEY).seal(chunk, DATA[chunk * plain : (chunk + 1) * plain])
        first.part.write_chunk(chunk, memoryview(sealed))
        first.resume.add(chunk)
    first.part.sync()
    part = first.part.path
    first.close()
    part.rename(settings.download_dir / "film.bin")
    second, good = start()
    assert good == geometry.all_chunks
    assert second.publish().read_bytes() == DATA
    second.close()


def test_wrong_key_is_told_before_anything_is_written(settings: Settings) -> None:
    manifest = sealed_manifest()
    workspace = Workspace(Order(manifest.file_id, "film.bin", key=bytes(32)), settings)
    workspace.lock()
    workspace.recall()
    workspace.remember_header(manifest)
    with pytest.raises(WrongKeyError):
        workspace.open("", ())
    workspace.close()
    assert os.listdir(settings.download_dir) == []


def test_power_cut_right_after_the_rename_is_taken_back(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The proof that the result is ours was on the disk before it got its name."""
    monkeypatch.setattr(resume, "current_boot_id", lambda: b"\1" * 16)
    first, _, _ = opened(settings)
    write(first, GEOMETRY.all_chunks)
    for page in range(MANIFEST.header.page_count):
        first.remember_page(page)
    synced: list[int] = []
    sync = os.fdatasync

    def fdatasync(fd: int) -> None:
        sync(fd)
        synced.append(os.fstat(fd).st_ino)

    class PowerCutError(Exception):
        pass

    def power_cut(self: ResumeData) -> None:
        raise PowerCutError

    monkeypatch.setattr(os, "fdatasync", fdatasync)
    monkeypatch.setattr(ResumeData, "delete", power_cut)
    with pytest.raises(PowerCutError):
        first.publish()
    first.close()
    (manifest,) = (settings.data_dir / "manifests").iterdir()
    assert manifest.stat().st_ino in synced
    monkeypatch.undo()
    monkeypatch.setattr(resume, "current_boot_id", lambda: b"\2" * 16)
    second, good, _ = opened(settings)
    assert good == GEOMETRY.all_chunks
    assert second.publish() == settings.download_dir / "film.bin"
    second.close()
