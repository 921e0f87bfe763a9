"""`furymesh sftp put` and `get`, as they are typed."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from furymesh.cli.main import main
from furymesh.node.config import CONFIG_VARIABLE
from tests.apart import TEXT
from tests.sftp.asyncssh_server import PASSWORD
from tests.sftp.conftest import MakeFile
from tests.sftp.servers import KINDS, Server, serving
from tests.waiting import block_until, looks

MIB = 1024 * 1024
COMMAND = [sys.executable, "-m", "furymesh", "sftp"]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """One of one kind: how they differ is the library's business."""
    with serving(KINDS[0]) as made:
        yield made


@pytest.fixture(autouse=True)
def home(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home of a user who knows the server, with nothing of this machine's in it."""
    home = tmp_path / "home"
    (home / ".ssh").mkdir(parents=True, mode=0o700)
    (home / ".ssh" / "known_hosts").write_text(server.known_hosts.read_text())
    (home / "apart.yaml").write_text(TEXT)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv(CONFIG_VARIABLE, str(home / "apart.yaml"))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    return home


def url(server: Server, path: object) -> str:
    return f"sftp://{server.username}@127.0.0.1:{server.port}{path}"


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], server: Server) -> Run:
    """Run a command; returns its code and what it printed."""

    def run(*words: object) -> tuple[int, str, str]:
        arguments = ["sftp", *map(str, words), "--identity-file", str(server.key)]
        code = main(arguments)
        shown = capsys.readouterr()
        assert max(map(len, shown.err.splitlines()), default=0) < 400
        return code, shown.out, shown.err

    return run


def test_a_file_goes_there_and_back_and_the_second_time_nothing_moves(
    run: Run, server: Server, make_file: MakeFile, tmp_path: Path
) -> None:
    source, there, back = make_file("a b?", MIB), tmp_path / "there", tmp_path / "back"
    code, out, _ = run("put", source, url(server, there))
    assert code == 0
    assert f"Sent {source} to 127.0.0.1, as {there}" in out
    assert "1.0 MB in" in out
    code, out, _ = run("get", url(server, there), back)
    assert (code, back.read_bytes()) == (0, source.read_bytes())
    assert f"Fetched {there} from 127.0.0.1, to {back}" in out
    for words in (("put", source, url(server, there)), ("get", url(server, there), back)):
        assert "0 B in" in (out := run(*words)[1])
        assert "1.0 MB were there already" in out


def test_json_is_events_and_nothing_else(
    run: Run, server: Server, make_file: MakeFile, tmp_path: Path
) -> None:
    source = make_file("folder/source", MIB)
    (source.parent / "link").symlink_to(source)
    code, out, err = run("put", source.parent, url(server, tmp_path / "there"), "--json")
    events = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert events[0] == {"event": "progress", "bytes_done": 0, "size": MIB}
    assert events[-1].pop("seconds") > 0
    assert events[-1] == {
        "event": "complete",
        "files": 1,
        "bytes_moved": MIB,
        "bytes_reused": 0,
        "skipped": ["link"],
        "notes": [],
    }
    assert "Left out: link" in err


