"""Running asynchronous work under signals.

The first SIGINT or SIGTERM cancels the work, which then has all the time it
needs to leave its state in order. Another one, a moment later, leaves at once:
whoever insists is right, and nothing recorded is lost by it.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from furymesh.cli import output
from furymesh.cli.exits import INTERRUPTED, Interrupted

if TYPE_CHECKING:
    import trio

T = TypeVar("T")
P = ParamSpec("P")

# A key held down or pressed twice in one go is one wish, not two.
INSIST_SECONDS = 1.0
SHOW_CURSOR = "\x1b[?25h"


class Job:
    """One run of the event loop; see `run_job`."""

    def __init__(self, scope: trio.CancelScope) -> None:
        self._scope = scope
        self._failure: BaseException | None = None
        self.interrupted = False

    def guard(self, show: Callable[P, None]) -> Callable[P, None]:
        """`show` for use as a callback: a failure in it ends the job from outside.

        Whatever calls back must not find a closed pipe in the middle of its work.
        """

        def guarded(*args: P.args, **kwargs: P.kwargs) -> None:
            if self._failure is None:
                try:
                    show(*args, **kwargs)
                except Exception as error:
                    self._failure = error
                    self._scope.cancel()

        return guarded

    def interrupt(self) -> None:
        self.interrupted = True
        self._scope.cancel()

    def raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure


def run_job(work: Callable[[Job], Awaitable[T]]) -> T:
    """Run `work` to its end; raises Interrupted if a signal ended it, else its error."""
    import trio

    async def main() -> T:
        scope = trio.CancelScope()
        job = Job(scope)
        results: list[T] = []
        async with trio.open_nursery() as nursery:
            await nursery.start(_watch_signals, job)
            try:
                with scope:
                    results.append(await work(job))
            finally:
                nursery.cancel_scope.cancel()
        job.raise_failure()
        if not results:
            raise Interrupted
        return results[0]

    return trio.run(main)


async def _watch_signals(job: Job, task_status: trio.TaskStatus[None]) -> None:
    import trio

    first: float | None = None
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        task_status.started()
        async with trio.open_nursery() as nursery:
            async for _ in signals:
                output.clear_line()
                if first is None:
                    first = trio.current_time()
                    job.interrupt()
                    nursery.start_soon(_explain)
                elif trio.current_time() - first > INSIST_SECONDS:
                    _leave_at_once()


async def _explain() -> None:
    import trio

    await trio.sleep(INSIST_SECONDS)
    output.note("Stopping; once more to leave at once. What was recorded stays.")


def _leave_at_once() -> None:
    if output.is_terminal(sys.stderr):
        sys.stderr.write(SHOW_CURSOR)
        sys.stderr.flush()
    os._exit(INTERRUPTED)
