"""An agent that holds a key: ssh's own, or where that is not installed what stands in for it."""

from __future__ import annotations

import os
import shutil
import socketserver
import struct
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import asyncssh

from tests.waiting import block_until

REAL = all(map(shutil.which, ("ssh-agent", "ssh-add")))
# draft-ietf-sshm-ssh-agent, section 6.1
FAILURE, LIST, KEYS, SIGN, SIGNED = 5, 11, 12, 13, 14


def _text(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


class _Agent(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    key: asyncssh.SSHKey


class _Client(socketserver.StreamRequestHandler):
    server: _Agent

    def handle(self) -> None:
        while head := self.rfile.read(4):
            answer = self._answer(self.rfile.read(struct.unpack(">I", head)[0]))
            self.wfile.write(_text(answer))

    def _answer(self, asked: bytes) -> bytes:
        key = self.server.key
        if asked[0] == LIST:
            return bytes([KEYS]) + struct.pack(">I", 1) + _text(key.public_data) + _text(b"test")
        if asked[0] == SIGN and asked[1:].startswith(_text(key.public_data)):
            at = 1 + len(_text(key.public_data))
            data = asked[at + 4 : at + 4 + struct.unpack_from(">I", asked, at)[0]]
            return bytes([SIGNED]) + _text(key.sign(data, key.sig_algorithms[0]))
        return bytes([FAILURE])


@contextmanager
def holding(key: Path, place: Path) -> Iterator[None]:
    """An agent that answers at `place` and holds the key."""
    if REAL:
        command = ["ssh-agent", "-D", "-a", str(place)]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
            try:
                block_until(place.exists)
                environment = {**os.environ, "SSH_AUTH_SOCK": str(place)}
                subprocess.run(["ssh-add", "-q", key], check=True, env=environment)
                yield
            finally:
                process.terminate()
        return
    with _Agent(str(place), _Client) as agent:
        agent.key = asyncssh.read_private_key(str(key))
        threading.Thread(target=agent.serve_forever, daemon=True).start()
        try:
            yield
        finally:
            agent.shutdown()
