"""The identity file: made once, private always, and never guessed at when damaged."""

from __future__ import annotations

import base64
import errno
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from furymesh.core.errors import DiskFullError, EnvironmentFault, LocalDataError
from furymesh.core.ids import node_id_text
from furymesh.net import identity
from furymesh.net.identity import FILE_NAME, load_or_create

ROOT = Path(identity.__file__).parents[2]


@pytest.fixture
def open_umask() -> Iterator[None]:
    """The most careless umask: whatever modes are right are right by themselves."""
    before = os.umask(0)
    yield
    os.umask(before)


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_made_once_then_loaded(tmp_path: Path) -> None:
    made = load_or_create(tmp_path)
    again = load_or_create(tmp_path)
    assert again.node_id == made.node_id
    assert again.private.private_bytes_raw() == made.private.private_bytes_raw()
    assert os.listdir(tmp_path) == [FILE_NAME]


def test_the_form_of_the_file(tmp_path: Path) -> None:
    made = load_or_create(tmp_path)
    name, text, checksum = (tmp_path / FILE_NAME).read_text().split(" ")
    assert name == "furymesh-identity-2"
    assert len(text) == 44
    assert checksum.endswith("\n")
    assert len(checksum) == 17
    assert made.node_id == made.private.public_key().public_bytes_raw()


def test_a_key_from_before_the_checksum_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / FILE_NAME
    line = b"furymesh-identity-1 " + base64.b64encode(bytes(range(32))) + b"\n"
    path.write_bytes(line)
    path.chmod(0o600)
    assert load_or_create(tmp_path).private.private_bytes_raw() == bytes(range(32))
    assert path.read_bytes() == line


def test_no_changed_bit_makes_another_identity(tmp_path: Path) -> None:
    load_or_create(tmp_path)
    path = tmp_path / FILE_NAME
    line = path.read_bytes()
    for bit in range(len(line) * 8):
        changed = bytearray(line)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        with pytest.raises(LocalDataError, match="backup"):
            load_or_create(tmp_path)


def test_signatures_are_the_nodes(tmp_path: Path) -> None:
    made = load_or_create(tmp_path)
    Ed25519PublicKey.from_public_bytes(made.node_id).verify(made.sign(b"message"), b"message")


def test_only_the_node_id_is_shown(tmp_path: Path) -> None:
    made = load_or_create(tmp_path)
    assert repr(made) == f"<Identity {node_id_text(made.node_id)}>"


@pytest.mark.usefixtures("open_umask")
def test_private_from_the_first_system_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    created: list[int] = []
    real_open = os.open

    def watching_open(path: Any, flags: int, mode: int = 0o777, **more: Any) -> int:
        fd = real_open(path, flags, mode, **more)
        if flags & os.O_CREAT:
            assert flags & os.O_EXCL
            assert flags & os.O_NOFOLLOW
            created.append(stat.S_IMODE(os.fstat(fd).st_mode))
        return fd

    def no_repair(*_: Any, **__: Any) -> None:
        pytest.fail("the mode has to be right at creation, not afterwards")

    monkeypatch.setattr(os, "open", watching_open)
    monkeypatch.setattr(os, "chmod", no_repair)
    monkeypatch.setattr(os, "fchmod", no_repair)
    data_dir = tmp_path / "some" / "data"
    load_or_create(data_dir)
    assert created == [0o600]
    assert mode_of(data_dir / FILE_NAME) == 0o600
    assert mode_of(data_dir) == 0o700


def test_the_key_is_on_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    real_fsync, real_link = os.fsync, os.link

    def fsync(fd: int) -> None:
        events.append("fsync dir" if stat.S_ISDIR(os.fstat(fd).st_mode) else "fsync file")
        real_fsync(fd)

    def link(source: Any, target: Any) -> None:
        events.append("link")
        real_link(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "link", link)
    load_or_create(tmp_path)
    assert events == ["fsync file", "link", "fsync dir"]


def test_processes_that_start_at_once_agree(tmp_path: Path) -> None:
    """Real processes, all held at a pipe until every one of them is ready."""
    data_dir = tmp_path / "data"
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from furymesh.net.identity import load_or_create\n"
        "print('ready', flush=True)\n"
        "sys.stdin.readline()\n"
        "print(load_or_create(Path(sys.argv[1])).node_id.hex())\n"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(data_dir)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(6)
    ]
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        answers = {process.communicate(timeout=60)[0].strip() for process in processes}
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert answers == {load_or_create(data_dir).node_id.hex()}
    assert os.listdir(data_dir) == [FILE_NAME]


