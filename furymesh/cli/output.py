"""What commands print: lines and JSON on stdout, notes on stderr, tables.

Only this module, `progress` and `asking` write to the standard streams. Whoever reads
stdout may go away (`| head`): `BrokenPipeError` leaves here and ends the
command quietly. stderr going away stops nothing.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from furymesh.cli.exits import exit_code, main_cause, one_line, reason
from furymesh.core.ids import NodeId, node_id_text
from furymesh.core.paths import shown

PROGRAM = "furymesh"
MIN_WIDTH = 40  # below this nothing can be laid out; lines then wrap
ID_LENGTHS = (64, 32, 16)  # hex digits a table may show, each good as a prefix
SHORT_ID = 8  # where it does not fit otherwise
MIN_CELL = 8  # characters that a shortened cell keeps at least
NAMED = 3  # paths that one line names
CLEAR_LINE = "\r\x1b[K"


def say(line: str) -> None:
    """One line of the answer, on stdout, at once."""
    print(line, flush=True)


def say_json(record: dict[str, Any] | list[dict[str, Any]]) -> None:
    """One JSON value on a line of its own, at once; escaped to plain ASCII."""
    print(json.dumps(record, separators=(",", ":")), flush=True)


def say_listening(node_id: NodeId, addresses: Sequence[str], *facts: str, json: bool) -> None:
    """What a long-lived command says first: who it is and where it listens."""
    text = node_id_text(node_id)
    if json:
        say_json({"event": "listening", "node_id": text, "addresses": list(addresses)})
        return
    say(f"Node ID: {text}")
    for address in addresses:
        say(f"Listening on {shown(address)}")
    for fact in facts:
        say(fact)
    say("Press Ctrl-C to stop.")


def note(line: str) -> None:
    """One line beside the answer, on stderr."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        print(line, file=sys.stderr, flush=True)


def complain(line: str) -> None:
    """One line on stderr that says what went wrong."""
    note(f"{PROGRAM}: {one_line(line)}")


def left_out(paths: Sequence[str]) -> None:
    """One line about what is in a folder and does not travel, if there is anything."""
    if paths:
        more = f" and {len(paths) - NAMED:,} more" if len(paths) > NAMED else ""
        named = ", ".join(map(shown, paths[:NAMED]))
        note(f"Left out: {named}{more} (links, pipes and devices do not travel)")


def clear_line() -> None:
    """At a terminal: take back the line that the cursor is on, such as the echo of Ctrl-C."""
    if is_terminal(sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write(CLEAR_LINE)
            sys.stderr.flush()


@contextlib.contextmanager
def failures_as_json(enabled: bool) -> Iterator[None]:
    """With `enabled`, what is raised inside is also told on stdout, as an event."""
    try:
        yield
    except (Exception, KeyboardInterrupt) as error:
        cause = main_cause(error)
        if enabled and not isinstance(cause, BrokenPipeError):
            say_json({"event": "failed", "code": exit_code(cause), "reason": reason(cause)})
        raise


def is_terminal(stream: Any) -> bool:
    """Whether `stream` is a terminal that can move its cursor."""
    try:
        return bool(stream.isatty()) and os.environ.get("TERM", "") not in ("", "dumb", "unknown")
    except (AttributeError, ValueError):
        return False


def width() -> int | None:
    """Columns to lay stdout out for; None (no limit) when nobody said how many."""
    if os.environ.get("COLUMNS", "").isdigit() or is_terminal(sys.stdout):
        return max(shutil.get_terminal_size().columns, MIN_WIDTH)
    return None


def percent(done: int, total: int) -> int:
    """Whole percent, rounded down: 100 means all of it."""
    return 100 if done >= total else 100 * done // total


def plural(count: int, noun: str) -> str:
    """ "1 chunk", "1,024 chunks"."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def table(
    headers: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    columns: int | None,
    shrink: Sequence[int] = (1,),
) -> str:
    """A boxed table. The first column holds file ids in hex.

    Where `columns` is too few, ids are cut to a prefix first, then the cells of
    the columns `shrink`, in this order, in their middle, then the ids again.
    """
    from tabulate import tabulate

    cells = [[shown(cell) for cell in row] for row in rows]
    if columns is not None:
        for digits in ID_LENGTHS:
            cells = [[row[0][:digits], *row[1:]] for row in cells]
            if _excess(headers, cells, columns) <= 0:
                break
        for column in shrink:
            excess = _excess(headers, cells, columns)
            if excess > 0:
                widest = max(len(row[column]) for row in cells)
                room = max(widest - excess, MIN_CELL, len(headers[column]))
                for row in cells:
                    row[column] = shorten(row[column], room)
        if _excess(headers, cells, columns) > 0:
            cells = [[row[0][:SHORT_ID], *row[1:]] for row in cells]
    return tabulate(
        cells, headers=headers, tablefmt="pretty", stralign="left", disable_numparse=True
    )


def _excess(headers: Sequence[str], rows: Sequence[Sequence[str]], columns: int) -> int:
    widths = [max(map(len, column)) for column in zip(headers, *rows, strict=True)]
    return sum(widths) + 3 * len(widths) + 1 - columns


def shorten(text: str, room: int) -> str:
    """`text` in at most `room` characters; its end, where names differ, stays."""
    if len(text) <= room:
        return text
    tail = (room - 1) * 2 // 3
    gap = "…" if can_print("…") else "~"
    return f"{text[: room - 1 - tail]}{gap}{text[len(text) - tail :]}"


def can_print(text: str) -> bool:
    """Whether stdout's encoding has these characters."""
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError, AttributeError):
        return False
    return True
