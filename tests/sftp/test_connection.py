"""Connecting: whose key is believed, who logs in how, and what becomes of secrets."""

from __future__ import annotations

import logging
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import asyncssh
import pytest
import trio

from furymesh.core.errors import (
    FuryMeshError,
    HandshakeError,
    PassphraseNeededError,
    UnavailableError,
    UsageError,
)
from furymesh.sftp import AsyncConnection, Connection
from furymesh.sftp.options import Options
from tests.sftp.agent import holding
from tests.sftp.servers import Server


def connect(face: str, arguments: dict[str, Any]) -> None:
    """Open a connection, transfer something, and close it."""

    async def call() -> None:
        async with AsyncConnection(**arguments) as connection:
            await connection.sftp_write(__file__, str(Path.home() / "sent"))

    if face == "sync":
        with Connection(**arguments) as connection:
            connection.sftp_write(__file__, str(Path.home() / "sent"))
    else:
        trio.run(call)


@pytest.fixture(params=["sync", "async"])
def way(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of the test's own, and no agent."""
    home = tmp_path / "home"
    (home / ".ssh").mkdir(parents=True, mode=0o700)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    return home


@pytest.mark.parametrize("known", ["empty", "missing", "other key", "other port"])
def test_a_host_key_that_is_not_known_is_refused(
    server: Server, way: str, tmp_path: Path, known: str
) -> None:
    lines = server.known_hosts.read_text()
    other = asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode()
    texts = {
        "empty": "",
        "other key": f"{lines.split()[0]} {other}",
        "other port": lines.replace(str(server.port), "1"),
    }
    path = tmp_path / "known"
    if known != "missing":
        path.write_text(texts[known])
    with pytest.raises(FuryMeshError, match=r"cannot connect to 127\.0\.0\.1: ") as caught:
        connect(way, server.address | {"known_hosts": path})
    assert "\n" not in str(caught.value)
    if known != "missing":
        assert isinstance(caught.value, HandshakeError)


def test_without_any_known_hosts_nobody_is_believed(server: Server, way: str) -> None:
    with pytest.raises(HandshakeError, match="host key"):
        connect(way, server.address | {"known_hosts": None})


def test_the_known_hosts_of_the_home_are_looked_at(server: Server, way: str, home: Path) -> None:
    (home / ".ssh" / "known_hosts").write_text(server.known_hosts.read_text())
    connect(way, server.address | {"known_hosts": None})


def test_a_configuration_cannot_switch_the_check_off(
    server: Server, way: str, tmp_path: Path
) -> None:
    config = tmp_path / "config"
    config.write_text("Host *\n  StrictHostKeyChecking no\n  UserKnownHostsFile none\n")
    with pytest.raises(HandshakeError, match="host key"):
        connect(way, server.address | {"known_hosts": None, "config": config})


def test_a_configuration_is_honoured_if_it_is_given(
    server: Server, way: str, tmp_path: Path, home: Path
) -> None:
    config = home / ".ssh" / "config"
    config.write_text(
        f"Host nickname\n  HostName 127.0.0.1\n  Port {server.port}\n"
        f"  User {server.username}\n  IdentityFile {server.key}\n"
    )
    arguments = {"host": "nickname", "known_hosts": server.known_hosts}
    connect(way, arguments | {"config": config})
    with pytest.raises(UnavailableError, match="cannot connect to nickname"):
        connect(way, arguments)  # it is not read unasked


def test_an_address_is_connected_to_and_the_host_is_believed(
    server: Server, way: str, tmp_path: Path
) -> None:
    known = tmp_path / "known"
    known.write_text(server.known_hosts.read_text().replace("127.0.0.1", "files.example"))
    named = server.address | {"host": "files.example", "address": "127.0.0.1"}
    connect(way, named | {"known_hosts": known})
    known.write_text(known.read_text().replace("files", "other"))
    with pytest.raises(HandshakeError, match=r"cannot connect to files\.example: its host key"):
        connect(way, named | {"known_hosts": known})


def test_a_key_that_is_not_authorized_is_refused(server: Server, way: str, tmp_path: Path) -> None:
    path = tmp_path / "other"
    asyncssh.generate_private_key("ssh-ed25519").write_private_key(str(path))
    with pytest.raises(HandshakeError, match="refuses this user; check the name, the key"):
        connect(way, server.address | {"keys": [path]})


@pytest.mark.parametrize(
    "format",
    [
        {"format_name": "openssh", "rounds": 16, "ignore_few_rounds": True},
        {"format_name": "pkcs8-pem", "pbe_version": 2},
    ],
)
def test_a_sealed_key_wants_its_passphrase(
    server: Server, way: str, tmp_path: Path, format: dict[str, Any]
) -> None:
    path = tmp_path / "sealed"
    key = asyncssh.read_private_key(str(server.key))
    path.write_bytes(key.export_private_key(passphrase="open sesame", **format))
    connect(way, server.address | {"keys": [path], "passphrase": "open sesame"})
    for wrong, told in ((None, "sealed with a passphrase"), ("wrong", "does not open the key")):
        with pytest.raises(PassphraseNeededError, match=told):
            connect(way, server.address | {"keys": [path], "passphrase": wrong})


def test_the_agent_is_asked_unless_that_is_declined(
    server: Server, way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "agent"
    monkeypatch.setenv("SSH_AUTH_SOCK", str(place))
    with holding(server.key, place):
        connect(way, server.address | {"keys": None})
        with pytest.raises(HandshakeError, match="refuses this user"):
            connect(way, server.address | {"keys": None, "agent": False})


def test_secrets_show_nowhere(
    server: Server, way: str, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    secret = "correct horse"
    options = Options("host", password=secret, passphrase=secret)
    assert secret not in repr(options)
    assert secret not in repr(AsyncConnection("host", password=secret, passphrase=secret))
    with caplog.at_level(logging.DEBUG), pytest.raises(FuryMeshError) as caught:
        connect(way, server.address | {"keys": [], "agent": False, "password": secret})
    assert secret not in caplog.text + str(caught.value)


def test_nobody_there_is_said_in_a_line(way: str) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        with pytest.raises(UnavailableError, match="connection refused"):
            connect(way, {"host": "127.0.0.1", "port": bound.getsockname()[1]})


def test_a_server_that_says_nothing_is_given_up(way: str) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        with pytest.raises(UnavailableError, match="try again later"):
            connect(way, {"host": "127.0.0.1", "port": silent.getsockname()[1], "timeout": 0.5})


def test_a_closed_connection_says_so(server: Server) -> None:
    connection = Connection(**server.address)
    connection.close()
    connection.close()
    with pytest.raises(UsageError, match="closed"):
        connection.sftp_write(__file__, str(Path.home() / "sent"))


def test_an_error_inside_the_block_comes_out_as_it_is(server: Server) -> None:
    async def call() -> None:
        async with AsyncConnection(**server.address):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        trio.run(call)


def test_without_the_extra_one_line_says_what_to_install() -> None:
    program = (
        "import sys; sys.modules['asyncssh'] = None\n"
        "from furymesh import UsageError\n"
        "try: from furymesh.sftp import Connection\n"
        "except UsageError as error: print(error)\n"
    )
    shown = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert shown.stdout == 'SFTP needs the package asyncssh: pip install "furymesh[sftp]"\n'
