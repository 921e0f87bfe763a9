"""How to reach a server, and as whom: nothing is taken from the surroundings unasked."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

from furymesh.core.errors import UsageError
from furymesh.core.paths import shown
from furymesh.storage.files import PRIVATE_FILE, make_private_directory, translating, write_all

CONNECT_SECONDS = 30.0  # until the TCP connection stands; logging in has as long again
# A network that fell silent is noticed after three of these.
KEEPALIVE_SECONDS = 15.0
DEFAULTS = Path(__file__).with_name("ssh_config")
USER_KNOWN_HOSTS = "~/.ssh/known_hosts"
SYSTEM_KNOWN_HOSTS = "/etc/ssh/ssh_known_hosts"

# Names may end up in the commands of a configuration (ProxyCommand with %h and %r).
_HOST = re.compile(r"(?!-)[\w.:%-]{1,255}")
_USER = re.compile(r"(?!-)[\w.@+\\ -]{1,255}")

AnyPath = str | PathLike[str]


@dataclass(eq=False)
class Options:
    """The arguments of `Connection` and `AsyncConnection`.

    What is not given is 22, this user's name, and the keys in ~/.ssh and in the
    agent. `keys` are paths of private keys, `passphrase` opens them. `config` is
    read as ssh reads ~/.ssh/config, which is not read by itself; it decides
    neither which host keys are believed nor what is forwarded or run there. The
    server's host key must be in `known_hosts` (else ~/.ssh/known_hosts or
    /etc/ssh/ssh_known_hosts): there is no way around that. `address` is where to
    connect to instead of looking `host` up, whose key it must have all the same.
    `timeout` is for each step of connecting, in seconds. Raises UsageError.
    """

    host: str
    port: int | None = None
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    _: KW_ONLY
    keys: Sequence[AnyPath] | None = None
    passphrase: str | None = field(default=None, repr=False)
    agent: bool = True
    config: AnyPath | None = None
    known_hosts: AnyPath | None = None
    address: str | None = None
    timeout: float = CONNECT_SECONDS

    def __post_init__(self) -> None:
        for host in (self.host, self.host if self.address is None else self.address):
            if not _HOST.fullmatch(host):
                raise UsageError(f'"{shown(host)}" is not a host: give a name or an address')
        if self.username is not None and not _USER.fullmatch(self.username):
            raise UsageError(f'"{shown(self.username)}" is not a user\'s name')
        if self.port is not None and not 0 < self.port < 65536:
            raise UsageError(f"{self.port} is not a port: ports are 1 to 65535")
        for path in (*(self.keys or ()), self.known_hosts, self.config):
            if path is not None:
                self._check(path)
        if self.config is not None:
            self._check_config(Path(self.config).expanduser())

    def _check(self, path: AnyPath) -> None:
        try:
            with Path(path).expanduser().open("rb"):
                pass
        except (OSError, ValueError, RuntimeError) as error:
            reason = (getattr(error, "strerror", None) or str(error)).lower()
            raise UsageError(
                f"cannot connect to {self.host}: cannot read {shown(os.fspath(path))}: {reason}"
            ) from error

    def _check_config(self, path: Path) -> None:
        """What commands it names are run, so only its owner may write to it."""
        facts = path.stat()
        if facts.st_uid not in (0, os.getuid()) or facts.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise UsageError(
                f"{shown(str(path))} can be changed by others: make it yours (chown) and for you"
                " alone to write to (chmod go-w)"
            )

    def for_ssh(self) -> dict[str, Any]:
        """The arguments of `asyncssh.connect`."""
        asked: dict[str, Any] = {
            "host": self.host,
            # The default would read ~/.ssh/config. Of two files the first one decides.
            "config": [*([_expanded(self.config)] if self.config is not None else ()), DEFAULTS],
            "known_hosts": self.believed(),
            # A host proves itself by a known key, whatever else is installed here.
            "x509_trusted_certs": None,
            "gss_host": None,
            "password": self.password,
            "passphrase": self.passphrase,
            "connect_timeout": self.timeout,
            "login_timeout": self.timeout,
            "keepalive_interval": KEEPALIVE_SECONDS,
            # What a configuration may ask for shells has no place in transfers.
            "command": None,
            "request_pty": False,
            "agent_forwarding": False,
            "x11_forwarding": False,
        }
        # What is not given is left to the configuration or the defaults; None would override them.
        if self.username is not None:
            asked["username"] = self.username
        if self.port is not None:
            asked["port"] = self.port
        if self.address is not None:
            asked |= {"host": self.address, "host_key_alias": self.host}
        if self.keys is not None:
            asked["client_keys"] = [_expanded(key) for key in self.keys]
        if not self.agent:
            asked["agent_path"] = None
        return asked

    def believed(self) -> list[str] | bytes:
        """Where the host keys are that are believed, as asyncssh wants it."""
        if self.known_hosts is not None:
            return [_expanded(self.known_hosts)]
        paths = (Path(USER_KNOWN_HOSTS).expanduser(), Path(SYSTEM_KNOWN_HOSTS))
        # An empty list would mean the default and None no check; this is an empty file.
        return [str(path) for path in paths if path.is_file()] or b"\n"


def _expanded(path: AnyPath) -> str:
    return str(Path(path).expanduser())


def believe(line: str) -> None:
    """Add a line to the user's known hosts; raises EnvironmentFault."""
    path = Path(USER_KNOWN_HOSTS).expanduser()
    make_private_directory(path.parent)
    with translating(path, "write"):
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, PRIVATE_FILE)
        try:
            end = os.lseek(fd, 0, os.SEEK_END)
            # Whoever wrote its last line may have left that open.
            open_end = end and os.pread(fd, 1, end - 1) != b"\n"
            write_all(fd, (b"\n" if open_end else b"") + line.encode() + b"\n")
        finally:
            os.close(fd)
