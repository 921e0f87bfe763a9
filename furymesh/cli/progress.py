"""How far something is: a bar on a terminal, a line now and then elsewhere.

Everything here goes to stderr, may be called from any thread, and never raises
because stderr is gone.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from furymesh.cli import output
from furymesh.cli.exits import one_line

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress

REDRAW_SECONDS = 0.1  # a bar that moves more often only costs time
# Lines of a log: one at each clear step, but not a flood of them; and one a
# minute in any case, so that slow is never mistaken for stuck.
LINE_SECONDS = 5.0
LINE_PERCENT = 5
QUIET_SECONDS = 60.0


class Display(Protocol):
    """Where progress is shown."""

    def show(self, activity: str, done: float, total: float, facts: Sequence[str]) -> None:
        """`done` of `total` of an activity, with facts worth a glance."""

    def line(self, text: str) -> None:
        """A line that stays."""

    def close(self) -> None:
        """Take the bar off the screen; `show` brings it back."""


def open_display(*, json: bool = False) -> Display:
    """The display that fits stderr; with `json` no bar in the midst of the answer."""
    if output.is_terminal(sys.stderr) and not (json and output.is_terminal(sys.stdout)):
        return Bar()
    return Lines()


class Lines:
    """Progress as lines in a log."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        # When each activity was last told of, and how far it was.
        self._told: dict[str, tuple[float, int]] = {}

    def show(self, activity: str, done: float, total: float, facts: Sequence[str]) -> None:
        percent = output.percent(int(done), int(total))
        with self._lock:
            now = self._clock()
            if activity in self._told:
                at, before = self._told[activity]
                moved = abs(percent - before) >= LINE_PERCENT and now - at >= LINE_SECONDS
                if not moved and now - at < QUIET_SECONDS:
                    return
            self._told[activity] = now, percent
        self.line(f"{activity}: {', '.join(facts)}")

    def line(self, text: str) -> None:
        output.note(one_line(text))

    def close(self) -> None:
        pass


class Bar:
    """Progress as a bar at the bottom of a terminal, gone when it is done."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._progress: RichProgress | None = None
        self._drawn = 0.0

    def show(self, activity: str, done: float, total: float, facts: Sequence[str]) -> None:
        with self._lock, contextlib.suppress(OSError, ValueError):
            fields: dict[str, Any] = {
                "description": activity,
                "completed": done,
                "total": max(total, 1),
            }
            text = "  ".join(facts)
            if self._progress is None:
                self._progress = _new_bar()
                self._progress.add_task(**fields, facts=text)
                self._progress.start()
                return
            self._progress.update(self._progress.task_ids[0], **fields, facts=text)
            now = time.monotonic()
            if now - self._drawn >= REDRAW_SECONDS:
                self._drawn = now
                self._progress.refresh()

    def line(self, text: str) -> None:
        with self._lock, contextlib.suppress(OSError, ValueError):
            if self._progress is None:
                output.note(one_line(text))
            else:
                self._progress.console.print(
                    one_line(text), markup=False, highlight=False, emoji=False
                )

    def close(self) -> None:
        with self._lock, contextlib.suppress(OSError, ValueError):
            progress, self._progress = self._progress, None
            if progress is not None:
                progress.stop()


def _new_bar() -> RichProgress:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    class Screen(Console):
        def on_broken_pipe(self) -> None:
            # Rich would end the process here; a download outlives its screen.
            self.quiet = True

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=None),
        TextColumn("{task.fields[facts]}", markup=False),
        console=Screen(stderr=True),
        expand=True,
        transient=True,
        # No thread: what calls `show` also draws, and a kill leaves nothing behind.
        auto_refresh=False,
        # stdout may be a pipe with the answer in it.
        redirect_stdout=False,
        redirect_stderr=False,
    )


class BytesMeter:
    """Shows bytes done of bytes in all, with rate and time left.

    What is done at the first call was done before: it does not count for the rate.
    """

    def __init__(
        self, display: Display, activity: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._display = display
        self._activity = one_line(activity)
        self._clock = clock
        self._first: tuple[float, int] | None = None

    def __call__(self, done: int, total: int) -> None:
        from furymesh.core.units import format_duration, format_rate, format_size

        facts = [
            f"{output.percent(done, total)}%",
            f"{format_size(done)} of {format_size(total)}",
        ]
        now = self._clock()
        since, before = self._first = self._first or (now, done)
        elapsed, moved = now - since, done - before
        if elapsed > 1 and moved:
            rate = moved / elapsed
            facts += [format_rate(rate), f"{format_duration((total - done) / rate)} left"]
        self._display.show(self._activity, done, total, facts)
