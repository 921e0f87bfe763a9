"""The last step: the right name, the right tree, never half of it."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from tests.e2e.conftest import CHUNK, Seed
from tests.e2e.mesh import Mesh, same, write_blob


def tree(root: Path) -> dict[str, tuple[str, bytes]]:
    """Every entry below `root`: what it is, and its bytes."""
    found: dict[str, tuple[str, bytes]] = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if path.is_dir():
            found[name] = ("directory", b"")
        else:
            runnable = path.stat().st_mode & stat.S_IXUSR
            found[name] = ("executable" if runnable else "file", path.read_bytes())
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "Größe & sönst"
    (root / "deep" / "er" / "est").mkdir(parents=True)
    (root / "empty dir").mkdir()
    (root / "deep" / "nothing here").mkdir()
    write_blob(root / "deep" / "er" / "est" / "data.bin", 5 * CHUNK + 3, seed=4)
    write_blob(root / "日本語.txt", 100, seed=5)
    (root / "empty").write_bytes(b"")
    (root / "deep" / "run.sh").write_text("#!/bin/sh\n")
    (root / "deep" / "run.sh").chmod(0o755)
    write_blob(root / "🚀", CHUNK, seed=6)
    return root


@pytest.mark.parametrize("encrypt", [False, True], ids=["plain", "encrypted"])
def test_folder_arrives_as_it_was(mesh: Mesh, folder: Path, encrypt: bool) -> None:
    link = mesh.share("origin", folder, chunk_size=CHUNK, encrypt=encrypt).link.text
    node = mesh.node("origin")
    complete = mesh.get("user", link, peers=[node.address])
    assert complete["path"] == str(mesh.files("user") / folder.name)
    assert tree(Path(complete["path"])) == tree(folder)
    assert complete["size"] == sum(len(data) for _, data in tree(folder).values())

    again = mesh.get("user", link, peers=[node.address])
    assert again["path"] == complete["path"] + "_1"
    (Path(complete["path"]) / "stray").write_text("of an older version")
    replaced = mesh.get("user", link, "--overwrite", peers=[node.address])
    assert replaced["path"] == complete["path"]
    assert tree(Path(complete["path"])) == tree(folder)
    assert sorted(os.listdir(mesh.files("user"))) == [folder.name, folder.name + "_1"]


def test_sizes_around_chunk_boundaries(mesh: Mesh) -> None:
    sizes = (0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK - 1, 3 * CHUNK, 3 * CHUNK + 1)
    sources = [write_blob(mesh.root / f"{size}.bin", size, seed=size + 10) for size in sizes]
    sources[1].chmod(0o755)
    done = mesh.call("origin", "share", *sources, "--chunk-size", CHUNK, "--json")
    assert done.code == 0, done.err
    node = mesh.node("origin")
    home = mesh.home("user")
    taker = mesh.node(home)
    for shared in done.events:
        order = ("get", shared["link"], "--detach", "--peer", node.address)
        assert mesh.call(home, *order).code == 0
    for source, shared in zip(sources, done.events, strict=True):
        taker.process.expect_err(f"finished {mesh.files(home) / source.name}\n")
        assert same(mesh.files(home) / source.name, source)
        assert shared["chunks"] == -(-source.stat().st_size // CHUNK)
    assert (mesh.files(home) / "1.bin").stat().st_mode & stat.S_IXUSR
    assert not (mesh.files(home) / "0.bin").stat().st_mode & stat.S_IXUSR


def test_empty_things_can_be_downloaded_by_get(mesh: Mesh) -> None:
    (mesh.root / "nothing").mkdir()
    (mesh.root / "void").write_bytes(b"")
    shares = [mesh.share("origin", mesh.root / name) for name in ("nothing", "void")]
    node = mesh.node("origin")
    for shared in shares:
        complete = mesh.get("user", shared.link.text, peers=[node.address])
        assert complete["size"] == complete["bytes_fetched"] == 0
    assert tree(mesh.files("user")) == {"nothing": ("directory", b""), "void": ("file", b"")}


def test_taken_names_get_a_number(mesh: Mesh, seed: Seed) -> None:
    taken = mesh.files("user") / "film.bin"
    taken.write_text("mine")
    complete = mesh.get("user", seed.link, peers=[seed.address])
    assert complete["path"] == str(mesh.files("user") / "film_1.bin")
    assert taken.read_text() == "mine"
    replaced = mesh.get("user", seed.link, "--overwrite", peers=[seed.address])
    assert replaced["path"] == str(taken)
    assert same(taken, seed.source)


def test_output_that_is_a_directory_takes_the_file_in(mesh: Mesh, seed: Seed) -> None:
    (mesh.files("user") / "film.bin").mkdir()
    complete = mesh.get("user", seed.link, "--output", "film.bin", peers=[seed.address])
    assert complete["path"] == str(mesh.files("user") / "film.bin" / "film.bin")


def test_file_does_not_replace_a_directory(mesh: Mesh, seed: Seed) -> None:
    in_the_way = mesh.files("user") / "dir" / "film.bin"
    in_the_way.mkdir(parents=True)
    options = ["--overwrite", "--output", "dir"]
    line = mesh.start_get("user", seed.link, *options, peers=[seed.address]).done().complaint(1)
    assert "film.bin" in line
    assert in_the_way.is_dir()
    complete = mesh.get("user", seed.link, "--output", "dir", peers=[seed.address])
    assert complete["path"] == str(mesh.files("user") / "dir" / "film_1.bin")
    assert complete["bytes_fetched"] == 0


def test_sha256_of_the_whole_file(mesh: Mesh, seed: Seed) -> None:
    wrong = "0" * 64
    process = mesh.start_get("user", seed.link, "--sha256", wrong, peers=[seed.address])
    line = process.done().complaint(4)
    assert "SHA-256" in line
    assert not (mesh.files("user") / "film.bin").exists()


def test_verify_names_the_bad_chunks(mesh: Mesh, seed: Seed) -> None:
    complete = mesh.get("user", seed.link, peers=[seed.address])
    path = Path(complete["path"])
    assert mesh.run("user", "verify", path, seed.file_id).code == 0
    with path.open("r+b") as file:
        file.seek(3 * CHUNK + 1)
        file.write(b"?!?!")
    done = mesh.call("user", "verify", path, seed.file_id, "--json")
    assert done.code == 4
    assert done.events[0]["bad"] == [3]


# --- encrypted shares -----------------------------------------------------------------


def test_wrong_key_is_told_at_once(mesh: Mesh, seed: Seed) -> None:
    link, _, key = str(seed.sealed["link"]).partition("key=")
    wrong = f"{link}key={'B' if key[0] == 'A' else 'A'}{key[1:]}"
    line = mesh.call("user", "get", wrong, "--peer", seed.address).complaint(4)
    assert "key" in line
    assert wrong.partition("key=")[2] not in line
    assert not os.listdir(mesh.files("user"))


def test_without_the_key_the_ciphertext_is_kept_and_passed_on(mesh: Mesh, seed: Seed) -> None:
    link = str(seed.sealed["link"])
    keyless = link.partition("&key=")[0].partition("?key=")[0]
    mirror = mesh.start_get("mirror", keyless, "--seed", peers=[seed.address])
    kept = mirror.expect("complete")
    assert kept["sealed"] is True
    assert kept["path"].endswith(".sealed")
    mirror.expect_err("ciphertext")
    assert seed.source.read_bytes()[:64] not in Path(kept["path"]).read_bytes()
    assert mirror.stop().code == 0
    node = mesh.node("mirror")
    complete = mesh.get("reader", link, peers=[node.address])
    assert [peer["node_id"] for peer in complete["peers"]] == [node.node_id]
    assert same(Path(complete["path"]), seed.source)


def test_names_of_an_encrypted_share_are_not_told(mesh: Mesh, seed: Seed) -> None:
    keyless = str(seed.sealed["file_id"])
    complete = mesh.get("user", keyless, peers=[seed.address])
    assert "film" not in complete["path"]
