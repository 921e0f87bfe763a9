"""How to reach a server, and as whom: nothing is taken from the surroundings unasked."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CONNECT_SECONDS = 30.0  # until the TCP connection stands; logging in has as long again
# A network that fell silent is noticed after three of these.
KEEPALIVE_SECONDS = 15.0
# Before the defaults: in Python these take half the time of the usual first choice.
FAST_CIPHERS = "^aes256-gcm@openssh.com,aes128-gcm@openssh.com"
USER_KNOWN_HOSTS = "~/.ssh/known_hosts"
SYSTEM_KNOWN_HOSTS = "/etc/ssh/ssh_known_hosts"


@dataclass(frozen=True, slots=True)
class Options:
    """The arguments of a connection; see `AsyncConnection`."""

    host: str
    port: int | None = None
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    keys: tuple[Path, ...] | None = None
    passphrase: str | None = field(default=None, repr=False)
    agent: bool = True
    config: Path | None = None
    known_hosts: Path | None = None
    timeout: float = CONNECT_SECONDS

    def for_ssh(self) -> dict[str, Any]:
        """The arguments of `asyncssh.connect`."""
        asked: dict[str, Any] = {
            "host": self.host,
            # The default would read ~/.ssh/config; and what it says of known hosts
            # could turn the check of host keys off.
            "config": [str(self.config.expanduser())] if self.config else None,
            "known_hosts": self._known_hosts(),
            # A host proves itself by a known key, whatever else is installed here.
            "x509_trusted_certs": None,
            "gss_host": None,
            "password": self.password,
            "passphrase": self.passphrase,
            "connect_timeout": self.timeout,
            "login_timeout": self.timeout,
            "keepalive_interval": KEEPALIVE_SECONDS,
        }
        if self.config is None:
            asked["encryption_algs"] = FAST_CIPHERS
        # What is not given is left to the configuration or the defaults; None would override them.
        if self.username is not None:
            asked["username"] = self.username
        if self.port is not None:
            asked["port"] = self.port
        if self.keys is not None:
            asked["client_keys"] = [str(key) for key in self.keys]
        if not self.agent:
            asked["agent_path"] = None
        return asked

    def _known_hosts(self) -> list[str] | bytes:
        if self.known_hosts is not None:
            return [str(self.known_hosts.expanduser())]
        paths = (Path(USER_KNOWN_HOSTS).expanduser(), Path(SYSTEM_KNOWN_HOSTS))
        # An empty list would mean the default and None no check; this is an empty file.
        return [str(path) for path in paths if path.is_file()] or b"\n"