def test_a_target_that_is_a_folder_takes_it_under_its_own_name(
    run: Run,
    server: Server,
    make_file: MakeFile,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = make_file("folder/a/source", 1000).parent
    (tmp_path / "there").mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for _ in range(2):  # again: into the same place
        assert run("put", f"{source}/", url(server, f"{tmp_path}/there/"))[0] == 0
        assert run("get", url(server, source), ".")[0] == 0
    for place in ("there", "here"):
        found = [str(path.relative_to(tmp_path / place)) for path in (tmp_path / place).rglob("*")]
        assert sorted(found) == ["a", "a/source"]
    assert run("get", url(server, "/"), ".")[0] == 2


def test_no_resume_begins_anew_and_no_atomic_needs_no_other_name(
    run: Run, server: Server, make_file: MakeFile, tmp_path: Path
) -> None:
    source, there = make_file("source", MIB), tmp_path / "there"
    there.write_bytes(source.read_bytes()[:1000])
    _, out, _ = run("put", source, url(server, there), "--no-atomic", "--verify", "full", "--json")
    assert json.loads(out.splitlines()[-1])["bytes_reused"] == 1000
    _, out, _ = run("put", source, url(server, there), "--no-resume", "--json")
    assert json.loads(out.splitlines()[-1])["bytes_reused"] == 0


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (("put", "/no/such", "sftp://127.0.0.1/x"), 1, "there is no file or folder at /no/such"),
        (("put", "/no/x", "sftp://127.0.0.1:1/x"), 1, "there is no file or folder at /no/x"),
        (("put", "x", "sftp://me:secret@127.0.0.1/x"), 2, "the URL holds a password"),
        (("get", "http://secret/x", "x"), 2, "is not an SFTP URL"),
        (
            ("get", "sftp://127.0.0.1:1/x", "x", "--verify", "head"),
            2,
            "verify is one of tail, full and size",
        ),
        (("get", "URL", "x", "--jobs", "0"), 2, "jobs is a number from 1"),
        (("get", "URL", "x", "-i", "/no/key"), 2, "cannot read /no/key: no such file"),
        (("get", "URL", "x", "--ssh-config", "/no/config"), 2, "cannot read /no/config"),
        (("get", "URL", "x"), 1, "there is no /no/such on 127.0.0.1; check the path"),
        (("get", "sftp://127.0.0.1:1/x", "x"), 3, "connection refused"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(
    run: Run, server: Server, tmp_path: Path, words: tuple[str, ...], code: int, told: str
) -> None:
    known = url(server, "/no/such")
    words = tuple(known if word == "URL" else word for word in words)
    if words[1] == "/no/such":
        words = ("put", "/no/such", known)
    ended, out, err = run(*words)
    assert (ended, out) == (code, "")
    assert told in err
    assert err.startswith("furymesh: ")
    assert len(err.splitlines()) == 1
    assert "secret" not in err


def test_an_unknown_host_key_is_refused_where_nobody_can_be_asked(
    run: Run, server: Server, home: Path, make_file: MakeFile, tmp_path: Path
) -> None:
    (home / ".ssh" / "known_hosts").unlink()
    code, _, err = run("put", make_file("source", 10), url(server, tmp_path / "there"))
    assert code == 1
    assert "is not known; if it is the right one, add it to known_hosts" in err
    assert f"`ssh -p {server.port} 127.0.0.1`" in err
    assert "SHA256:" in err
    assert "…" not in err


def test_the_users_configuration_is_honoured(
    run: Run, server: Server, home: Path, make_file: MakeFile, tmp_path: Path
) -> None:
    (home / ".ssh" / "config").write_text(
        f"Host nickname\n  HostName 127.0.0.1\n  Port {server.port}\n  User {server.username}\n"
    )
    source = make_file("source", 10)
    assert run("put", source, f"sftp://nickname{tmp_path}/there")[0] == 0
    assert run("put", source, f"sftp://nickname{tmp_path}/x", "--ssh-config", "none")[0] == 3


def test_the_group_by_itself_shows_its_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sftp"]) == 0
    assert re.search(r"put .*upload.*get .*download", capsys.readouterr().out, re.DOTALL | re.I)


# --- at a terminal --------------------------------------------------------------


class Terminal:
    """A command with a terminal of its own."""

    def __init__(self, *words: object) -> None:
        self._master, slave = pty.openpty()
        self._process = subprocess.Popen(
            [*COMMAND, *map(str, words)],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            preexec_fn=lambda: os.close(os.open(os.ttyname(0), os.O_RDWR)),
        )
        os.close(slave)
        self.shown = ""

    def expect(self, text: str) -> None:
        for seconds in looks(0.01):
            if text in self.shown:
                return
            assert seconds < 20, self.shown
            self._read()

    def _read(self) -> None:
        if not select.select([self._master], [], [], 0)[0]:
            return
        try:
            self.shown += os.read(self._master, 4096).decode()
        except OSError:  # it has ended
            assert self._process.wait(20) is not None

    def type(self, line: str) -> None:
        self.shown = ""
        os.write(self._master, line.encode() + b"\n")

    def interrupt(self) -> None:
        os.write(self._master, b"\x03")

    def end(self) -> int:
        code = self._process.wait(20)
        os.close(self._master)
        return code


def test_at_a_terminal_an_unknown_host_is_asked_about_and_a_password_too(
    home: Path, make_file: MakeFile, tmp_path: Path
) -> None:
    source, there = make_file("source", 10), tmp_path / "there"
    known = home / ".ssh" / "known_hosts"
    known.write_text("other ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAA")  # without an end of line
    with serving("asyncssh", trick="asking") as server:
        words = ("put", source, url(server, there))
        refusing = Terminal(*words)
        refusing.expect("Trust it from now on? [y/N]")
        refusing.type("no")
        refusing.expect("is not trusted; nothing was transferred")
        assert refusing.end() == 1
        leaving = Terminal(*words)
        leaving.expect("[y/N]")
        leaving.interrupt()
        leaving.expect("furymesh: interrupted before anything was done")
        assert leaving.end() == 130
        assert not there.exists()
        asked = Terminal(*words)
        asked.expect("SHA256:")
        asked.expect("[y/N]")
        asked.type("y")
        asked.expect("Password for ")
        asked.type("wrong")
        asked.expect("That was not it. Password for ")
        asked.type(PASSWORD)
        asked.expect("Sent ")
        assert PASSWORD not in asked.shown
        assert asked.end() == 0
        assert there.read_bytes() == source.read_bytes()
        assert server_line(known, server) == server.known_hosts.read_text().split()[:3]


def server_line(known: Path, server: Server) -> list[str]:
    lines = [line.split() for line in known.read_text().splitlines()]
    return next(line[:3] for line in lines if line[0] == f"[127.0.0.1]:{server.port}")


@pytest.mark.parametrize("direction", ["put", "get"])
def test_an_interrupted_transfer_says_how_to_go_on_and_goes_on(
    run: Run, server: Server, make_file: MakeFile, tmp_path: Path, direction: str
) -> None:
    source, target = make_file("source", 64 * MIB), tmp_path / "target"
    words: Any = {
        "put": ("put", source, url(server, target)),
        "get": ("get", url(server, source), target),
    }[direction]
    temporary = tmp_path / "target.hussh.tmp"
    command = [*COMMAND, *map(str, words), "-i", str(server.key)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        block_until(lambda: temporary.exists() and temporary.stat().st_size > MIB, timeout=20)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert err.splitlines()[-1] == (
        "furymesh: interrupted; what has arrived is kept: run it again to go on"
    )
    assert not target.exists()
    _, out, _ = run(*words, "--json")
    assert json.loads(out.splitlines()[-1])["bytes_reused"] >= MIB
    assert target.read_bytes() == source.read_bytes()
