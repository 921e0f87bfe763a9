"""A loop of its own beside a test that is not async."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import trio


@contextmanager
def beside(main: Callable[..., Awaitable[object]]) -> Iterator[None]:
    """Run `main` in a thread for as long as the block takes, which begins once it has started.

    It says so through its `task_status`, as for `Nursery.start`. What it raises is
    raised where the block ends.
    """
    end: Future[Callable[[], None]] = Future()

    async def run() -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(main)
            token = trio.lowlevel.current_trio_token()
            end.set_result(partial(token.run_sync_soon, nursery.cancel_scope.cancel))

    with ThreadPoolExecutor(1) as thread:
        running = thread.submit(trio.run, run)
        started: tuple[Future[Any], ...] = (end, running)
        wait(started, return_when=FIRST_COMPLETED)
        if end.done():
            try:
                yield
            finally:
                with suppress(trio.RunFinishedError):
                    end.result()()
        running.result()
