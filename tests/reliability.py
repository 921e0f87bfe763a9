"""What the long tests showed, as one table: printed, and kept in docs/reliability.md.

A pytest plugin, loaded by `make torture` with `-p tests.reliability`. A test says by
the marker `promise`, or by recording the property `row`, which of PROMISES it tries;
it records `cases` (how often), `result` (a clause) and perhaps `seed`. What bears the
marker and fails is in the table however early it failed. With `--keep-table FILE` the
lines of the promises that were tested replace those in FILE; others stay.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from tabulate import tabulate

Record = Callable[[str, object], None]  # what pytest's record_property is

PROMISES = {
    1: "SIGKILL at any moment: no wrong byte, nothing journaled fetched again, nothing to clean up",
    2: "cancelled at any step: no descriptor or task leaks, the next run goes on",
    3: "any disk call fails: one line, other downloads go on, the state stays good",
    4: "power cut: no chunk counts as present that is not on the disk",
    5: "damaged state files: noticed or harmless, the finished file is right",
    6: "the disk fills up: a pause that says so, and it goes on by itself",
    7: "hostile messages: the node stays up, that link ends, memory is bounded",
    8: "any bytes into any parser: an error that is documented, or none",
    9: "links that idle, trickle or never read: others keep 80 % of their rate",
    10: "floods of made-up peers: tables stay bounded, real peers are found",
    11: "poisoned chunks: the file is exact, liars are banned, nobody honest is",
    12: "peers that vanish, stall or lie: it completes without long pauses",
    13: "split and lossy networks: going on within 30 s of the healing",
    14: "all attacks at once within 256 MiB of memory: not killed",
    15: "10,000 connections of every bad kind: descriptors and tasks come back",
    16: "clocks that are wrong or jump: no hang, no ban, no lost progress",
    17: "two processes on one download: one wins, a dead one blocks nobody",
    18: "the shared file changes: no wrong byte, nobody is blamed",
    19: "hostile names and links: nothing is opened outside the folder",
    20: "wrong keys, replays, tampering: refused before a message is read",
    21: "asking without the id: no telling whether the content exists",
    22: "secrets: in no log, message, traceback or argument list",
    23: "hours of comings and goings: memory and descriptors stay flat",
}

_HEAD = "| # | promise | tried | what was seen | seconds | date |\n|---|---|---|---|---|---|\n"
_LINE = re.compile(r"^\| (\d+) \|.*\n", re.MULTILINE)
_TABLE = re.compile(r"^\| # \| promise .*\n\|---.*\n(?:\| \d+ \|.*\n)*", re.MULTILINE)


@dataclass(slots=True)
class Row:
    """What all tests of one promise showed."""

    tests: int = 0
    failed: list[str] = field(default_factory=list)
    cases: int = 0
    seconds: float = 0.0
    seen: list[str] = field(default_factory=list)

    def take(self, report: pytest.TestReport, said: dict[str, Any]) -> None:
        self.tests += 1
        self.seconds += report.duration
        if not report.passed:
            self.failed.append(report.nodeid)
            return
        self.cases += int(said.get("cases", 1))
        clause = str(said.get("result", ""))
        if "seed" in said:
            clause = f"{clause} (seed {said['seed']})".strip()
        if clause and clause not in self.seen:
            self.seen.append(clause)

    @property
    def verdict(self) -> str:
        if self.failed:
            return f"FAILED: {', '.join(self.failed)}"
        return "; ".join(self.seen) or "passed"


class Reporter:
    """Collects the rows of one run."""

    def __init__(self, kept: Path | None) -> None:
        self._kept = kept
        self._rows: dict[int, Row] = {}

    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        for mark in item.iter_markers("promise"):
            item.user_properties.append(("row", mark.args[0]))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        said = dict(report.user_properties)
        counts = report.failed or (report.when == "call" and report.passed)
        if counts and "row" in said:
            self._rows.setdefault(int(str(said["row"])), Row()).take(report, said)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if not self._rows:
            return
        terminalreporter.section("what is promised, and what was seen")
        lines = [
            (
                number,
                PROMISES[number].partition(":")[0],
                row.cases,
                f"{row.seconds:.0f}",
                _short(row),
            )
            for number, row in sorted(self._rows.items())
        ]
        headers = ("#", "promise", "tried", "s", "")
        terminalreporter.write_line(
            tabulate(lines, headers=headers, maxcolwidths=[3, 30, 9, 5, 24])
        )
        if self._kept is not None:
            text = self._kept.read_text()
            self._kept.write_text(with_rows(text, self._rows.items()))


def _short(row: Row) -> str:
    return "FAILED" if row.failed else f"passed, {row.tests} test{'s' * (row.tests != 1)}"


def with_rows(text: str, rows: Iterable[tuple[int, Row]]) -> str:
    """`text` with these rows in its table, which must be there; raises ValueError if not."""
    table = _TABLE.search(text)
    if table is None:
        raise ValueError("no table to put the rows in")
    lines = {int(match[1]): match[0] for match in _LINE.finditer(table[0])}
    date = datetime.now(UTC).date().isoformat()
    for number, row in rows:
        said = (str(number), PROMISES[number], f"{row.cases:,}", row.verdict, f"{row.seconds:.0f}")
        lines[number] = f"| {' | '.join((*said, date))} |\n".replace("\\", "/")
    return (
        text[: table.start()]
        + _HEAD
        + "".join(lines[n] for n in sorted(lines))
        + text[table.end() :]
    )


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--keep-table", type=Path, help="the document whose table to bring up to date")


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Reporter(config.getoption("--keep-table")))
