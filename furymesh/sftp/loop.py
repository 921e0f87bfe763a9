"""An asyncio event loop in a thread of its own, and waiting for what runs there.

The SSH library knows asyncio only, and so do the transfers. Under trio they get
a real asyncio loop rather than one that trio imitates: that took twice the time.

Always true: every coroutine that `start` took ends, and its end is told, even if
the loop is stopped meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import trio

from furymesh.core.errors import UsageError

T = TypeVar("T")
Work = Coroutine[Any, Any, T]
Cancel = Callable[[], None]

CANCEL_SECONDS = 10.0  # to remove a temporary file after Ctrl-C


class Loop:
    """An event loop that runs until `stop`."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._stopped = False
        self._lock = threading.Lock()  # so that nothing is begun behind the stop
        # A daemon: a disk that hangs must not keep the interpreter from ending.
        self._thread = threading.Thread(target=self._run, name="furymesh-sftp", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
            while left := asyncio.all_tasks(self._loop):
                for task in left:
                    task.cancel()
                self._loop.run_until_complete(asyncio.wait(left))
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        finally:
            asyncio.set_event_loop(None)
            self._loop.close()

    def start(
        self, work: Work[T], ended: Callable[[asyncio.Task[T]], object]
    ) -> Callable[[], None]:
        """Begin; returns what cancels it. `ended` is called in the loop's thread.

        Raises UsageError after `stop`.
        """
        begun: list[asyncio.Task[T]] = []

        def begin() -> None:
            begun.append(self._loop.create_task(work))
            begun[0].add_done_callback(ended)

        def cancel() -> None:
            begun[0].cancel()

        with self._lock:
            if self._stopped:
                work.close()
                raise UsageError("the connection is closed: open another one")
            self._loop.call_soon_threadsafe(begin)
        return lambda: self._call(cancel)

    def _call(self, function: Callable[[], object]) -> None:
        with self._lock, contextlib.suppress(RuntimeError):  # closed: then it has ended
            self._loop.call_soon_threadsafe(function)

    def stop(self, seconds: float) -> None:
        """End the thread, cancelling what runs in it; wait for that at most so long."""
        with self._lock:
            if not self._stopped:
                self._stopped = True
                self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(seconds)

    def run(self, work: Work[T]) -> T:
        """Wait in this thread; Ctrl-C cancels the work and gives it a while to end."""
        if threading.current_thread() is self._thread:
            work.close()
            raise UsageError("a progress callback cannot use its own connection: it would wait")
        over = threading.Event()
        tasks: list[asyncio.Task[T]] = []

        def ended(task: asyncio.Task[T]) -> None:
            tasks.append(task)
            over.set()

        cancel = self.start(work, ended)
        try:
            over.wait()
        except BaseException:
            cancel()
            over.wait(CANCEL_SECONDS)
            raise
        return _result(tasks[0])

    async def run_under_trio(self, work: Work[T]) -> T:
        """Wait as a trio task; cancelling it cancels the work, and waits for its end."""
        waiting = trio.lowlevel.current_task()
        token = trio.lowlevel.current_trio_token()
        tasks: list[asyncio.Task[T]] = []
        cancelled: list[Callable[[], object]] = []

        def ended(task: asyncio.Task[T]) -> None:
            tasks.append(task)
            with contextlib.suppress(trio.RunFinishedError):
                token.run_sync_soon(trio.lowlevel.reschedule, waiting)

        cancel = self.start(work, ended)

        def abort(raise_cancelled: Callable[[], object]) -> trio.lowlevel.Abort:
            cancelled.append(raise_cancelled)
            cancel()
            return trio.lowlevel.Abort.FAILED

        await trio.lowlevel.wait_task_rescheduled(abort)
        if cancelled and tasks[0].cancelled():
            cancelled[0]()
        return _result(tasks[0])


def _result(task: asyncio.Task[T]) -> T:
    try:
        return task.result()
    except asyncio.CancelledError:
        raise UsageError("the connection is closed: open another one") from None
