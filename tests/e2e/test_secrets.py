"""No secret stands where somebody else could read it: texts, arguments, modes of files."""

from __future__ import annotations

import base64
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from furymesh.core.link import Link
from furymesh.net.identity import FILE_NAME as IDENTITY_FILE
from furymesh.node.passphrase import NEW_VARIABLE, VARIABLE
from tests.apart import TEXT
from tests.e2e.conftest import CHUNK
from tests.e2e.mesh import DEADLINE, Mesh, finished, same, write_blob
from tests.reliability import Record

PSK = "5eed" * 16
PASSPHRASE, WRONG = "gallop under violet rain", "stumble over yellow snow"
COMMANDS = (
    *("share", "list", "unshare", "node", "get", "resume"),
    *("list-resume", "show-resume", "clean-resume", "verify", "id", "demo"),
)
FILE_ID = "ab" * 32
SHORT_STEP = 5  # every so many ways to mistype a link; the long form takes each


@dataclass
class Search:
    """Secrets, and every text in which none of them may be."""

    secrets: dict[str, bytes] = field(default_factory=dict)
    texts: list[tuple[str, bytes]] = field(default_factory=list)

    def hide(self, name: str, secret: bytes | str) -> None:
        """Look for a secret in each of its spellings."""
        if isinstance(secret, str):
            self.secrets[name] = secret.encode()
            return
        self.secrets |= {
            f"{name}, raw": secret,
            f"{name}, repr": repr(secret).encode()[2:-1],
            f"{name}, hex": secret.hex().encode(),
            f"{name}, base64": base64.b64encode(secret).rstrip(b"="),
            f"{name}, base64url": base64.urlsafe_b64encode(secret).rstrip(b"="),
        }

    def look_in(self, where: str, text: str | bytes) -> None:
        self.texts.append((where, text.encode() if isinstance(text, str) else text))

    def hits(self) -> list[str]:
        return [
            f"{name} in {where}: {text.decode(errors='replace')}"
            for where, text in self.texts
            for name, secret in self.secrets.items()
            if secret in text or secret in text.replace(b"%3D", b"=")
        ]


def seed_in(home: Path) -> bytes:
    return base64.b64decode((home / IDENTITY_FILE).read_bytes().split()[1])


def secret_file(path: Path, text: str) -> Path:
    path.touch(mode=0o600)
    path.write_text(f"{text}\n")
    return path


def arguments_of(*pids: int) -> Iterator[bytes]:
    """What `ps` shows of processes that this test started: their arguments and environment."""
    for pid in pids:
        for name in ("cmdline", "environ"):
            yield Path(f"/proc/{pid}/{name}").read_bytes()


def get_from_stdin(mesh: Mesh, home: Path, link: str, *options: str) -> subprocess.Popen[bytes]:
    places = ["--config", str(mesh.config_of(home)), "--data-dir", str(home)]
    process = subprocess.Popen(
        [sys.executable, "-m", "furymesh", "get", "-", *places, "--json", *options],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=mesh.files(home),
    )
    assert process.stdin is not None
    process.stdin.write(f"{link}\n".encode())
    process.stdin.close()
    process.stdin = None
    return process


