"""SFTP servers to test against: OpenSSH's, where it is installed, and asyncssh's own.

Both run as processes on a loopback port, with host keys of their own, and are
killed rather than asked. They serve as nobody in particular: as the user of the
tests, or `unprivileged`, so that permissions bind.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import asyncssh

from tests.ports import free_port
from tests.waiting import block_until

SSHD = shutil.which("sshd", path="/usr/sbin:/sbin:/usr/local/sbin:" + os.environ.get("PATH", ""))
SFTP_SERVER = "/usr/lib/openssh/sftp-server"
KINDS = ["openssh", "asyncssh"] if SSHD else ["asyncssh"]


class Server:
    """A server process that serves the whole file system to one key."""

    def __init__(
        self,
        kind: str,
        *,
        posix_rename: bool = True,
        unprivileged: bool = False,
        trick: str = "",
    ) -> None:
        """`trick` is one of asyncssh's server."""
        self.kind = kind
        self._trick = trick
        self.lacks_posix_rename = not posix_rename
        drop = unprivileged and os.getuid() == 0
        self._user = "nobody" if drop else None
        self.username = pwd.getpwuid(os.getuid()).pw_name
        self.home = Path(tempfile.mkdtemp(prefix="furymesh-sftp-"))
        self.key = self._make_key("client")
        self._host_key = self._make_key("host")
        self.port = free_port()
        self.known_hosts = self.home / "known_hosts"
        public = self._host_key.with_suffix(".pub").read_text()
        self.known_hosts.write_text(f"[127.0.0.1]:{self.port} {public}")
        self.log = self.home / "log"
        if drop:
            self.home.chmod(0o755)
        self._process: subprocess.Popen[bytes] | None = None
        self.starts = 0
        self.start()

    def _make_key(self, name: str) -> Path:
        path = self.home / name
        key = asyncssh.generate_private_key("ssh-ed25519")
        key.write_private_key(str(path))
        path.chmod(0o600)
        key.write_public_key(str(path.with_suffix(".pub")))
        return path

    @property
    def address(self) -> dict[str, Any]:
        """The arguments of a connection to it."""
        return {
            "host": "127.0.0.1",
            "port": self.port,
            "username": self.username,
            "keys": [self.key],
            "known_hosts": self.known_hosts,
        }

    def url(self, path: object, host: str = "127.0.0.1") -> str:
        return f"sftp://{self.username}@{host}:{self.port}{quote(str(path))}"

    def let_in(self, home: Path) -> None:
        """Make the home that of a user who knows the server, and whom it lets in."""
        keys = home / ".ssh"
        keys.mkdir(mode=0o700)
        (keys / "id_ed25519").write_bytes(self.key.read_bytes())
        (keys / "id_ed25519").chmod(0o600)
        (keys / "known_hosts").write_bytes(self.known_hosts.read_bytes())

    def start(self) -> None:
        """Begin to serve, or go on after `kill`."""
        if self.kind == "asyncssh" and self._process:
            assert self._process.stdin
            self._process.stdin.write(b"\n")
            self._process.stdin.flush()
        else:
            command = self._sshd() if self.kind == "openssh" else self._asyncssh()
            with self.log.open("ab") as log:
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE if self.kind == "asyncssh" else subprocess.DEVNULL,
                    stderr=log,
                    stdout=log,
                )
        self.starts += 1
        block_until(self._answers, timeout=20)

    def _answers(self) -> bool:
        assert self._process
        assert self._process.poll() is None, self.log.read_text()
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
            return True
        return False

    def kill(self) -> None:
        """End what serves, and its sessions, at once."""
        if not self._process:
            return
        pids = list(_descendants(self._process.pid))
        for pid in pids if self.kind == "asyncssh" else [self._process.pid, *pids]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if self.kind == "openssh":
            self._process.wait()
            self._process = None
        else:
            block_until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in pids))

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """Meanwhile it does nothing, and its connections stand."""
        assert self._process
        pids = [self._process.pid, *_descendants(self._process.pid)]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)

    def close(self) -> None:
        self.kill()
        if self._process:
            self._process.kill()
            self._process.communicate()
        shutil.rmtree(self.home)

    def _sshd(self) -> list[str]:
        if os.getuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        refused = " -P posix-rename" if self.lacks_posix_rename else ""
        drop = f"/usr/bin/setpriv --reuid={self._user} --clear-groups --regid=nogroup"
        program = f"{drop} {SFTP_SERVER}" if self._user else "internal-sftp"
        config = self.home / "sshd_config"
        config.write_text(
            f"ListenAddress 127.0.0.1:{self.port}\n"
            f"HostKey {self._host_key}\n"
            f"AuthorizedKeysFile {self.key.with_suffix('.pub')}\n"
            f"PidFile none\nStrictModes no\nUsePAM no\nPermitRootLogin yes\n"
            f"PasswordAuthentication no\nUseDNS no\nLogLevel VERBOSE\n"
            f"MaxStartups 100\n"
            f"Subsystem sftp {program}{refused}\n"
        )
        assert SSHD
        return [SSHD, "-D", "-e", "-f", str(config)]

    def _asyncssh(self) -> list[str]:
        script = Path(__file__).with_name("asyncssh_server.py")
        return [
            sys.executable,
            str(script),
            str(self.port),
            str(self._host_key),
            str(self.key.with_suffix(".pub")),
            str(int(not self.lacks_posix_rename)),
            self._user or "",
            self._trick,
        ]


@contextlib.contextmanager
def serving(kind: str, **options: Any) -> Iterator[Server]:
    """A server of this kind; `options` are those of `Server`."""
    server = Server(kind, **options)
    try:
        yield server
    finally:
        server.close()


def _descendants(pid: int) -> Iterator[int]:
    """Each session of sshd is a process group of its own, below the listener."""
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            child, rest = int(status.parent.name), status.read_text().rpartition(")")[2]
            if int(rest.split()[1]) == pid:
                yield from _descendants(child)
                yield child
