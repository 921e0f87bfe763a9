"""Taking up a download: by itself, from the id alone, after damage, elsewhere."""

from __future__ import annotations

import os
import stat
import time
from pathlib import Path

import pytest

from furymesh.core.bitfield import mask_of
from furymesh.core.geometry import Geometry
from furymesh.core.ids import parse_file_id
from tests.e2e.conftest import CHUNK, CHUNKS, SIZE, Seed
from tests.e2e.mesh import Event, Mesh, finished, same
from tests.e2e.parts import keep_part, resume_data


@pytest.fixture
def half(mesh: Mesh, seed: Seed) -> int:
    """An unfinished download of the seed's file; the bytes it has recorded."""
    home = mesh.home("user")
    keep_part(
        home,
        parse_file_id(seed.file_id),
        manifests=seed.node.home,
        source=seed.source,
        output=mesh.files(home) / "film.bin",
        chunks=mask_of(range(0, CHUNKS, 2)),
        peers=(seed.address,),
    )
    return CHUNKS // 2 * CHUNK


def interrupt(mesh: Mesh, seed: Seed, link: str) -> int:
    """Kill a download by "user" in the middle; the bytes that were recorded."""
    process = mesh.start_get("user", link, "--max-download", "3M", peers=[seed.address])
    process.expect("progress", lambda event: event["bytes_done"] > SIZE // 4)
    process.kill()
    summary = resume_data(mesh.home("user"))
    assert summary.meta.size is not None
    return Geometry(summary.meta.size, CHUNK).bytes_in(summary.have)


def part_of(mesh: Mesh) -> Path:
    (part,) = mesh.files("user").glob("*.part")
    return part


def check_whole(complete: Event, seed: Seed) -> None:
    assert complete["bytes_reused"] + complete["bytes_fetched"] == complete["size"]
    assert same(Path(complete["path"]), seed.source)


def test_get_again_resumes_by_itself(mesh: Mesh, seed: Seed, half: int) -> None:
    complete = mesh.get("user", seed.link, peers=[seed.address])
    check_whole(complete, seed)
    assert complete["bytes_reused"] == half
    assert os.listdir(mesh.files("user")) == ["film.bin"]
    assert not list((mesh.home("user") / "resume").iterdir())


def test_output_reads_as_documented(mesh: Mesh, seed: Seed, half: int) -> None:
    listed = mesh.run("user", "list-resume", "--json")
    (item,) = listed.events[0]
    assert item["file_id"] == seed.file_id
    assert item["size"] == SIZE
    done = mesh.run("user", "resume", "--file-id", seed.file_id)
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    chunks = item["chunks_done"]
    assert lines[0] == f"Resuming transfer for file {seed.file_id}..."
    percent = 100 * chunks // item["chunks_total"]
    assert lines[1] == (
        f"Found resume data: {chunks}/{item['chunks_total']} chunks already downloaded ({percent}%)"
    )
    assert lines[2] == f"Requesting remaining {item['chunks_total'] - chunks} chunks..."
    assert lines[-3:-1] == [
        "Progress: [====================] 100% Complete",
        f"File saved to {mesh.files('user') / 'film.bin'}",
    ]


def test_resume_with_other_peers_and_another_output(mesh: Mesh, seed: Seed, half: int) -> None:
    mesh.share("other", seed.source, chunk_size=CHUNK)
    other = mesh.node("other")
    elsewhere = mesh.root / "elsewhere"
    elsewhere.mkdir()
    complete = mesh.resume(
        "user",
        seed.file_id[:8],
        *("--output", elsewhere / "renamed.bin", "--peer-id", other.node_id),
        peers=[other.address],
    )
    check_whole(complete, seed)
    assert complete["bytes_reused"] == half
    assert complete["path"] == str(elsewhere / "renamed.bin")
    assert [peer["node_id"] for peer in complete["peers"]] == [other.node_id]
    assert not os.listdir(mesh.files("user"))


def test_missing_resume_data_costs_hashing_only(mesh: Mesh, seed: Seed, half: int) -> None:
    resume_data(mesh.home("user")).path.unlink()
    complete = mesh.get("user", seed.link, peers=[seed.address])
    check_whole(complete, seed)
    assert complete["bytes_reused"] >= half


@pytest.mark.parametrize("place", ["head", "middle", "tail", "cut", "empty"])
def test_damaged_resume_data_costs_hashing_only(
    mesh: Mesh, seed: Seed, half: int, place: str
) -> None:
    path = resume_data(mesh.home("user")).path
    raw = bytearray(path.read_bytes())
    match place:
        case "head":
            raw[3] ^= 0x10
        case "middle":
            raw[len(raw) // 2] ^= 0x01
        case "tail":
            raw[-5] ^= 0x80
        case "cut":
            del raw[len(raw) // 4 :]
        case _:
            raw.clear()
    path.write_bytes(raw)
    complete = mesh.get("user", seed.link, peers=[seed.address])
    check_whole(complete, seed)
    assert complete["bytes_reused"] >= half


def test_damaged_resume_data_is_named(mesh: Mesh, seed: Seed, half: int) -> None:
    path = resume_data(mesh.home("user")).path
    path.write_bytes(b"rubbish")
    assert "furymesh get" in mesh.call("user", "resume", "--file-id", seed.file_id).complaint(1)
    assert mesh.call("user", "list-resume").code == 0
    assert mesh.call("user", "clean-resume", "--all", "--yes").code == 0
    assert not path.exists()


def test_cut_part_is_hashed_and_completed(mesh: Mesh, seed: Seed, half: int) -> None:
    part = part_of(mesh)
    os.truncate(part, SIZE // 2)
    complete = mesh.get("user", seed.link, peers=[seed.address])
    check_whole(complete, seed)
    assert complete["bytes_reused"] > 0


def test_deleted_part_starts_from_the_beginning(mesh: Mesh, seed: Seed, half: int) -> None:
    part_of(mesh).unlink()
    process = mesh.start_get("user", seed.link, peers=[seed.address])
    complete = finished(process)
    check_whole(complete, seed)
    assert complete["bytes_fetched"] == SIZE
    assert "is gone" in process.err


def test_tampered_part_is_repaired_before_it_gets_its_name(
    mesh: Mesh, seed: Seed, half: int
) -> None:
    summary = resume_data(mesh.home("user"))
    chunk = (summary.have & -summary.have).bit_length() - 1
    with part_of(mesh).open("r+b") as part:
        part.seek(chunk * CHUNK + 7)
        part.write(b"tampered")
    process = mesh.start_resume("user", seed.file_id)
    complete = finished(process)
    assert same(Path(complete["path"]), seed.source)
    assert "1 chunk on disk changed" in process.err
    assert complete["bytes_fetched"] == SIZE - half + CHUNK


def test_tampering_under_a_running_download_is_repaired(mesh: Mesh, seed: Seed) -> None:
    process = mesh.start_get("user", seed.link, "--max-download", "3M", peers=[seed.address])
    process.expect("progress", lambda event: event["bytes_done"] > SIZE // 4)
    summary = resume_data(mesh.home("user"))
    chunk = (summary.have & -summary.have).bit_length() - 1
    with part_of(mesh).open("r+b") as part:
        part.seek(chunk * CHUNK)
        part.write(b"tampered")
    assert same(Path(finished(process)["path"]), seed.source)


def test_encrypted_share_keeps_its_key_to_itself(mesh: Mesh, seed: Seed) -> None:
    link = str(seed.sealed["link"])
    half = interrupt(mesh, seed, link)
    key = link.partition("key=")[2]
    summary = resume_data(mesh.home("user"))
    assert summary.meta.key is not None
    for path in (mesh.home("user") / "resume").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE((mesh.home("user") / "resume").stat().st_mode) == 0o700
    shown = mesh.call("user", "show-resume", "--file-id", seed.sealed["file_id"])
    assert shown.code == 0
    assert key not in shown.out + shown.err
    process = mesh.start_resume("user", str(seed.sealed["file_id"]))
    complete = finished(process)
    assert same(Path(complete["path"]), seed.source)
    assert complete["bytes_reused"] == half
    assert key not in process.out + process.err


def test_without_resume_data_by_choice(mesh: Mesh, seed: Seed) -> None:
    home = mesh.home("user", "transfer: {resume_enabled: false}\n")
    process = mesh.start_get(home, seed.link, "--max-download", "3M", peers=[seed.address])
    process.expect("progress", lambda event: event["bytes_done"] > SIZE // 4)
    process.kill()
    assert mesh.run(home, "list-resume", "--json").events == [[]]
    complete = mesh.get(home, seed.link, peers=[seed.address])
    check_whole(complete, seed)
    assert complete["bytes_reused"] >= SIZE // 4  # the part is there, and is hashed


def test_second_process_on_a_download_names_the_first(mesh: Mesh, seed: Seed) -> None:
    first = mesh.start_get("user", seed.link, "--max-download", "300K", peers=[seed.address])
    first.expect("started")
    begun = time.monotonic()
    second = mesh.run("user", "get", seed.link, "--peer", seed.address)
    took = time.monotonic() - begun
    assert str(first.pid) in second.complaint(5)
    alone = time.monotonic()
    mesh.run("user", "id")
    # At once, apart from what it takes to start a process.
    assert took < 3.0 + (time.monotonic() - alone)
    assert mesh.run("user", "clean-resume", "--all", "--yes").complaint(5)
    first.kill()
    # A dead holder holds nobody up.
    assert same(Path(mesh.resume("user", seed.file_id)["path"]), seed.source)


def test_clean_resume_removes_the_part_too(mesh: Mesh, seed: Seed, half: int) -> None:
    done = mesh.run("user", "clean-resume", "--file-id", seed.file_id[:8])
    assert done.code == 0
    assert not os.listdir(mesh.files("user"))
    assert not list((mesh.home("user") / "resume").iterdir())
    assert mesh.call("user", "resume", "--file-id", seed.file_id).complaint(1)
