"""The passphrase at the command line: who asks for it, where, and what happens without."""

from __future__ import annotations

import io
import os
import pty
import select
import sys
import time
from pathlib import Path

import pytest

from furymesh.node.face import Shared
from tests.e2e.conftest import CHUNK, SIZE, Seed
from tests.e2e.mesh import DEADLINE, Mesh, finished, same, write_blob

WORDS = "correct horse battery"
OTHER = "häßlich staple"


def named(mesh: Mesh, home: Path, words: str) -> None:
    """From now on the configuration of `home` names a file with this passphrase."""
    path = mesh.root / f"{home.name}.passphrase"
    path.touch(mode=0o600)
    path.write_text(f"{words}\n")
    mesh.home(home.name, f"encryption: {{passphrase_file: {path}}}\n")


def unnamed(mesh: Mesh, home: Path) -> None:
    mesh.home(home.name, " ")


def set_passphrase(mesh: Mesh, home: Path) -> None:
    """Seal the keys of `home` under WORDS; its configuration says where they are."""
    named(mesh, home, WORDS)
    assert mesh.call(home, "id", "--set-passphrase").code == 0


def encrypted_share(mesh: Mesh) -> tuple[Path, Path, Shared]:
    """A home whose keys are sealed, that of an encrypted share among them, and its file."""
    home = mesh.home("home")
    source = write_blob(mesh.root / "mine.bin", 3 * CHUNK)
    shared = mesh.share(home, source, encrypt=True)
    set_passphrase(mesh, home)
    return home, source, shared


def at_terminal(mesh: Mesh, home: Path, *arguments: str, answers: list[str]) -> tuple[int, str]:
    """Run a command at a terminal of its own, answering its questions; code and screen."""
    places = ["--config", str(mesh.config_of(home)), "--data-dir", str(home)]
    argv = [sys.executable, "-m", "furymesh", *arguments, *places]
    pid, terminal = pty.fork()
    if not pid:
        os.execv(argv[0], argv)
    screen = ""
    left = list(answers)
    deadline = time.monotonic() + DEADLINE
    try:
        while time.monotonic() < deadline:
            if not select.select([terminal], [], [], 1)[0]:
                continue
            try:
                screen += os.read(terminal, 4096).decode()
            except OSError:  # the command has ended
                break
            if screen.endswith(": ") and left:
                os.write(terminal, left.pop(0).encode() + b"\n")
        else:
            raise AssertionError(f"still waiting: {screen}")
    finally:
        os.close(terminal)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert not left, screen
    return code, screen


@pytest.mark.slow
def test_asked_for_at_the_terminal_and_not_shown(mesh: Mesh) -> None:
    home = mesh.home("home")
    code, screen = at_terminal(mesh, home, "id", "--set-passphrase", answers=[WORDS, WORDS])
    assert code == 0, screen
    assert WORDS not in screen
    assert "sealed" in screen
    code, screen = at_terminal(
        mesh, home, "id", "--set-passphrase", answers=[WORDS, OTHER, "other"]
    )
    assert code == 2
    assert "differ; nothing was changed" in screen
    code, screen = at_terminal(mesh, home, "id", "--remove-passphrase", answers=["no"])
    assert code == 1
    assert "furymesh: wrong passphrase" in screen
    code, screen = at_terminal(mesh, home, "id", "--remove-passphrase", answers=[WORDS])
    assert code == 0
    assert "No passphrase any more" in screen


def test_without_terminal_and_file_one_line_says_what_to_do(
    mesh: Mesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO())  # tests may be run at a terminal
    home = mesh.home("home")
    assert "FURYMESH_PASSPHRASE_FILE" in mesh.run(home, "id", "--set-passphrase").complaint(2)
    set_passphrase(mesh, home)
    unnamed(mesh, home)
    source = write_blob(mesh.root / "a.bin", CHUNK)
    for command, *arguments in (
        ("node", "--listen", "127.0.0.1:0"),
        ("get", "ab" * 32),
        ("share", source, "--encrypt"),
        ("id", "--remove-passphrase"),
    ):
        line = mesh.call(home, command, *arguments).complaint(2)
        assert "FURYMESH_PASSPHRASE_FILE" in line
    named(mesh, home, OTHER)
    assert "wrong passphrase" in mesh.call(home, "get", "ab" * 32).complaint(1)


@pytest.mark.parametrize(
    "commands",
    [
        "list-resume, id --json",
        pytest.param(
            "list, show-resume --file-id 12345678, share FILE, verify FILE LINK,"
            " clean-resume --all --yes, unshare ID, id",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_what_needs_no_key_does_not_ask(mesh: Mesh, commands: str) -> None:
    """At a terminal, where a question would be seen; nobody is there to answer."""
    home, source, shared = encrypted_share(mesh)
    unnamed(mesh, home)
    given = {"FILE": str(source), "LINK": shared.link.text, "ID": shared.file_id.hex()}
    for command in commands.split(", "):
        words = [given.get(word, word) for word in command.split()]
        code, screen = at_terminal(mesh, home, *words, answers=[])
        assert code == (1 if "12345678" in words else 0), screen
        assert "assphrase: " not in screen


def test_asked_for_only_when_it_turns_out_to_be_needed(mesh: Mesh) -> None:
    home, source, shared = encrypted_share(mesh)
    unnamed(mesh, home)
    for arguments in (["verify", str(source), shared.file_id.hex()], ["list", "--json"]):
        code, screen = at_terminal(mesh, home, *arguments, answers=[WORDS])
        assert code == 0, screen
    assert shared.link.text.partition("key=")[2] in screen


@pytest.mark.parametrize("later", [pytest.param(False, marks=pytest.mark.slow), True])
def test_an_encrypted_download_goes_on_under_a_passphrase(
    mesh: Mesh, seed: Seed, later: bool
) -> None:
    """The key is in the resume data alone: sealed from the start, or sealed meanwhile."""
    home = mesh.home("user")
    named(mesh, home, WORDS)
    if not later:
        assert mesh.call(home, "id", "--set-passphrase").code == 0
    link = str(seed.sealed["link"])
    getting = mesh.start_get(home, link, "--max-download", "1M", peers=[seed.address])
    getting.expect("progress", lambda event: 0 < event["bytes_done"] < SIZE)
    getting.kill()
    if later:
        assert mesh.call(home, "id", "--set-passphrase").code == 0
    (path,) = (home / "resume").glob("*.resume")
    assert link.partition("key=")[2].encode()[:-1] not in path.read_bytes().translate(
        bytes.maketrans(b"+/", b"-_")
    )
    resumed = mesh.start_resume(home, str(seed.sealed["file_id"]), peers=[seed.address])
    complete = finished(resumed)
    assert complete["bytes_reused"] > 0
    assert same(Path(complete["path"]), seed.source)


@pytest.mark.slow
def test_a_node_serves_and_finishes_orders_under_a_passphrase(mesh: Mesh, seed: Seed) -> None:
    home, source, shared = encrypted_share(mesh)
    node = mesh.node(home)
    complete = mesh.get("user", shared.link.text, peers=[node.address])
    assert same(Path(complete["path"]), source)
    detached = ["--detach", "--peer", seed.address]
    assert mesh.run(home, "get", seed.sealed["link"], *detached).code == 0
    node.process.expect_err("finished")
    assert same(mesh.files(home) / "film.bin", seed.source)
    assert "stop it first" in mesh.run(home, "id", "--remove-passphrase").complaint(5)
