"""The `furymesh` command: runs one command line and ends it properly.

Whatever a command raises becomes one plain line on stderr and the exit code of
`furymesh.cli.exits`; a traceback is shown to those who ask with --debug or
FURYMESH_DEBUG=1. Imports wait until `run` is in charge, so that even an early
Ctrl-C ends in one line.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import typer

DEBUG_VARIABLE = "FURYMESH_DEBUG"
COMPLETION_VARIABLE = "_FURYMESH_COMPLETE"


def run() -> None:
    """Run the command line of this process and exit."""
    # Python leaves out a stream whose descriptor was closed by the caller.
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        # Names may hold what the terminal's encoding lacks; that ends no command.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        code = main(sys.argv[1:])
    finally:
        # From here on a Ctrl-C could only interrupt the interpreter's farewell.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.exit(code)


def main(arguments: Sequence[str]) -> int:
    """Run one command line; returns the exit code and raises nothing."""
    try:
        return _run(list(arguments))
    except BaseException as error:
        return _report(error)


def _run(arguments: list[str]) -> int:
    import typer

    completing = COMPLETION_VARIABLE in os.environ
    command = _command([] if completing else arguments)
    if completing:
        command.main(arguments, prog_name="furymesh", complete_var=COMPLETION_VARIABLE)
        return 0
    try:
        with command.make_context("furymesh", arguments) as context:
            command.invoke(context)
        sys.stdout.flush()
    except typer.Exit as end:
        return end.exit_code
    return 0


def _report(error: BaseException) -> int:
    import typer

    from furymesh.cli.exits import FAILED, USAGE, exit_code, main_cause, reason
    from furymesh.cli.output import clear_line, complain, note

    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else 0
    cause = main_cause(error)
    if isinstance(cause, BrokenPipeError):
        # Whoever read the answer has seen enough. What is left in the buffer
        # must not raise again when the interpreter closes the stream.
        _close_stdout()
        return FAILED
    if isinstance(cause, typer.TyperException):
        complain(_usage_line(cause))
        return USAGE
    if os.environ.get(DEBUG_VARIABLE, "0") not in ("", "0"):
        import traceback

        from furymesh.core.secrets import redacted

        note(redacted("".join(traceback.format_exception(error)).rstrip()))
    if isinstance(cause, KeyboardInterrupt):
        clear_line()
    complain(reason(cause))
    return exit_code(cause)


def _usage_line(error: typer.TyperException) -> str:
    """What typer found wrong, as one sentence with the way to the help."""
    context: Any = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "furymesh"
    option = getattr(error, "option_name", None)
    close: Sequence[str] = getattr(error, "possibilities", None) or ()
    text = error.format_message().rstrip(".")
    if option and text.startswith("No such option"):
        text = f"no such option {option}"
        if close:
            text += f"; did you mean {' or '.join(close)}?"
    text = text[:1].lower() + text[1:]
    text = text.partition(", unable to parse")[0].replace(": Input should", ": it should")
    text = text.replace(". Did you", "; did you")
    return f"{text}{' ' if text.endswith('?') else '; '}see `{path} --help`"


def _close_stdout() -> None:
    try:
        sink = os.open(os.devnull, os.O_WRONLY)
        os.dup2(sink, sys.stdout.fileno())
        os.close(sink)
    except (OSError, ValueError, AttributeError):
        pass


def _command(arguments: list[str]) -> Any:
    from typer.main import get_command

    from furymesh.cli.app import make_app

    command = get_command(make_app(arguments))
    _hide_types(command)
    return command


def _hide_types(command: Any) -> None:
    """Of arguments in the help: "PATH <list[str]>" means nothing to who is no programmer."""
    for inner in getattr(command, "commands", {}).values():
        _hide_types(inner)
    for parameter in command.params:
        if parameter.param_type_name == "argument":
            parameter.display_type_rich = lambda ctx: None
