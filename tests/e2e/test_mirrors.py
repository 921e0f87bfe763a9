"""Mirrors through the command line, with the web server that people have."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.mesh import Mesh, RunningNode, same, write_blob
from tests.sftp.servers import KINDS as SFTP_KINDS
from tests.sftp.servers import Server
from tests.sftp.servers import serving as sftp_serving
from tests.waiting import block_until
from tests.web import KINDS, WebServer, web_server

SIZE = 3_000_000
FOLDER = (
    "the file seems to be a folder, which web servers do not list for programs:"
    " share a copy of it, with --mirror"
)


@pytest.fixture(params=KINDS[:1])
def web(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[WebServer]:
    """A web server with a file and a folder, nginx if there is one."""
    site = tmp_path / "site"
    (site / "photos" / "a b").mkdir(parents=True)
    write_blob(site / "film.bin", SIZE)
    write_blob(site / "photos" / "a b" / "ü.jpg", 700_000, seed=1)
    write_blob(site / "photos" / "empty", 0)
    write_blob(site / "photos" / "z.jpg", 50_000, seed=2)
    with web_server(site, tmp_path / "web", kind=request.param) as server:
        yield server


def shared(mesh: Mesh, name: str, *arguments: object) -> tuple[str, RunningNode]:
    """Share something, and start the node that has it; its link."""
    done = mesh.run(name, "share", "--json", *arguments)
    assert done.code == 0, done.err
    return str(done.last["link"]), mesh.node(name)


@pytest.mark.parametrize("web", KINDS, indirect=True)
def test_a_file_on_a_server_becomes_a_swarm(mesh: Mesh, web: WebServer, tmp_path: Path) -> None:
    url = web.url("film.bin")
    told = mesh.run("ann", "share", url, "--json")
    assert told.code == 0, told.err
    record = told.last
    assert (record["name"], record["size"], record["path"]) == ("film.bin", SIZE, url)
    assert f"&mirror=http://127.0.0.1:{web.port}/film.bin" in record["link"]
    assert web.sent <= SIZE + 2, "it is read once, and looked at before and after"
    assert url in mesh.call("ann", "list").out
    node = mesh.node("ann")
    before = web.sent
    complete = mesh.get("bob", record["link"], "--mirror", url, peers=[node.address])
    assert same(Path(complete["path"]), tmp_path / "site" / "film.bin")
    assert web.sent - before == SIZE
    (mirror,) = complete["peers"]
    assert (mirror["node_id"], mirror["address"], mirror["found"]) == (None, url, "mirror")
    assert (mirror["bytes"], mirror["chunks"]) == (SIZE, record["chunks"])
    assert "stays where it is" in mesh.call("ann", "unshare", record["file_id"]).out


@pytest.mark.slow
def test_an_encrypted_share_has_a_mirror_of_the_plain_file(
    mesh: Mesh, web: WebServer, tmp_path: Path
) -> None:
    url = web.url("film.bin")
    link, node = shared(mesh, "ann", url, "--encrypt")
    complete = mesh.get("bob", link, "--mirror", url, peers=[node.address])
    assert same(Path(complete["path"]), tmp_path / "site" / "film.bin")
    assert {peer["found"] for peer in complete["peers"]} == {"mirror"}


@pytest.mark.slow
def test_a_shared_folder_names_its_mirrors_and_beside_a_seed_they_are_spared(
    mesh: Mesh, web: WebServer, tmp_path: Path
) -> None:
    mirrors = ["--mirror", web.url("photos"), "--mirror", "https://m.example/p?key=1"]
    link, node = shared(mesh, "ann", tmp_path / "site" / "photos", *mirrors)
    assert link.endswith(f"&mirror={web.url('photos')}&mirror=https://m.example/p%3Fkey%3D1")
    complete = mesh.get("bob", link, "--mirror", web.url("photos"), peers=[node.address])
    assert same(Path(complete["path"]) / "z.jpg", tmp_path / "site" / "photos" / "z.jpg")
    assert web.sent == 0


def test_with_the_manifest_beside_its_file_a_server_needs_no_node(
    mesh: Mesh, web: WebServer, tmp_path: Path
) -> None:
    url, beside = web.url("film.bin"), tmp_path / "site" / "film.bin.furymesh"
    told = mesh.call("ann", "share", url, "--manifest-out", beside).out
    link = next(line for line in told.splitlines() if line.startswith("Link: "))
    complete = mesh.get("bob", link.removeprefix("Link: "), "--mirror", url)
    assert same(Path(complete["path"]), tmp_path / "site" / "film.bin")


def test_a_link_leads_to_no_private_address_and_says_what_to_do(mesh: Mesh, web: WebServer) -> None:
    link, node = shared(mesh, "ann", web.url("film.bin"))
    before = len(web.log)
    failed = mesh.run("bob", "get", link, "--peer", node.address, "--timeout", "1.5")
    assert failed.code == 3
    *notes, line = failed.err.splitlines()
    reason = "it is at a private address; name it with --mirror if that is meant"
    assert f"mirror {web.url('film.bin')} is not used: {reason}" in notes
    assert reason in line
    assert len(web.log) == before


def test_an_interrupted_download_goes_on_with_its_mirror(
    mesh: Mesh, web: WebServer, tmp_path: Path
) -> None:
    link, node = shared(mesh, "ann", web.url("film.bin"), "--chunk-size", "64KiB")
    slow = ["--mirror", web.url("film.bin"), "--max-download", "1M"]
    process = mesh.start_get("bob", link, *slow, peers=[node.address])
    begun = process.expect("progress", lambda event: event["chunks_done"] > 8)
    process.kill()
    before = web.sent
    file_id = link.removeprefix("furymesh:")[:64]
    complete = mesh.resume("bob", file_id)
    assert complete["bytes_reused"] >= begun["bytes_done"]
    assert web.sent - before == complete["bytes_fetched"]
    assert same(Path(complete["path"]), tmp_path / "site" / "film.bin")


def test_a_node_uses_a_mirror_tells_of_it_and_shares_on(
    mesh: Mesh, web: WebServer, tmp_path: Path
) -> None:
    link, node = shared(mesh, "ann", web.url("film.bin"), "--chunk-size", "64KiB")
    mesh.home("bob", "transfer: {max_download: 1M}\n")
    other = mesh.node("bob")
    detached = ["get", link, "--detach", "--mirror", web.url("film.bin"), "--peer", node.address]
    detached += ["--output", str(tmp_path)]
    assert mesh.call("bob", *detached).code == 0
    states: list[dict[str, object]] = []

    def mirror_is_connected() -> bool:
        told = mesh.call("bob", "peers", "--json").out
        states[:] = map(json.loads, told.splitlines())
        return any((s["found"], s["state"]) == ("mirror", "connected") for s in states)

    block_until(mirror_is_connected, 20)
    (mirror,) = [state for state in states if state["found"] == "mirror"]
    assert (mirror["node_id"], mirror["address"]) == (None, web.url("film.bin"))
    other.process.expect_err("finished")
    (item,) = [json.loads(line) for line in mesh.call("bob", "list", "--json").out.splitlines()]
    assert f"mirror=http://127.0.0.1:{web.port}/film.bin" in item["link"]
    # Who shared the URL may fetch the file, and from then on has it.
    assert mesh.call("ann", *detached).code == 0
    node.process.expect_err("finished")


@pytest.fixture(params=SFTP_KINDS[:1])
def sftp(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    """An SFTP server that lets the users of the mesh in."""
    with sftp_serving(request.param) as server:
        server.let_in(tmp_path)
        yield server


@pytest.mark.parametrize("sftp", SFTP_KINDS, indirect=True)
def test_a_file_on_an_sftp_server_becomes_a_swarm(mesh: Mesh, sftp: Server, tmp_path: Path) -> None:
    film = write_blob(tmp_path / "film.bin", SIZE)
    url = sftp.url(film)
    link, node = shared(mesh, "ann", url)
    complete = mesh.get("bob", link, "--mirror", url, peers=[node.address])
    assert same(Path(complete["path"]), film)
    assert [(peer["address"], peer["bytes"]) for peer in complete["peers"]] == [(url, SIZE)]


def test_a_folder_on_an_sftp_server_is_the_share_that_it_would_be_here(
    mesh: Mesh, sftp: Server, tmp_path: Path
) -> None:
    photos = tmp_path / "photos"
    (photos / "empty").mkdir(parents=True)
    for number in range(3):
        (photos / str(number)).mkdir()
    for number in range(40):
        write_blob(photos / f"{number % 3}" / f"ü {number}.jpg", 3_000 * number, seed=number)
    (photos / "run.sh").write_text("true")
    (photos / "run.sh").chmod(0o755)
    (photos / "link").symlink_to("run.sh")
    here = mesh.run("cleo", "share", photos, "--json").last
    told = mesh.run("ann", "share", f"{sftp.url(photos)}/", "--json")
    assert told.code == 0, told.err
    assert "Left out: link" in told.err
    for same_key in ("file_id", "name", "size", "chunks"):
        assert told.last[same_key] == here[same_key]
    node = mesh.node("ann")
    link = str(told.last["link"])
    complete = mesh.get("bob", link, "--mirror", sftp.url(photos), peers=[node.address])
    into = Path(complete["path"])
    for path in photos.rglob("*.jpg"):
        assert same(into / path.relative_to(photos), path)
    assert (into / "run.sh").stat().st_mode & 0o100
    assert (into / "empty").is_dir()
    assert {peer["found"] for peer in complete["peers"]} == {"mirror"}


def test_what_cannot_be_shared_is_said(mesh: Mesh, web: WebServer) -> None:
    for path, reason in (
        ("none.bin", "it does not have the file (HTTP 404)"),
        ("photos", FOLDER),
        ("photos/", FOLDER),
    ):
        failed = mesh.call("ann", "share", web.url(path))
        assert failed.code == 1
        assert failed.err == f"furymesh: cannot share {web.url(path)}: {reason}\n"


def test_a_password_in_a_url_is_refused_and_not_repeated(mesh: Mesh) -> None:
    for arguments in (["share", "https://ann:hunter2@h/f"], ["get", "0" * 64, "--mirror",
                       "sftp://ann:hunter2@h/f"]):  # fmt: skip
        failed = mesh.call("ann", *arguments)
        assert failed.code == 2
        assert "must not hold a password" in failed.err
        assert "hunter2" not in failed.err
