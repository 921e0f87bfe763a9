"""Whatever is wrong: one line that says so, the right exit code, nothing broken."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path

import pytest

from furymesh.core.ids import FileId
from furymesh.storage.resume import ResumeData, ResumeMeta
from tests.e2e.conftest import CHUNK, SIZE, Seed
from tests.e2e.mesh import Mesh, same, write_blob
from tests.e2e.parts import resume_data

UNKNOWN = "ab" * 32


WRONG_LINKS = (
    "nonsense",
    "furymesh:12345",
    "furymesh:" + "g" * 64,
    f"furymesh:{UNKNOWN}?key=short",
    f"furymesh:{UNKNOWN}?peer=nowhere",
    f"http://{UNKNOWN}",
)
WRONG_USES: tuple[tuple[str, list[str], int], ...] = (
    ("get", [UNKNOWN, "--peer", "host"], 2),
    ("get", [UNKNOWN, "--timeout", "0"], 2),
    ("get", [UNKNOWN, "--max-download", "fast"], 2),
    ("get", [UNKNOWN, "--sha256", "12"], 2),
    ("get", [UNKNOWN, "--detach"], 3),
    ("get", ["abcdef12"], 1),
    ("get", [], 2),
    ("resume", ["--file-id", "12345678"], 1),
    ("resume", ["--file-id", "xyz"], 2),
    ("show-resume", ["--file-id", "12345678"], 1),
    ("clean-resume", [], 2),
    ("share", ["/no/such/file"], 1),
    ("share", ["/dev/null"], 2),
    ("share", [".", "--hash", "md5"], 2),
    ("share", [".", "--chunk-size", "12345"], 2),
    ("unshare", ["12345678"], 1),
    ("node", ["--listen", "127.0.0.1"], 2),
    ("node", ["--allow", "me"], 2),
    ("verify", ["/no/such/file", UNKNOWN[:8]], 1),
    ("nonsense", [], 2),
)


def test_wrong_links(mesh: Mesh) -> None:
    mesh.run("user", "get", WRONG_LINKS[0]).complaint(2)
    for link in WRONG_LINKS:
        mesh.call("user", "get", link).complaint(2)


def test_wrong_usage(mesh: Mesh) -> None:
    mesh.run("user", "nonsense").complaint(2)
    for command, arguments, code in WRONG_USES:
        mesh.call("user", command, *arguments).complaint(code)


def test_ambiguous_prefix(mesh: Mesh) -> None:
    resumes = mesh.home("user") / "resume"
    for last in (b"\1", b"\2"):
        file_id = FileId(b"\xaa" * 31 + last)
        meta = ResumeMeta(file_id, "a", str(mesh.root / "a"), str(mesh.root / "a.part"), 0.0)
        ResumeData.create(resumes, meta).close()
    for command in (["get", "aaaaaaaa"], ["resume", "--file-id", "aaaaaaaa"]):
        assert "give more digits" in mesh.call("user", *command).complaint(2)


def test_no_peer_reachable(mesh: Mesh) -> None:
    alone = mesh.start_get("alone", UNKNOWN, "--timeout", "1")
    begun = time.monotonic()
    peers = ["127.0.0.1:1", "127.0.0.1:2"]
    done = mesh.start_get("user", UNKNOWN, "--timeout", "2", peers=peers).done()
    assert 2.0 <= time.monotonic() - begun < 10.0
    assert done.code == 3
    assert done.last["event"] == "failed"
    assert done.last["code"] == 3
    line = done.err.splitlines()[-1]
    for peer in peers:
        assert f"{peer} (" in line
    assert "refused" in line
    assert "--peer" in alone.done().complaint(3)


def test_peers_gone_in_the_middle(mesh: Mesh, seed: Seed) -> None:
    mesh.share("origin", seed.source, chunk_size=CHUNK)
    node = mesh.node("origin", "--max-upload", "2M")
    user = mesh.start_get("user", seed.link, "--timeout", "1", peers=[node.address])
    user.expect("progress", lambda event: event["bytes_done"] > SIZE // 4)
    node.process.kill()
    done = user.done()
    assert done.code == 3
    assert "furymesh resume --file-id" in done.err.splitlines()[-1]
    kept = resume_data(mesh.home("user")).chunks_done
    complete = mesh.get("user", seed.link, peers=[seed.address])
    assert same(Path(complete["path"]), seed.source)
    assert complete["bytes_reused"] >= (kept - 1) * CHUNK


def test_missing_output_directory(mesh: Mesh, seed: Seed) -> None:
    output = mesh.root / "missing" / "film.bin"
    user = mesh.start_get("user", seed.link, "--output", output, peers=[seed.address])
    assert "create it" in user.done().complaint(1)


def test_file_where_a_directory_should_be(mesh: Mesh, seed: Seed) -> None:
    (mesh.root / "plain").write_text("")
    output = mesh.root / "plain" / "film.bin"
    user = mesh.start_get("user", seed.link, "--output", output, peers=[seed.address])
    user.done().complaint(1)


def test_read_only_output_directory(mesh: Mesh, seed: Seed, small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    user = mesh.start_get("user", seed.link, "--output", small_disk, peers=[seed.address])
    assert str(small_disk) in user.done().complaint(1)


def test_data_directory_that_cannot_be_written(mesh: Mesh, small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    source = write_blob(mesh.root / "a.bin", 10)
    blocked = mesh.root / "blocked"
    blocked.write_text("a file")
    mesh.run("user", "node", "--data-dir", blocked).complaint(1)
    for place in (small_disk / "home", blocked):
        for command in (["share", source], ["id"], ["node"], ["get", UNKNOWN]):
            mesh.call("user", *command, "--data-dir", place).complaint(1)


def test_bad_configuration(mesh: Mesh) -> None:
    texts = {
        "transfer: {resume_enabeld: true}\n": "resume_enabeld",
        "transfer: [1, 2]\n": "transfer",
        "node: {listen: nowhere}\n": "listen",
        "a: b: c\n": "line",
    }
    mesh.run("user", "list", "--config", "missing.yaml").complaint(2)
    for text, named in texts.items():
        config = mesh.root / "bad.yaml"
        config.write_text(text)
        assert named in mesh.call("user", "list", "--config", config).complaint(2)


def test_disk_without_room_is_told_before_anything_is_fetched(
    mesh: Mesh, seed: Seed, small_disk: Path
) -> None:
    home = mesh.home("user", "storage: {reserve: 6MiB}\n")
    user = mesh.start_get(home, seed.link, "--output", small_disk, peers=[seed.address])
    line = user.done().complaint(1)
    assert "free" in line
    assert "reserve" in line


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupt_keeps_progress_and_says_how_to_go_on(
    mesh: Mesh, seed: Seed, number: signal.Signals
) -> None:
    user = mesh.start_get("user", seed.link, "--max-download", "1M", peers=[seed.address])
    user.expect("progress", lambda event: event["chunks_done"] > 10)
    begun = time.monotonic()
    user.signal(number)
    done = user.done()
    assert time.monotonic() - begun < 2.0
    assert done.code == 130
    assert done.last["event"] == "failed"
    assert done.last["code"] == 130
    hint = done.err.splitlines()[-1]
    assert f"furymesh resume --file-id {seed.file_id[:16]}" in hint
    kept = resume_data(mesh.home("user")).chunks_done
    complete = mesh.resume("user", seed.file_id[:16])
    assert same(Path(complete["path"]), seed.source)
    assert complete["bytes_reused"] >= (kept - 1) * CHUNK


def test_seed_outlives_an_interrupted_downloader(mesh: Mesh, seed: Seed) -> None:
    """It is told of the end in the middle of sending."""
    link = mesh.share("origin", seed.source, chunk_size=1024 * 1024).link.text
    node = mesh.node("origin", "--max-upload", "1M")
    user = mesh.start_get("user", link, peers=[node.address])
    user.expect("progress", lambda event: event["peers"] == 1)
    user.signal(signal.SIGINT)
    assert user.done().code == 130
    assert node.process.stop().code == 0
