"""The delay line: late, complete, in order, and fast enough not to be the limit."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from tests.netns.relay import DelayLine

DELAY = 0.2  # seconds each way
VOLUME = 25_000_000  # bytes: two seconds at 100 Mb/s


@pytest.fixture
def echo() -> Iterator[str]:
    """Address of a server that sends back what it gets, then what is left at the end."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                while data := connection.recv(1 << 18):
                    connection.sendall(data)

        server = threading.Thread(target=serve, daemon=True)
        server.start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        server.join(20)


def connect(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    connection = socket.create_connection((host, int(port)), 20)
    connection.settimeout(20)
    return connection


def test_a_round_trip_takes_two_delays(echo: str) -> None:
    with DelayLine(echo, DELAY, mark=4) as line, connect(line.address) as client:
        client.sendall(b"warm")  # pays for the connection to the target
        assert client.recv(16) == b"warm"
        assert line.event(20) == {"event": "mark", "to_client": 4}
        started = time.monotonic()
        client.sendall(b"ping")
        assert client.recv(16) == b"ping"
        assert 2 * DELAY <= time.monotonic() - started < 2 * DELAY + 0.3
        client.shutdown(socket.SHUT_WR)
        assert client.recv(16) == b""
        assert line.event(20) == {"event": "closed", "to_target": 8, "to_client": 8}


def test_it_sustains_a_hundred_megabits(echo: str) -> None:
    block = bytes(range(256)) * 1000
    with DelayLine(echo, DELAY) as line, connect(line.address) as client:
        started = time.monotonic()

        def send() -> None:
            for _ in range(0, VOLUME, len(block)):
                client.sendall(block)
            client.shutdown(socket.SHUT_WR)

        sender = threading.Thread(target=send)
        sender.start()
        received = bytearray()
        while data := client.recv(1 << 18):
            received += data
        sender.join(20)
        seconds = time.monotonic() - started
    assert bytes(received) == block * -(-VOLUME // len(block))
    assert len(received) * 8 / (seconds - 3 * DELAY) > 100e6


def test_a_broken_side_breaks_the_other() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        target = f"127.0.0.1:{listener.getsockname()[1]}"
        with DelayLine(target, 0.01) as line, connect(line.address) as client:
            server, _ = listener.accept()
            server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            server.close()
            with pytest.raises(ConnectionResetError):
                client.recv(16)
