from __future__ import annotations

from typing import Any

import trio
import trio.testing

from furymesh.net.buffers import Buffers
from furymesh.net.handler import Traffic
from furymesh.net.reading import LinkReader


class Kernel:
    """A stream of which only the bytes that wait matter."""

    held = 0

    def waiting(self) -> int:
        return self.held


async def test_bytes_of_an_unfinished_record_are_heard(
    mock_clock: trio.testing.MockClock,
) -> None:
    kernel: Any = Kernel()
    nothing: Any = None
    reader = LinkReader(kernel, nothing, nothing, Buffers(), Traffic())
    mock_clock.jump(1)
    assert reader.heard_at == trio.current_time() - 1
    kernel.held = 1000
    seen = reader.heard_at
    assert seen == trio.current_time()
    mock_clock.jump(1)
    assert reader.heard_at == seen  # the same bytes, still waiting
