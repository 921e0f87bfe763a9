"""Lines, JSON and tables."""

from __future__ import annotations

import io
import json

import pytest

from furymesh.cli import output
from furymesh.cli.exits import Interrupted
from furymesh.core.errors import UnavailableError

HEADERS = ("File ID", "Name", "Size", "Chunks", "Progress")
ROW = ("3f7b8a1c" * 8, "file.txt", "1.2 MB", "5/10", "50%")


def test_table_looks_as_documented() -> None:
    row = ("3f7b8a1c2d9e4f5a6b7c8d9e0f1a2b3c", "file.txt", "1.2 MB", "5/10", "50%")
    assert output.table(HEADERS, [row], columns=None).splitlines() == [
        "+----------------------------------+----------+--------+--------+----------+",
        "| File ID                          | Name     | Size   | Chunks | Progress |",
        "+----------------------------------+----------+--------+--------+----------+",
        "| 3f7b8a1c2d9e4f5a6b7c8d9e0f1a2b3c | file.txt | 1.2 MB | 5/10   | 50%      |",
        "+----------------------------------+----------+--------+--------+----------+",
    ]


@pytest.mark.parametrize(
    ("columns", "digits"), [(None, 64), (200, 64), (80, 32), (70, 16), (56, 8)]
)
def test_ids_are_cut_to_what_fits(columns: int | None, digits: int) -> None:
    lines = output.table(HEADERS, [ROW], columns=columns).splitlines()
    assert lines[3].startswith(f"| {ROW[0][:digits]} |")
    assert columns is None or max(map(len, lines)) <= columns


@pytest.mark.parametrize("columns", [60, 80, 100, 120])
def test_long_names_are_shortened_in_the_middle(columns: int) -> None:
    row = (ROW[0], "a-very-long-name-" * 12 + "end.mkv", "999.9 GB", "262143/262144", "99%")
    lines = output.table(HEADERS, [row, ROW], columns=columns).splitlines()
    assert {len(line) for line in lines} == {len(lines[0])}
    assert len(lines[0]) <= max(columns, 67)
    assert "…" in lines[3]


def test_names_cannot_reach_the_terminal() -> None:
    text = output.table(HEADERS, [(ROW[0], "a\x1b[2J\n\u202eb", *ROW[2:])], columns=None)
    assert "\\x1b[2J\\n\\u202eb" in text
    assert len(text.splitlines()) == 5


def test_shorten_keeps_the_end() -> None:
    assert output.shorten("abcdefghij", 10) == "abcdefghij"
    cut = output.shorten("episode-one-of-many.mkv", 12)
    assert len(cut) == 12
    assert cut.endswith(".mkv")


def test_what_is_left_out_is_one_line_however_much_it_is(
    capsys: pytest.CaptureFixture[str],
) -> None:
    output.left_out(())
    assert capsys.readouterr().err == ""
    output.left_out(["a\x1b", "b"])
    reason = "(links, pipes and devices do not travel)"
    assert capsys.readouterr().err == f"Left out: a\\x1b, b {reason}\n"
    output.left_out([f"f{number}" for number in range(1203)])
    assert capsys.readouterr().err == f"Left out: f0, f1, f2 and 1,200 more {reason}\n"


def test_shorten_uses_what_the_terminal_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    assert output.shorten("a" * 20, 10) == "aaa~aaaaaa"


@pytest.mark.parametrize(
    ("done", "total", "percent"), [(0, 0, 100), (0, 7, 0), (999, 1000, 99), (7, 7, 100)]
)
def test_percent(done: int, total: int, percent: int) -> None:
    assert output.percent(done, total) == percent


def test_json_is_one_ascii_line(capsys: pytest.CaptureFixture[str]) -> None:
    output.say_json({"name": "ü\n\x1b\udc80"})
    text = capsys.readouterr().out
    assert text.isascii()
    assert text.count("\n") == 1
    assert json.loads(text) == {"name": "ü\n\x1b\udc80"}


def test_failures_become_events_and_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UnavailableError), output.failures_as_json(True):
        raise UnavailableError("nobody has it")
    with pytest.raises(Interrupted), output.failures_as_json(True):
        raise Interrupted("kept")
    with pytest.raises(ExceptionGroup), output.failures_as_json(True):
        raise ExceptionGroup("", [UnavailableError("grouped")])
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert told == [
        {"event": "failed", "code": 3, "reason": "nobody has it"},
        {"event": "failed", "code": 130, "reason": "kept"},
        {"event": "failed", "code": 3, "reason": "grouped"},
    ]


def test_failures_stay_silent_without_json(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="x"), output.failures_as_json(False):
        raise ValueError("x")
    with pytest.raises(BrokenPipeError), output.failures_as_json(True):
        raise BrokenPipeError
    assert capsys.readouterr().out == ""


def test_width_follows_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    assert output.width() is None
    monkeypatch.setenv("COLUMNS", "97")
    assert output.width() == 97
    monkeypatch.setenv("COLUMNS", "3")
    assert output.width() == output.MIN_WIDTH
