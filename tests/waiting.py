"""Waiting in tests: until something is so, never for a time in which it should become so."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable

import trio

TIMEOUT = 5.0  # seconds; nothing that is waited for takes one, but machines are busy
LOOK_SECONDS = 0.002
BLOCKING_LOOK_SECONDS = 0.02  # such a look may be a process of its own
SHOWN = 500  # characters of a value in a failure

Condition = Callable[[], object]


async def until(condition: Condition, timeout: float = TIMEOUT) -> None:
    """Let other tasks work until `condition` holds; AssertionError after `timeout` seconds."""
    deadline = trio.current_time() + timeout
    while not condition():
        assert trio.current_time() < deadline, _awaited(condition, timeout)
        await trio.sleep(LOOK_SECONDS)


def block_until(condition: Condition, timeout: float = TIMEOUT) -> None:
    """`until` for what other threads and processes do."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, _awaited(condition, timeout)
        time.sleep(BLOCKING_LOOK_SECONDS)


def _awaited(condition: Condition, timeout: float) -> str:
    """The condition as it stands in the test, and what its variables are now."""
    source = " ".join(inspect.getsource(condition).split())
    values = inspect.getclosurevars(condition).nonlocals
    lines = [f"{name} = {value!r:.{SHOWN}}" for name, value in values.items()]
    return "\n".join([f"after {timeout:g} s not so: {source}", *lines])
