from __future__ import annotations

import errno
import os
import socket

import pytest
import trio
import trio.testing

from furymesh.core.errors import EnvironmentFault
from furymesh.net import multicast
from furymesh.net.interfaces import Interface
from furymesh.net.multicast import BATCH, REST_SECONDS, Multicast


async def test_of_a_flood_so_much_is_read_and_the_rest_is_left_to_the_kernel(
    mock_clock: trio.testing.MockClock,
) -> None:
    heard: list[bytes] = []
    family, kind = socket.AF_INET, socket.SOCK_DGRAM
    with socket.socket(family, kind) as ear, socket.socket(family, kind) as mouth:
        ear.setblocking(False)
        ear.bind(("127.0.0.1", 0))
        for number in range(3 * BATCH):
            mouth.sendto(bytes([number]), ear.getsockname())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(
                multicast._listen, ear, lambda raw, sender: heard.append(bytes(raw)), False
            )
            for rests in (1, 2, 3):
                await trio.testing.wait_all_tasks_blocked()
                assert heard == [bytes([number]) for number in range(rests * BATCH)]
                mock_clock.jump(REST_SECONDS)
            nursery.cancel_scope.cancel()


def test_interfaces_that_nobody_tells_of_are_the_environments_fault(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refused() -> list[Interface]:
        raise OSError(errno.EMFILE, "Too many open files")

    with Multicast() as segments:
        known = segments.interfaces
        monkeypatch.setattr(multicast, "interfaces", refused)
        assert not segments.look()
        assert segments.interfaces == known
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(EnvironmentFault, match="cannot list interfaces"), Multicast():
        pass
    assert len(os.listdir("/proc/self/fd")) == before
