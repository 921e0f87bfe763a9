"""Two nodes meet at opentracker, the tracker that carries most of the world's announces.

Debian builds it with a white list, so it is told what will be announced.
"""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from furymesh.core.ids import DiscoveryTag, info_hash
from furymesh.wire import bencode
from tests.ports import free_port
from tests.unit.discovery.asking import open_source
from tests.waiting import block_until, until

OPENTRACKER = shutil.which("opentracker", path="/usr/bin:/usr/local/bin:/bin")
LISTED, UNLISTED = DiscoveryTag(b"l" * 32), DiscoveryTag(b"u" * 32)

pytestmark = pytest.mark.skipif(
    OPENTRACKER is None, reason="the program opentracker is not installed"
)
either = pytest.mark.parametrize("scheme", ["http", "udp"])


@contextmanager
def running(directory: Path, port: int) -> Iterator[None]:
    """opentracker on loopback; it keeps nothing when it ends."""
    directory.chmod(0o755)
    (directory / "white").write_text(info_hash(LISTED).hex() + "\n")
    config = directory / "conf"
    config.write_text(
        f"listen.tcp_udp 127.0.0.1:{port}\naccess.whitelist white\n"
        f"tracker.rootdir {directory}\ntracker.user nobody\n"
    )
    for parent in directory.parents[:2]:  # it gives up being root before it reads the list
        parent.chmod(0o755)
    assert OPENTRACKER is not None
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen([OPENTRACKER, "-f", str(config)], stdout=log, stderr=log)
    try:
        block_until(lambda: serves(port))
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(5)


def serves(port: int) -> bool:
    """Whether it has read its list: it does that in a thread, and listens meanwhile."""
    for event in ("started", "stopped"):
        fields = f"&peer_id=12345678901234567890&port=9&left=0&event={event}"
        told = asked(port, "announce", fields)
        if told is None or b"failure reason" in told:
            return False
    return True


def asked(port: int, what: str, more: str = "") -> dict[bytes, bencode.Value] | None:
    """Its answer about LISTED; None if it does not answer."""
    name = "".join(f"%{byte:02x}" for byte in info_hash(LISTED))
    try:
        with socket.create_connection(("127.0.0.1", port)) as sock:
            sock.sendall(f"GET /{what}?info_hash={name}{more} HTTP/1.0\r\n\r\n".encode())
            raw = b"".join(iter(lambda: sock.recv(4096), b""))
    except ConnectionError:
        return None
    told = bencode.decode(raw.partition(b"\r\n\r\n")[2])
    assert isinstance(told, dict)
    return told


def counted(port: int) -> dict[bytes, bencode.Value]:
    """What it says of a swarm itself: complete, incomplete, downloaded."""
    told = asked(port, "scrape")
    assert told is not None
    files = told[b"files"]
    assert isinstance(files, dict)
    found = files.get(info_hash(LISTED), {})
    assert isinstance(found, dict)
    return found


def url(scheme: str, port: int) -> str:
    return f"{scheme}://127.0.0.1:{port}/announce"


@either
async def test_two_nodes_meet_at_opentracker(scheme: str, tmp_path: Path) -> None:
    port = free_port()
    with running(tmp_path, port):
        async with open_source(url(scheme, port), tags=(LISTED,), wanted=False) as seed:
            await until(lambda: counted(port).get(b"complete") == 1)
            async with open_source(url(scheme, port), tags=(LISTED,), port=7002) as leech:
                await until(lambda: "127.0.0.1:7001" in leech.addresses)
                assert counted(port)[b"incomplete"] == 1
                leech.interests.add(LISTED, wanted=False)
                await until(lambda: counted(port)[b"downloaded"] == 1)
            # Who ended is listed no more.
            await until(lambda: counted(port)[b"complete"] == 1)
            async with open_source(url(scheme, port), tags=(LISTED,), port=7003) as late:
                await until(lambda: late.sightings)
                assert late.addresses <= {"127.0.0.1:7001", "127.0.0.1:7003"}
            assert not seed.source.troubles
        await until(lambda: not counted(port).get(b"complete"))


@either
async def test_who_only_looks_is_answered_by_opentracker(scheme: str, tmp_path: Path) -> None:
    port = free_port()
    with running(tmp_path, port):
        async with open_source(url(scheme, port), tags=(LISTED,), wanted=False):
            await until(lambda: counted(port).get(b"complete") == 1)
            async with open_source(url(scheme, port), tags=(LISTED,), port=0) as looker:
                await until(lambda: looker.addresses == {"127.0.0.1:7001"})
            await until(lambda: not counted(port)[b"incomplete"])


@either
async def test_opentracker_refuses_what_is_not_on_its_list(scheme: str, tmp_path: Path) -> None:
    port = free_port()
    with running(tmp_path, port):
        async with open_source(url(scheme, port), tags=(UNLISTED,)) as node:
            await until(lambda: "it refuses: " in node.trouble)


@either
async def test_opentracker_is_told_again_after_a_restart(
    scheme: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("furymesh.discovery.announcing.FIRST_BACKOFF", 0.2)
    port = free_port()
    async with open_source(url(scheme, port), tags=(LISTED,), wanted=False) as node:
        await until(lambda: node.trouble)
        with running(tmp_path, port):
            await until(lambda: counted(port).get(b"complete") == 1)
            await until(lambda: not node.trouble)
