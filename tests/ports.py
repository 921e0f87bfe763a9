"""Ports for servers that have to be told one before they start."""

from __future__ import annotations

import errno
import socket
from random import SystemRandom

# Below those that systems give to whoever asks for any: nobody comes in between.
FIRST, LAST = 20_000, 32_000
_RANDOM = SystemRandom()  # tests run side by side, perhaps with the same seeds


def free_port(host: str = "127.0.0.1") -> int:
    """One that is free over TCP and UDP."""
    while True:
        port = _RANDOM.randrange(FIRST, LAST)
        with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
            try:
                tcp.bind((host, port))
                udp.bind((host, port))
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
                continue
            return port
