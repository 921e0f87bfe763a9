"""Questions at the terminal, and what is no answer."""

from __future__ import annotations

import getpass
import io
import sys

import pytest

from furymesh.cli.asking import agreed, ask, ask_secret, can_ask
from furymesh.cli.exits import Interrupted


class Typed(io.StringIO):
    """Somebody at the terminal, with these lines to say."""

    def isatty(self) -> bool:
        return True


class Interrupting(Typed):
    """Somebody who presses Ctrl-C."""

    def readline(self, size: int | None = -1) -> str:  # type: ignore[override]
        raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("answer", "yes"),
    [("y\n", True), (" YES \n", True), ("n\n", False), ("\n", False), ("", False)],
)
def test_only_yes_is_yes(answer: str, yes: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", Typed(answer))
    assert agreed("Go on?") is yes


def test_who_interrupts_a_question_has_the_next_line_for_what_is_said_of_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", Interrupting())
    with pytest.raises(Interrupted, match="before anything was done"):
        ask("Who? ")
    captured = capsys.readouterr()
    assert captured.err == "Who? \n"
    assert captured.out == ""


@pytest.mark.parametrize("nothing", [EOFError, OSError])
def test_a_secret_that_nobody_types(
    nothing: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(prompt: str) -> str:
        raise nothing

    monkeypatch.setattr(getpass, "getpass", gone)
    assert ask_secret("Passphrase: ") is None


@pytest.mark.parametrize(
    ("stdin", "there"), [(Typed(), True), (io.StringIO(), False), (None, False)]
)
def test_who_is_asked_must_be_there(
    stdin: io.StringIO | None, there: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", stdin)
    assert can_ask() is there
