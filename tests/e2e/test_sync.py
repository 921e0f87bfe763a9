"""Folder sync through the command line: two commands, and what they say."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.mesh import DEADLINE, Done, Event, Mesh, Process
from tests.proc import peak_memory
from tests.reliability import Record
from tests.unit.sync.lab import contents, tree
from tests.waiting import block_until

MANY = 100_000
# Bytes, of one process: a kilobyte for each file, another at the server for what it has
# in its index from before, and what furymesh is by itself.
MANY_MEMORY = 280 * 1024 * 1024
QUIET = ("--once", "--timeout", "20")


@dataclass
class Sync:
    """A server, and pushes to it."""

    mesh: Mesh
    archive: Path
    process: Process
    address: str
    node_id: str

    def start_push(self, source: Path, client_id: str, *options: object) -> Process:
        flags = ("--archive", source, "--client-id", client_id, "--server", self.address)
        return self.mesh.start(client_id, "sync push", *flags, "--json", *options)

    def push(self, source: Path, client_id: str, *options: object, code: int = 0) -> Event:
        """Push once; the report."""
        done = self.start_push(source, client_id, *QUIET, *options).done()
        assert done.code == code, (done.code, done.out, done.err)
        report: Event = next(e for e in done.events if e["event"] == "synced")
        return report


def start_server(mesh: Mesh, archive: Path, *options: object) -> Sync:
    flags = ("--archive", archive, "--listen", "127.0.0.1:0", "--json", *options)
    process = mesh.start("server", "sync serve", *flags)
    first = process.expect("listening")
    return Sync(mesh, archive, process, first["addresses"][0], first["node_id"])


@pytest.fixture(scope="module")
def sync(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sync]:
    """One server for the tests of this module, each with a client id of its own."""
    mesh = Mesh(tmp_path_factory.mktemp("sync"))
    try:
        yield start_server(mesh, mesh.root / "archive")
    finally:
        mesh.close()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "source").mkdir()
    return tree(tmp_path / "source", seed=3)


def test_push_and_push_again(sync: Sync, source: Path) -> None:
    report = sync.push(source, "again")
    assert (report["failed_count"], report["removed"]) == (0, 0)
    assert report["bytes"] == sum(path.stat().st_size for path in source.rglob("*.bin"))
    assert contents(sync.archive / "again") == contents(source)
    (source / "new").write_bytes(b"new")
    report = sync.push(source, "again", "--exclude", "*.tmp", "--mirror")
    assert (report["files"], report["bytes"], report["next_sync"]) == (1, 3, 300)
    synced = sync.process.expect("synced", lambda event: event["client_id"] == "again")
    assert synced["failed"] == 0


def test_what_a_person_sees(sync: Sync, source: Path) -> None:
    (source / "link").symlink_to("new")
    flags = ("--archive", source, "--client-id", "person", "--server", sync.address)
    done = sync.mesh.run("person", "sync push", *flags, "--once")
    assert done.code == 0, done.err
    assert "Left out, a link is not followed: link" in done.err.splitlines()
    (line,) = done.out.splitlines()
    assert line.startswith("Synced in ")
    assert " files sent (" in line
    assert f"Server {sync.node_id[:16]} at {sync.address}" in done.err
    assert 'From now on "person" is used with it only' in done.err
    assert max(map(len, (done.out + done.err).splitlines())) <= 80


def test_files_that_fail_are_named_and_end_it_with_1(sync: Sync, source: Path) -> None:
    (source / "late").write_bytes(b"late")
    obstacle = sync.archive / "failing" / "late"
    obstacle.mkdir(parents=True)
    (obstacle / "x").write_bytes(b"x")
    report = sync.push(source, "failing", code=1)
    assert report["failed_count"] == 1
    assert report["failed"][0]["path"] == "late"
    (obstacle / "x").unlink()
    obstacle.rmdir()
    report = sync.push(source, "failing")
    assert (report["files"], report["bytes"]) == (1, 4)


def test_a_server_and_a_client_end_well_when_told_to(tmp_path: Path, source: Path) -> None:
    mesh = Mesh(tmp_path)
    try:
        sync = start_server(mesh, tmp_path / "archive", "--sync-rate", "3600")
        client = sync.start_push(source, "laptop")
        report = client.expect("synced")
        assert report["next_sync"] == 3600
        client.signal(signal.SIGINT)
        assert client.done().code == 0
        assert sync.process.stop().code == 0
    finally:
        mesh.close()


def test_nobody_there_is_3(mesh: Mesh, source: Path) -> None:
    flags = ("--archive", source, "--client-id", "x", "--server", "127.0.0.1:1")
    done = mesh.run("x", "sync push", *flags, "--once", "--timeout", "0.3")
    assert "127.0.0.1:1: connection refused" in done.complaint(3)


@pytest.mark.parametrize(
    ("command", "options", "told"),
    [
        ("sync push", ["--client-id", "x"], "missing option '--archive'"),
        ("sync push", ["--archive", "."], "missing option '--client-id'"),
        ("sync serve", [], "missing option '--archive'"),
        ("sync serve", ["--archive", ".", "--port", "80"], "--port: choose one from 1024"),
        ("sync serve", ["--archive", ".", "--port", "65536"], "--port: choose one from 1024"),
        ("sync serve", ["--archive", ".", "--sync-rate", "0"], "--sync-rate"),
        ("sync serve", ["--archive", ".", "--allow", "x"], "--allow: 'x' is not a node id"),
        ("sync push", ["--archive", ".", "--client-id", ".."], "cannot be a client id"),
        ("sync push", ["--archive", ".", "--client-id", "x", "--timeout", "3"], "--once"),
        ("sync push", ["--archive", ".", "--client-id", "x", "--server", "x"], "--server: 'x'"),
    ],
)
def test_wrong_usage_is_2(mesh: Mesh, command: str, options: list[str], told: str) -> None:
    assert told in mesh.call("x", command, *options).complaint(2)


def test_what_is_missing_is_asked_for_at_a_terminal(sync: Sync, source: Path) -> None:
    """The documented questions, where there is somebody to answer them."""
    mine, theirs = pty.openpty()
    argv = [sys.executable, "-m", "furymesh", "sync", "push", "--once"]
    argv += ["--server", sync.address, *sync.mesh._places("asked")]
    env = {**os.environ, "TERM": "dumb"}
    with subprocess.Popen(
        argv, stdin=theirs, stdout=subprocess.PIPE, stderr=theirs, env=env, cwd=source
    ) as process:
        os.close(theirs)
        said = b""
        try:
            for question, answer in (
                (b"Archive directory: ", b"."),
                (b"client ID: ", b"asked"),
            ):
                while question not in said:
                    said += os.read(mine, 1000)
                os.write(mine, answer + b"\n")
            while chunk := read_some(mine):
                said += chunk
            out, _ = process.communicate(timeout=DEADLINE)
        finally:
            process.kill()
            os.close(mine)
    assert process.returncode == 0, said
    assert b"Synced in" in out
    assert contents(sync.archive / "asked") == contents(source)


def read_some(terminal: int) -> bytes:
    """What a terminal shows next; nothing once nobody writes to it any more."""
    try:
        return os.read(terminal, 1000)
    except OSError:
        return b""


def test_the_configuration_answers_too(tmp_path: Path, source: Path) -> None:
    mesh = Mesh(tmp_path)
    archive = tmp_path / "archive"
    try:
        mesh.home("server", f"sync: {{archive: {archive}, listen: '127.0.0.1:0', sync_rate: 7}}\n")
        process = mesh.start("server", "sync serve", "--json")
        address = process.expect("listening")["addresses"][0]
        mesh.home(
            "laptop",
            f"sync: {{archive: {source}, client_id: me, server: '{address}', exclude: ['1*']}}\n",
        )
        done: Done = mesh.run("laptop", "sync push", "--once", "--json")
        assert done.code == 0, done.err
        assert done.last["next_sync"] == 7
        there = contents(archive / "me")
        assert there
        assert not any(Path(name).name.startswith("1") for name in there)
    finally:
        mesh.close()


def test_five_clients_one_killed_in_the_queue_and_one_in_its_session(
    tmp_path: Path, source: Path
) -> None:
    (source / "long.bin").write_bytes(os.urandom(4_000_000))
    mesh = Mesh(tmp_path)
    try:
        sync = start_server(mesh, tmp_path / "archive")
        names = [f"client{n}" for n in range(5)]
        clients: dict[str, Process] = {}
        for name in names:
            rate = () if clients else ("--max-upload", "100K")
            clients[name] = sync.start_push(source, name, *QUIET, *rate)
            came = sync.process.expect("came")
            assert (came["client_id"], came["place"]) == (name, len(clients) - 1)
        clients["client3"].kill()
        gone = sync.process.expect("gone")
        assert gone["client_id"] == "client3"
        assert clients["client4"].expect("waiting", lambda event: event["place"] == 3)
        clients["client0"].kill()
        for name in ("client1", "client2", "client4"):
            assert clients[name].done().code == 0
            assert contents(sync.archive / name) == contents(source)
        begun = [e["client_id"] for e in sync.process.events if e["event"] == "begun"]
        assert begun == ["client0", "client1", "client2", "client4"]
        # Whoever was killed comes again and goes on.
        report: dict[str, Any] = sync.push(source, "client0")
        assert report["bytes"] < sum(len(data) for data, _, _ in contents(source).values())
        assert contents(sync.archive / "client0") == contents(source)
        assert sync.process.stop().code == 0
    finally:
        mesh.close()


@pytest.mark.slow
def test_a_hundred_thousand_files_of_a_kibibyte_need_bounded_memory_at_both_ends(
    tmp_path: Path, record_property: Record
) -> None:
    for number in range(MANY):
        folder = tmp_path / "source" / f"folder-{number // 1000:03}"
        if not number % 1000:
            folder.mkdir(parents=True)
        (folder / f"a-file-{number:08}.bin").write_bytes(number.to_bytes(8, "little") * 128)
    mesh = Mesh(tmp_path)
    try:
        sync = start_server(mesh, tmp_path / "archive")
        seconds, peaks = [], [0, 0]
        for files in (MANY, 0):
            client = sync.start_push(tmp_path / "source", "many")
            report = client.expect("synced", timeout=600)
            assert (report["files"], report["failed_count"]) == (files, 0)
            seconds.append(report["seconds"])
            now = [peak_memory(client.pid), peak_memory(sync.process.pid)]
            peaks = [max(both) for both in zip(peaks, now, strict=True)]
            client.stop()
        said = f"{MANY:,} files: {seconds[0]:.1f} s, unchanged {seconds[1]:.1f} s"
        record_property("result", f"{said}; client {peaks[0] >> 20}, server {peaks[1] >> 20} MiB")
        assert max(peaks) < MANY_MEMORY
        assert same_trees(tmp_path / "source", sync.archive / "many")
    finally:
        mesh.close()


def same_trees(one: Path, other: Path) -> bool:
    return all(
        path.read_bytes() == (other / path.relative_to(one)).read_bytes()
        for path in one.rglob("*.bin")
    )


def test_an_interrupted_push_says_that_it_can_go_on(sync: Sync, source: Path) -> None:
    (source / "long.bin").write_bytes(os.urandom(3_000_000))
    client = sync.start_push(source, "stopped", *QUIET, "--max-upload", "500K")
    client.expect("progress", lambda event: event["bytes_done"] > 0)
    client.signal(signal.SIGTERM)
    done = client.done()
    assert done.code == 130
    assert "run it again to go on" in done.err
    block_until(lambda: "stopped" in sync.process.out)
