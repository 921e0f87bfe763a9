"""A long road between two TAP devices: each Ethernet frame arrives later, or never.

Run as a process by the lab (`python road.py --delay 0.1`); its first line names the
two devices, which the lab then moves to where they belong. It stops when its standard
input ends, and the devices go with it.

It delays packets, not bytes, so both kernels see the true round trip: slow start,
socket buffers and loss recovery take as long as on a real long line. Devices without
offloads make every frame a single segment, so the loss of one is the loss of one.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import select
import struct
import sys
import time
from collections import deque
from contextlib import suppress

TUN = "/dev/net/tun"
TUNSETIFF = 0x400454CA  # linux/if_tun.h
IFF_TAP, IFF_NO_PI = 0x0002, 0x1000
FRAME = 2048  # bytes; an Ethernet frame of the usual 1500 and its header fit
BATCH = 64  # frames read from one side before the other has its turn
IN_FLIGHT = 65_536  # frames a direction: 100 MB, a gigabit link at 0.8 s; beyond it they drop
TURN = 0.0005  # seconds: frames due this close together leave together


def _tap() -> tuple[int, str]:
    """A new TAP device; its file descriptor and the name that the kernel gave it."""
    fd = os.open(TUN, os.O_RDWR | os.O_NONBLOCK)
    wish = struct.pack("16sH22x", b"fmroad%d", IFF_TAP | IFF_NO_PI)
    name = fcntl.ioctl(fd, TUNSETIFF, wish)[:16].rstrip(b"\0").decode()
    return fd, name


class _Way:
    """One direction: frames read from `source` are written to `sink` when due."""

    def __init__(self, source: int, sink: int, delay: float) -> None:
        self.source = source
        self._sink = sink
        self._delay = delay
        self._frames: deque[tuple[float, bytes]] = deque()

    @property
    def due(self) -> float:
        return self._frames[0][0] if self._frames else float("inf")

    def take_in(self, now: float) -> None:
        due, frames = now + self._delay, self._frames
        with suppress(BlockingIOError):
            for _ in range(BATCH):
                frame = os.read(self.source, FRAME)
                if len(frames) < IN_FLIGHT:
                    frames.append((due, frame))

    def let_out(self, now: float) -> None:
        frames = self._frames
        while frames and frames[0][0] <= now:
            with suppress(OSError):  # the device is not up: lost, as on a real line
                os.write(self._sink, frames.popleft()[1])


def run(near: int, far: int, delay: float) -> None:
    """Carry frames between the two descriptors until standard input ends."""
    ways = {near: _Way(near, far, delay), far: _Way(far, near, delay)}
    waiting = select.poll()
    for fd in (near, far, sys.stdin.fileno()):
        waiting.register(fd, select.POLLIN)
    while True:
        left = min(way.due for way in ways.values()) - time.monotonic()
        ready = waiting.poll(None if left == float("inf") else max(0.0, left * 1000))
        for fd, _ in ready:
            if fd not in ways:
                return
            ways[fd].take_in(time.monotonic())
        now = time.monotonic() + TURN
        for way in ways.values():
            way.let_out(now)


def main() -> None:
    parser = argparse.ArgumentParser(description="long road between two TAP devices")
    parser.add_argument("--delay", type=float, required=True, help="seconds, each way")
    options = parser.parse_args()
    (near, first), (far, second) = _tap(), _tap()
    print(json.dumps([first, second]), flush=True)
    run(near, far, options.delay)


if __name__ == "__main__":
    main()
