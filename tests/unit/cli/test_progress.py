"""The bar, drawn on what takes itself for a terminal."""

from __future__ import annotations

import io
import re
import sys

import pytest

from furymesh.cli import progress
from furymesh.cli.progress import Bar, Lines, open_display

HIDE_CURSOR, SHOW_CURSOR = "\x1b[?25l", "\x1b[?25h"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


# The tests put it in place themselves: pytest's capturing has its own stderr
# for the set-up of a fixture.
@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    monkeypatch.setattr(progress, "REDRAW_SECONDS", 0.0)
    for name, value in {"TERM": "xterm", "COLUMNS": "80", "LINES": "24"}.items():
        monkeypatch.setenv(name, value)
    return Terminal()


def frames(screen: Terminal) -> list[str]:
    """What the bar's line held, one after the other, without colours."""
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.getvalue())
    return [frame for frame in re.split(r"[\r\n]+", plain) if frame.strip()]


@pytest.mark.parametrize("columns", [40, 80, 132])
def test_the_bar_fits_and_leaves_nothing(
    terminal: Terminal, columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("COLUMNS", str(columns))
    bar = Bar()
    for done in (0, 50, 100):
        bar.show("Progress", done, 100, [f"{done}%", f"{done}/100", "7.7 MB/s", "1 peer"])
    bar.line("a note \x1b]0;title\x07")
    bar.close()
    bar.close()
    shown = frames(terminal)
    assert max(map(len, shown)) <= columns
    assert any(frame.startswith("Progress ") and "50/100" in frame for frame in shown)
    assert any("a note \\x1b]0;title\\x07" in frame for frame in shown)
    text = terminal.getvalue()
    assert text.count(HIDE_CURSOR) == text.count(SHOW_CURSOR) == 1
    assert text.endswith("\x1b[2K")


def test_the_bar_comes_back(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", terminal)
    bar = Bar()
    for activity in ("Checking", "Progress"):
        bar.show(activity, 1, 2, ["50%"])
        bar.close()
    assert terminal.getvalue().count(SHOW_CURSOR) == 2


def test_which_display_fits(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", terminal)
    assert isinstance(open_display(), Bar)
    monkeypatch.setattr(sys, "stdout", Terminal())
    assert isinstance(open_display(json=True), Lines)
    assert isinstance(open_display(), Bar)
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(open_display(), Lines)
    monkeypatch.setattr(sys, "stderr", None)
    assert isinstance(open_display(), Lines)


def test_a_stderr_that_went_away_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stderr", Gone())
    for display in (Lines(), Bar()):
        display.show("Progress", 1, 2, ["50%"])
        display.line("note")
        display.close()
