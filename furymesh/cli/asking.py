"""Questions to whoever sits at the terminal.

They are asked on stderr: stdout is for the answer of the command. A Ctrl-C in
the midst of one raises Interrupted.
"""

from __future__ import annotations

import getpass
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from furymesh.cli.exits import Interrupted


def can_ask() -> bool:
    """Whether somebody is there to answer."""
    return sys.stdin is not None and sys.stdin.isatty()


def ask(prompt: str) -> str:
    """The line that is typed, stripped; empty if none is."""
    with _interruptible():
        sys.stderr.write(prompt)
        sys.stderr.flush()
        return sys.stdin.readline().strip()


def agreed(question: str) -> bool:
    """Whether the answer is yes; no answer is no."""
    return ask(f"{question} [y/N] ").lower() in ("y", "yes")


def ask_secret(prompt: str) -> str | None:
    """What is typed, unseen; None if nobody types it."""
    with _interruptible():
        try:
            return getpass.getpass(prompt)
        except (EOFError, OSError):
            return None


@contextmanager
def _interruptible() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        sys.stderr.write("\n")  # the question stands on this line
        raise Interrupted("interrupted before anything was done") from None
