"""How a command ends: the one table from errors to exit codes, and the words.

The codes are part of the command line's contract; scripts rely on them.
"""

from __future__ import annotations

from furymesh.core.errors import (
    AlreadyRunningError,
    FuryMeshError,
    UnavailableError,
    UsageError,
    VerificationError,
    WrongKeyError,
)
from furymesh.core.paths import shown
from furymesh.core.secrets import redacted

DONE = 0
FAILED = 1  # for a stated reason
USAGE = 2  # wrong usage or bad configuration
UNAVAILABLE = 3  # no peer has it, or timed out; progress is kept
MISMATCH = 4  # verification failed
BUSY = 5  # already running on this download or node
INTERRUPTED = 130  # by Ctrl-C or SIGTERM; progress is kept

# The first class that fits decides.
EXIT_CODES: tuple[tuple[type[BaseException], int], ...] = (
    (UsageError, USAGE),
    (UnavailableError, UNAVAILABLE),
    (VerificationError, MISMATCH),
    (WrongKeyError, MISMATCH),
    (AlreadyRunningError, BUSY),
    (KeyboardInterrupt, INTERRUPTED),
    (Exception, FAILED),
)


class Interrupted(KeyboardInterrupt):
    """SIGINT or SIGTERM ended a command; the message says what became of its work."""


def exit_code(error: BaseException) -> int:
    """The code that a command ends with because of `error`."""
    return next((code for kind, code in EXIT_CODES if isinstance(error, kind)), FAILED)


def reason(error: BaseException) -> str:
    """One plain line for people: what is wrong and what to do next."""
    if isinstance(error, FuryMeshError | Interrupted) and str(error):
        return one_line(str(error))
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    if isinstance(error, OSError) and error.strerror:
        where = f" {error.filename}" if error.filename is not None else ""
        return one_line(f"the system refused{where}: {error.strerror.lower()}")
    if isinstance(error, MemoryError):
        return "out of memory: close other programs, then run this again"
    return one_line(
        f"internal error ({type(error).__name__}: {str(error)[:200]});"
        " this is a bug: run it again with --debug before the command to see where"
    )


def main_cause(error: BaseException) -> BaseException:
    """What to report of a group of errors: one raised on purpose, else the first."""
    if not isinstance(error, BaseExceptionGroup):
        return error
    leaves = [main_cause(inner) for inner in error.exceptions]
    return next((leaf for leaf in leaves if isinstance(leaf, FuryMeshError)), leaves[0])


def one_line(text: str) -> str:
    """`text` on one line: nothing in it that a terminal would obey, and no content key."""
    return shown(redacted(" ".join(text.split())))
