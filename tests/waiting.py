"""Waiting in tests: until something is so, never for a time in which it should become so."""

from __future__ import annotations

import inspect
import math
import time
from collections.abc import Callable, Iterator

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
        assert trio.current_time() < deadline, _described(condition, f"after {timeout:g} s not so")
        await trio.sleep(LOOK_SECONDS)


def block_until(condition: Condition, timeout: float = TIMEOUT) -> None:
    """`until` for what other threads and processes do."""
    for seconds in looks(BLOCKING_LOOK_SECONDS):
        if condition():
            return
        assert seconds < timeout, _described(condition, f"after {timeout:g} s not so")


def holds(condition: Condition, seconds: float, pause: float = BLOCKING_LOOK_SECONDS) -> None:
    """Assert that `condition` stays so for `seconds`: what a trouble of that length must not do."""
    for passed in looks(pause, seconds):
        assert condition(), _described(condition, f"no longer so after {passed:.2f} s")


async def stays(condition: Condition, seconds: float) -> None:
    """`holds` while other tasks work: what must not come of an event has that long to come."""
    start = trio.current_time()
    while (passed := trio.current_time() - start) < seconds:
        assert condition(), _described(condition, f"no longer so after {passed:.2f} s")
        await trio.sleep(LOOK_SECONDS)
    assert condition(), _described(condition, f"no longer so after {seconds:.2f} s")


def looks(pause: float, seconds: float = math.inf) -> Iterator[float]:
    """Seconds passed: at once, then after each `pause`, and the last at `seconds`."""
    start = time.monotonic()
    while (passed := time.monotonic() - start) < seconds:
        yield passed
        time.sleep(min(pause, max(start + seconds - time.monotonic(), 0.0)))
    yield passed


def _described(condition: Condition, what: str) -> str:
    """The condition as it stands in the test, and what its variables are now."""
    source = " ".join(inspect.getsource(condition).split())
    values = inspect.getclosurevars(condition).nonlocals
    lines = [f"{name} = {value!r:.{SHOWN}}" for name, value in values.items()]
    return "\n".join([f"{what}: {source}", *lines])
