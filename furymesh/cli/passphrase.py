"""Asking for the passphrase, where there is somebody to ask.

A file that is named for it comes first, for scripts and services. A passphrase
is never an argument or the text of an environment variable: others see those.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from furymesh.cli import asking
from furymesh.cli.exits import main_cause
from furymesh.core.errors import PassphraseNeededError, UsageError

if TYPE_CHECKING:
    from furymesh.node.config import Config

T = TypeVar("T")


def passphrase_for(config: Config) -> str | None:
    """The passphrase for a command that needs the keys, asked for at the terminal.

    None where none is set, where a file holds it, and where nobody can be asked:
    then whoever opens the keys finds it or says what is missing.
    """
    from furymesh.node.passphrase import is_set, passphrase_in_file

    if not is_set(config) or not _can_ask() or passphrase_in_file(config) is not None:
        return None
    return _ask("Passphrase: ")


def when_needed(run: Callable[[str | None], T]) -> T:
    """`run(None)`, and `run(passphrase)` only if it turns out to need one."""
    try:
        return run(None)
    except Exception as error:
        if not isinstance(main_cause(error), PassphraseNeededError) or not _can_ask():
            raise
    return run(_ask("Passphrase: "))


def new_passphrase(config: Config) -> str:
    """The passphrase to set; raises UsageError, PassphraseNeededError."""
    from furymesh.node.passphrase import (
        NEW_VARIABLE,
        VARIABLE,
        checked_passphrase,
        is_set,
        new_passphrase_in_file,
        passphrase_in_file,
    )

    named = new_passphrase_in_file()
    in_file = passphrase_in_file(config)
    if named is None and in_file is not None and not (is_set(config) and _can_ask()):
        # The one that is set already: then this finishes a change that was interrupted.
        named = in_file
    if named is not None:
        return named
    if not _can_ask():
        raise PassphraseNeededError(
            "there is no terminal to ask for a passphrase: name a file that holds it in"
            f" ${VARIABLE} or encryption.passphrase_file, and for a change the new one in"
            f" ${NEW_VARIABLE}"
        )
    first = checked_passphrase(_ask("New passphrase: "))
    if _ask("The same again: ") != first:
        raise UsageError("the two passphrases differ; nothing was changed")
    return first


def _can_ask() -> bool:
    # getpass finds the terminal of the process even where stdin is a pipe.
    return any(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stderr))


def _ask(prompt: str) -> str:
    answer = asking.ask_secret(prompt)
    if answer is None:
        raise PassphraseNeededError("no passphrase was given; nothing was changed")
    return answer