@pytest.mark.promise(22)
@pytest.mark.parametrize("step", [SHORT_STEP, pytest.param(1, marks=pytest.mark.slow)])
def test_no_output_log_or_process_list_shows_a_secret(
    mesh: Mesh, step: int, record_property: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = Search()
    search.hide("pre-shared key", PSK)
    search.hide("passphrase", PASSPHRASE)
    search.hide("wrong passphrase", WRONG)
    psk = secret_file(mesh.root / "psk", PSK)
    passphrase = secret_file(mesh.root / "passphrase", PASSPHRASE)
    private = f"node: {{psk_file: {psk}}}\nencryption: {{passphrase_file: {passphrase}}}\n"
    origin, user = mesh.home("origin", private), mesh.home("user", private)
    source = write_blob(mesh.root / "film.bin", 60 * CHUNK)
    mesh.home("other", "transfer: {timeout: 1}\n")

    # Made while it is open, so that the test knows what to look for.
    for home in (origin, user):
        assert mesh.call(home, "id").code == 0
        search.hide(f"identity of {home.name}", seed_in(home))
    shared = mesh.share(origin, source, encrypt=True, chunk_size=CHUNK)
    assert shared.link.key is not None
    search.hide("content key", shared.link.key)
    link, file_id = shared.link.text, shared.file_id.hex()
    for home in (origin, user):
        assert mesh.call(home, "id", "--set-passphrase").code == 0

    def called(home: Path | str, command: str, *arguments: object) -> None:
        done = mesh.call(home, command, *arguments)
        search.look_in(f"{command} {arguments}", done.out + done.err)

    node = mesh.node(origin)
    downloading = get_from_stdin(mesh, user, link, "--peer", node.address, "--max-download", "400K")
    try:
        assert downloading.stdout is not None
        search.look_in("get -, first line", downloading.stdout.readline())
        for text in arguments_of(node.process.pid, downloading.pid):
            search.look_in("arguments or environment of a process", text)
    finally:
        downloading.kill()
        out, err = downloading.communicate(timeout=DEADLINE)
    search.look_in("get -, JSON", out)
    search.look_in("get -, stderr", err)
    for options in ([], ["--json"]):
        called(user, "list-resume", *options)
        called(user, "show-resume", "--file-id", file_id, *options)
    resumed = mesh.start_resume(user, file_id, "--verbose", peers=[node.address])
    complete = finished(resumed)
    assert same(Path(complete["path"]), source)
    search.look_in("resume, JSON", resumed.out)
    search.look_in("resume, stderr", resumed.err)
    called(user, "verify", complete["path"], link)
    called(origin, "list")
    called(origin, "id")
    search.look_in("the node's JSON", node.process.out)
    search.look_in("the node's stderr", node.process.err)

    # What goes wrong, and what people type wrong; with tracebacks too.
    key = link.partition("key=")[2]
    psk_itself = mesh.root / "psk-itself.yaml"
    psk_itself.write_text(f"node: {{psk_file: {PSK}}}\n")
    words_themselves = mesh.root / "words-themselves.yaml"
    words_themselves.write_text(f"encryption: {{passphrase_file: {PASSPHRASE}}}\n")
    for debug in ("1", "")[:: min(step, 2)]:
        monkeypatch.setenv("FURYMESH_DEBUG", debug)
        soon = ["--timeout", "0.05"]
        for wrong in _mistyped(link, file_id, key)[::step]:
            for arguments in (
                ["get", wrong, *soon],
                ["get", wrong, "--json", *soon],
                ["get", FILE_ID, "--peer", wrong, *soon],
                ["get", FILE_ID, "--output", f"/no/such/{wrong}", *soon],
                ["get", FILE_ID, "--sha256", wrong, *soon],
                ["get", FILE_ID, wrong],
                ["get", f"--{wrong}"],
                ["verify", source, wrong],
                ["verify", wrong, FILE_ID],
                ["share", wrong],
                ["share", source, "--hash", wrong],
                ["resume", "--file-id", wrong],
                ["resume", "--file-id", FILE_ID, "--peer-id", wrong],
                ["node", "--allow", wrong],
                ["node", "--max-upload", wrong],
                ["unshare", wrong],
                ["show-resume", "--file-id", wrong],
                ["clean-resume", "--file-id", wrong],
                ["id", "--config", wrong],
                [wrong],
            ):
                called("other", *map(str, arguments))
        for config in (psk_itself, words_themselves):
            called(user, "get", FILE_ID, *soon, "--config", config)
        monkeypatch.setenv(VARIABLE, str(secret_file(mesh.root / "wrong", WRONG)))
        called(user, "get", FILE_ID, *soon)
        called(user, "id", "--remove-passphrase")
        monkeypatch.setenv(VARIABLE, WRONG)
        called(user, "get", FILE_ID, *soon)
        monkeypatch.delenv(VARIABLE)
    monkeypatch.setenv("FURYMESH_DEBUG", "")
    for command in COMMANDS:
        called("other", command, "--help")
    assert "wrong passphrase" in "".join(text.decode() for _, text in search.texts)
    hits = search.hits()
    assert not hits, "\n".join(hits[:10])
    assert len(search.texts) > (60 if step > 1 else 400)
    record_property("cases", len(search.texts))
    record_property("result", f"{len(search.secrets)} spellings of secrets, 0 hits")


def _mistyped(link: str, file_id: str, key: str) -> list[str]:
    """What a link, or the key in it, becomes on its way through mails and fingers."""
    return [
        key,
        link.replace("?", "", 1),
        link.replace("?", "&", 1),
        link + "=",
        link + key[:4],
        link.replace("key=", "key"),
        f"furymesh:{file_id[:-2]}?key={key}",
        f"furymesh:{key}?key={file_id}",
        f"furymesh:{file_id}?peer=key={key}",
        f"furymesh:{file_id}?peer=a:1&peer=b&key={key}",
        f"http://example.net/{link}",
    ]


# --- modes ----------------------------------------------------------------------------

CALLS = "open,openat,creat,mkdir,mkdirat,mknod,mknodat,bind,umask,chmod,fchmod,fchmodat"
_PATH = re.compile(r'(?:(?:AT_FDCWD|\d+)(?:<([^>]*)>)?, )?"([^"]*)"')


@pytest.mark.promise(22)
@pytest.mark.skipif(shutil.which("strace") is None, reason="strace sees modes of the first call")
@pytest.mark.parametrize("count", [2, pytest.param(None, marks=pytest.mark.slow)])
def test_files_are_private_from_the_first_system_call(
    mesh: Mesh, count: int | None, record_property: Record
) -> None:
    """With the most careless umask, and while a passphrase is set."""
    source = write_blob(mesh.root / "a.bin", 3 * CHUNK)
    first, second = (secret_file(mesh.root / name, name) for name in ("first", "second"))
    home = mesh.root / "home"
    config = mesh.root / "config.yaml"
    config.write_text(TEXT + f"encryption: {{passphrase_file: {first}}}\n")
    kept = Link.parse(mesh.share("origin", source, encrypt=True).link.text)
    node = mesh.node("origin")
    runs: list[tuple[list[str], dict[str, str]]] = [
        (["share", str(source), "--encrypt"], {}),
        (["id", "--set-passphrase"], {}),
        (["share", str(source), "--encrypt", "--hash", "sha256"], {}),
        (["get", kept.text, "--peer", node.address, "--output", str(mesh.root)], {}),
        (["node", "--listen", "127.0.0.1:0"], {}),
        (["id", "--set-passphrase"], {NEW_VARIABLE: str(second)}),
        (["id", "--remove-passphrase"], {VARIABLE: str(second)}),
    ]
    made = 0
    for number, (arguments, variables) in enumerate(runs[:count]):
        trace = mesh.root / f"trace-{number}"
        strace = ["strace", "-f", "-ff", "-qq", "-y", "-s", "4096", "--seccomp-bpf"]
        strace += ["-e", f"trace={CALLS}", "-o", str(trace)]
        command = [sys.executable, "-m", "furymesh", *arguments]
        process = subprocess.Popen(
            [*strace, *command, "--config", str(config), "--data-dir", str(home)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=mesh.root,
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **variables},
            umask=0,
        )
        assert process.stdout is not None
        if arguments[0] == "node":
            while b"Ctrl-C" not in (line := process.stdout.readline()):
                assert line, "the node did not start"
            # strace itself does not pass a signal on.
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
            os.kill(int(children.split()[0]), signal.SIGTERM)
        out, _ = process.communicate(timeout=DEADLINE)
        assert process.returncode == 0 or arguments[0] == "node", out.decode()
        for path in mesh.root.glob(f"{trace.name}.*"):
            made += check_modes(path, home)
    assert made > (5 if count else 20)
    for path in home.rglob("*"):
        assert path.stat().st_mode & 0o77 == 0, path
    record_property("cases", made)
    record_property("result", "files and directories made private by the call that makes them")


def check_modes(trace: Path, home: Path) -> int:
    """Assert that all that was made below `home` was private at once; how many there were."""
    made = 0
    mask = ""
    for line in trace.read_text("latin-1").splitlines():
        name = line.partition("(")[0]
        if name == "umask":
            mask = line[len("umask(") :].partition(")")[0]
            continue
        named = _PATH.search(line)
        if named is None or " = -1 " in line:
            continue
        place = Path(named[1] or "/") / named[2]
        if name == "bind" and "control.sock" in line:
            assert mask == "0177", line
        elif not place.is_relative_to(home):
            continue
        elif name.startswith("mkdir"):
            assert ", 0700)" in line, line
        elif name.startswith(("open", "creat", "mknod")) and "O_CREAT" in line:
            assert ", 0600)" in line, line
        elif "chmod" in name:
            raise AssertionError(f"made private only afterwards: {line}")
        else:
            continue
        made += 1
    return made