def test_losing_the_race_takes_the_winners_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    winner = load_or_create(tmp_path / "winner")
    real_link = os.link

    def beaten(source: Any, target: Any) -> None:
        real_link(tmp_path / "winner" / FILE_NAME, target)
        real_link(source, target)

    monkeypatch.setattr(os, "link", beaten)
    assert load_or_create(tmp_path / "loser").node_id == winner.node_id
    assert os.listdir(tmp_path / "loser") == [FILE_NAME]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o601])
def test_a_key_that_others_may_touch_is_refused(tmp_path: Path, mode: int) -> None:
    load_or_create(tmp_path)
    path = tmp_path / FILE_NAME
    path.chmod(mode)
    with pytest.raises(EnvironmentFault, match=f"chmod 600 {path}"):
        load_or_create(tmp_path)
    assert mode_of(path) == mode


@pytest.mark.parametrize(
    "damage",
    [
        lambda line: b"",
        lambda line: line[:-10],
        lambda line: line.rstrip(b"\n"),
        lambda line: line + b"\n",
        lambda line: line + b"x" * 100_000,
        lambda line: bytes(len(line)),
        lambda line: line.replace(b"identity-2", b"identity-3"),
        lambda line: line.replace(b"identity-2", b"identity-1"),
        lambda line: line.replace(b" ", b"  "),
        lambda line: line[:25] + b"*" + line[26:],
        lambda line: b"\xff\xfe" + line,
    ],
    ids=[
        "empty",
        "cut",
        "no newline",
        "two newlines",
        "long",
        "zeros",
        "version",
        "earlier version",
        "spaces",
        "not base64",
        "not text",
    ],
)
def test_a_damaged_key_is_named_and_left_alone(tmp_path: Path, damage: Any) -> None:
    load_or_create(tmp_path)
    path = tmp_path / FILE_NAME
    line = path.read_bytes()
    path.write_bytes(damage(line))
    with pytest.raises(LocalDataError) as caught:
        load_or_create(tmp_path)
    message = str(caught.value)
    assert str(path) in message
    assert "backup" in message
    assert "\n" not in message
    assert line[20:64].decode() not in message
    assert path.read_bytes() == damage(line)


def test_a_symbolic_link_is_not_followed(tmp_path: Path) -> None:
    load_or_create(tmp_path / "real")
    (tmp_path / FILE_NAME).symlink_to(tmp_path / "real" / FILE_NAME)
    with pytest.raises(EnvironmentFault, match="symbolic link"):
        load_or_create(tmp_path)


def test_a_dangling_symbolic_link_is_not_written_through(tmp_path: Path) -> None:
    target = tmp_path / "elsewhere"
    (tmp_path / FILE_NAME).symlink_to(target)
    with pytest.raises(EnvironmentFault, match="symbolic link"):
        load_or_create(tmp_path)
    assert not target.exists()


def test_a_pipe_or_directory_in_its_place_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / FILE_NAME, 0o600)
    with pytest.raises(EnvironmentFault, match="not a plain file"):
        load_or_create(tmp_path)
    (tmp_path / FILE_NAME).unlink()
    (tmp_path / FILE_NAME).mkdir()
    with pytest.raises(EnvironmentFault, match="not a plain file"):
        load_or_create(tmp_path)


def test_a_file_where_the_directory_should_be(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    with pytest.raises(EnvironmentFault, match="data"):
        load_or_create(tmp_path / "data")


@pytest.mark.parametrize("call", ["write", "fsync", "link"])
@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (errno.ENOSPC, DiskFullError),
        (errno.EDQUOT, DiskFullError),
        (errno.EIO, EnvironmentFault),
        (errno.EPERM, EnvironmentFault),
    ],
    ids=["full", "quota", "broken", "refused"],
)
def test_a_refusal_leaves_nothing_behind(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    call: str,
    number: int,
    expected: type[Exception],
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, refuse)
        with pytest.raises(expected, match=str(tmp_path)) as caught:
            load_or_create(tmp_path)
    assert type(caught.value) is expected
    assert "\n" not in str(caught.value)
    assert os.listdir(tmp_path) == []
    load_or_create(tmp_path)


def test_a_write_cut_short_is_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real_write = os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda fd, data: real_write(fd, data[:7]))
        made = load_or_create(tmp_path)
    assert load_or_create(tmp_path).node_id == made.node_id


def test_new_directories_are_durable_up_the_chain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(os.fstat(fd).st_ino))
    load_or_create(tmp_path / "a" / "b")
    for directory in (tmp_path, tmp_path / "a", tmp_path / "a" / "b"):
        assert directory.stat().st_ino in synced
