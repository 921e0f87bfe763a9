"""A private swarm and intruders: refused before a byte of the application is read.

Between the two stands a recorder: what each side sent on every connection is
looked at, so that "refused" is not only what the intruder says.
"""

from __future__ import annotations

import os
import socket
import threading
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import pytest

from furymesh.core.ids import node_id_text
from tests.e2e.conftest import CHUNK
from tests.e2e.mesh import Mesh, Process, finished, same, write_blob

# Who has no key at all speaks another pattern: its first message is not understood.
KEYLESS = ("no key", "a friend without the key")
PSK, OTHER_PSK = "c0ffee" * 10 + "cafe", "decade" * 10 + "cafe"


@dataclass
class Connection:
    """What went each way: from whoever dialled, and from whoever answered."""

    dialler: bytearray = field(default_factory=bytearray)
    answerer: bytearray = field(default_factory=bytearray)


class Recorder:
    """Passes TCP on to one address and keeps a copy."""

    def __init__(self, target: str) -> None:
        self.connections: list[Connection] = []
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._threads: list[threading.Thread] = []
        self._sockets = [self._listener]
        self._start(self._accept)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        for thread in list(self._threads):
            thread.join(10)
        for sock in self._sockets:
            sock.close()

    def _start(self, work: object, *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                self._sockets.append(near)
                far = socket.create_connection(self._target)
                self._sockets.append(far)
                made = Connection()
                self.connections.append(made)
                self._start(self._pass_on, near, far, made.dialler)
                self._start(self._pass_on, far, near, made.answerer)

    def _pass_on(self, source: socket.socket, sink: socket.socket, copy: bytearray) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                copy += data
                sink.sendall(data)
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


def handshake_messages(sent: bytes | bytearray) -> int:
    """How many handshake messages this is, and not a byte more; -1 if it is something else."""
    count = 0
    while sent:
        size = 2 + int.from_bytes(sent[:2], "big")
        if len(sent) < size:
            return -1
        sent, count = sent[size:], count + 1
    return count


def private(mesh: Mesh, name: str, psk: str | None, *rest: str) -> Path:
    """A home with this pre-shared key and these further lines of `node:`."""
    lines = list(rest)
    if psk is not None:
        path = mesh.root / f"{name}.psk"
        path.touch(mode=0o600)
        path.write_text(psk)
        lines.append(f"psk_file: {path}")
    return mesh.home(name, f"node: {{{', '.join(lines)}}}\n" if lines else " ")


def test_intruders_are_refused_by_whoever_answers(mesh: Mesh) -> None:
    source = write_blob(mesh.root / "a.bin", 3 * CHUNK)
    friend = str(mesh.call(private(mesh, "friend", PSK), "id").out.split()[2])
    origin = private(mesh, "origin", PSK, f"allow: [{friend}]")
    link = mesh.share(origin, source).link.text
    node = mesh.node(origin)
    intruders = {
        "no key": private(mesh, "keyless", None),
        "wrong key": private(mesh, "wrong", OTHER_PSK),
        "not listed": private(mesh, "unlisted", PSK),
        "a friend without the key": private(mesh, "friend", None),
    }
    with ExitStack() as stack:
        recorders = {what: stack.enter_context(Recorder(node.address)) for what in intruders}
        running = {
            what: mesh.start_get(home, link, "--timeout", 1, peers=[recorders[what].address])
            for what, home in intruders.items()
        }
        codes = {what: process.done().code for what, process in running.items()}
    assert set(codes.values()) == {3}, codes
    for what, home in intruders.items():
        assert not list(mesh.files(home).iterdir()), what
        assert recorders[what].connections, what
        for connection in recorders[what].connections:
            # At most its one message of the handshake: no Hello, no answer of any kind.
            assert handshake_messages(connection.answerer) == (what not in KEYLESS), what
    with Recorder(node.address) as recorder:
        complete = mesh.get(private(mesh, "friend", PSK), link, peers=[recorder.address])
    assert same(Path(complete["path"]), source)
    assert len(recorder.connections[0].answerer) > source.stat().st_size
    assert handshake_messages(recorder.connections[0].answerer) != 1


def test_whoever_dials_refuses_intruders_that_answer(mesh: Mesh) -> None:
    """The intruders have the very content: they could serve it, and may not."""
    source = write_blob(mesh.root / "a.bin", 3 * CHUNK)
    stranger = node_id_text(bytes(32))
    recorders: dict[str, Recorder] = {}
    running: dict[str, Process] = {}
    with ExitStack() as stack:
        for number, what in enumerate(("no key", "wrong key", "not listed", "wrong identity")):
            psk = {"no key": None, "wrong key": OTHER_PSK}.get(what, PSK)
            intruder = private(mesh, f"intruder{number}", psk)
            link = mesh.share(intruder, source).link.text
            node = mesh.node(intruder)
            listed = stranger if what == "not listed" else node.node_id
            home = private(mesh, f"home{number}", PSK, f"allow: [{listed}]")
            recorder = recorders[what] = stack.enter_context(Recorder(node.address))
            peers = [(f"{stranger}@" if what == "wrong identity" else "") + recorder.address]
            running[what] = mesh.start_get(home, link, "--timeout", 1, peers=peers)
        codes = {what: process.done().code for what, process in running.items()}
    assert set(codes.values()) == {3}, codes
    for what, recorder in recorders.items():
        assert recorder.connections, what
        for connection in recorder.connections:
            assert handshake_messages(connection.answerer) == (what not in KEYLESS), what
            if what in ("not listed", "wrong identity"):
                # It did not even tell who it is.
                assert handshake_messages(connection.dialler) == 1, what
    assert not list(mesh.root.glob("home*.files/*"))


@pytest.mark.slow
def test_members_of_a_private_swarm_find_each_other_through_one(mesh: Mesh) -> None:
    """The documented recipe, with three nodes that are on each other's lists."""
    source = write_blob(mesh.root / "a.bin", 40 * CHUNK)
    names = ("one", "two", "three")
    ids = {name: mesh.call(mesh.home(name), "id").out.split()[2] for name in names}
    listed = f"allow: [{', '.join(ids.values())}]"
    homes = {name: private(mesh, name, PSK, listed) for name in names}
    shared = mesh.share(homes["one"], source, private=True)
    assert os.stat(mesh.root / "one.psk").st_mode & 0o77 == 0
    node = mesh.node(homes["one"])
    running = [
        mesh.start_get(homes[name], shared.link.text, peers=[node.address]) for name in names[1:]
    ]
    for process in running:
        assert same(Path(finished(process)["path"]), source)
