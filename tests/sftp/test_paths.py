"""Paths and URLs that cannot be meant, and what is in their way: a clear word, at once."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from furymesh.core.errors import EnvironmentFault, FuryMeshError, UsageError
from furymesh.sftp import AsyncConnection
from furymesh.sftp.folders import _make_tree
from furymesh.sftp.options import Options
from furymesh.sftp.url import ServerPath, parse
from furymesh.storage.incoming import IncomingFile, Place
from tests.sftp.conftest import Face, MakeFile
from tests.sftp.servers import Server


@pytest.mark.parametrize("path", ["", "nul\0", "\udcff", "x" * 5000, "dir/", ".", "a/.."])
def test_a_remote_path_that_no_file_can_have(
    server: Server, face: Face, make_file: MakeFile, path: str
) -> None:
    source = make_file("source", 10)
    with pytest.raises(UsageError, match=r"is not a path on a server|names a folder"):
        face.write(server, source, path)


@pytest.mark.parametrize("path", ["", "nul\0"])
def test_a_local_path_that_no_file_can_have(server: Server, face: Face, path: str) -> None:
    with pytest.raises(UsageError, match="is not a path on this machine"):
        face.write(server, path, "/tmp/there")
    with pytest.raises(UsageError, match="is not a path on this machine"):
        face.read(server, "/etc/hostname", path)


@pytest.mark.parametrize("name", [".", ".."])
def test_a_file_does_not_replace_the_directory_one_stands_in(
    server: Server,
    face: Face,
    make_file: MakeFile,
    tmp_path: Path,
    name: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = make_file("source", 10)
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    with pytest.raises(EnvironmentFault, match="in the way"):
        face.read(server, str(source), name, atomic=True)
    assert not os.listdir(tmp_path / "below")


def test_a_directory_in_the_way_of_a_download_is_told_before_anything_is_moved(
    server: Server, face: Face, make_file: MakeFile, tmp_path: Path
) -> None:
    source = make_file("source", 10)
    (tmp_path / "target").mkdir()
    moved: list[int] = []
    with pytest.raises(EnvironmentFault, match="in the way"):
        face.read(
            server,
            str(source),
            tmp_path / "target",
            atomic=True,
            progress=lambda done, total: moved.append(done),
        )
    assert not moved
    assert sorted(os.listdir(tmp_path)) == ["source", "target"]


def test_a_pipe_is_not_waited_for(server: Server, face: Face, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(EnvironmentFault, match="neither a file nor a folder"):
        face.read(server, str(tmp_path / "pipe"), tmp_path / "copy")
    (tmp_path / "source").write_bytes(b"x")
    with pytest.raises(EnvironmentFault, match="in the way"):
        face.write(server, tmp_path / "source", str(tmp_path / "pipe"), resume=True)


def test_a_link_that_comes_into_the_way_is_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    root = tmp_path / "root"
    (root / "a").mkdir(parents=True)
    place = Place(root, ("a", "file"))
    (root / "a").rename(root / "b")
    (root / "a").symlink_to(outside)
    incoming = IncomingFile(place, "", keep=False)
    incoming.write([b"data"], 0, 0)
    incoming.finish(4, 0o644, 0)
    incoming.close()
    place.close()
    assert (root / "b" / "file").read_bytes() == b"data"
    with pytest.raises(EnvironmentFault, match="cannot open"):
        Place(root, ("a", "file"))
    assert not os.listdir(outside)


def test_each_directory_of_a_downloaded_tree_is_made_durable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: set[int] = set()
    fsync = os.fsync

    def note(fd: int) -> None:
        synced.add(os.fstat(fd).st_ino)
        fsync(fd)

    monkeypatch.setattr(os, "fsync", note)
    _make_tree(tmp_path / "root", ["a", "a/b", "a/b/c"])
    made = [tmp_path, *(tmp_path / "root" / path for path in ("", "a", "a/b", "a/b/c"))]
    assert {path.stat().st_ino for path in made} <= synced


# --- servers ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"host": ""}, "is not a host"),
        ({"host": "-oProxyCommand=x"}, "is not a host"),
        ({"host": "a b"}, "is not a host"),
        ({"host": "h", "username": "-l"}, "is not a user's name"),
        ({"host": "h", "username": "x;y"}, "is not a user's name"),
        ({"host": "h", "port": 0}, "is not a port"),
        ({"host": "h", "keys": ["/no/such/key"]}, "cannot read /no/such/key: no such file"),
        ({"host": "h", "keys": ["a\0"]}, "cannot read"),
        ({"host": "h", "known_hosts": "/no/such"}, "cannot read /no/such: no such file"),
        ({"host": "h", "config": "/no/such"}, "cannot read /no/such: no such file"),
    ],
)
def test_options_that_cannot_be_meant(options: dict[str, object], told: str) -> None:
    for kind in (Options, AsyncConnection):
        with pytest.raises(UsageError, match=told):
            kind(**options)  # type: ignore[arg-type]


def test_a_configuration_that_others_may_write_to_is_refused(tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text("ProxyCommand sh -c evil\n")
    config.chmod(0o666)
    with pytest.raises(UsageError, match="can be changed by others"):
        Options("host", config=config)


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("sftp://host/a/b", ("host", None, None, "/a/b")),
        ("SFTP://me@host:2222/", ("host", 2222, "me", "/")),
        ("sftp://[::1]:22/a", ("::1", 22, None, "/a")),
        ("sftp://host/~/a", ("host", None, None, "a")),
        ("sftp://host/~", ("host", None, None, ".")),
        ("sftp://m%40x@host/a%20b%3F", ("host", None, "m@x", "/a b?")),
    ],
)
def test_urls(url: str, parts: tuple[object, ...]) -> None:
    place = parse(url)
    assert place == ServerPath(*parts)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "url",
    [
        "sftp://me:secret@host/a",
        "sftp://me:secret@host",
        "http://secret/",
        "sftp:///secret",
        "sftp://host:secret/a",
        "sftp://host/secret?x",
        "sftp://host/secret%ff",
        "secret",
    ],
)
def test_other_urls_are_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(FuryMeshError) as caught:
        parse(url)
    assert "secret" not in str(caught.value)
