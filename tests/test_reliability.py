"""The table of docs/reliability.md is brought up to date line by line."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.reliability import PROMISES, Row, with_rows

ROOT = Path(__file__).resolve().parent.parent
DOCUMENT = ROOT / "docs" / "reliability.md"
HEAD = "| # | promise | tried | what was seen | seconds | date |\n|---|---|---|---|---|---|\n"


def test_new_lines_join_older_ones_in_order() -> None:
    old = "| 4 | as it was | 1 | fine | 2 | 2026-01-01 |\n"
    text = f"before\n\n{HEAD}{old}\nafter\n"
    rows = [(12, Row(1, [], 3, 1.2, ["slow"])), (2, Row(2, [], 1234, 9.9, ["well", "again"]))]
    lines = with_rows(text, rows).splitlines()
    date = datetime.now(UTC).date().isoformat()
    assert lines[0] == "before"
    assert lines[4] == f"| 2 | {PROMISES[2]} | 1,234 | well; again | 10 | {date} |"
    assert lines[5] == old.rstrip("\n")
    assert lines[6] == f"| 12 | {PROMISES[12]} | 3 | slow | 1 | {date} |"
    assert lines[-1] == "after"


def test_a_failure_is_named_in_its_line() -> None:
    text = with_rows(HEAD, [(1, Row(2, ["tests/x.py::test_y"], 5, 0.0, ["fine"]))])
    assert "FAILED: tests/x.py::test_y" in text


def test_what_fails_before_it_records_anything_is_in_the_table(tmp_path: Path) -> None:
    table = tmp_path / "table.md"
    table.write_text(HEAD)
    tried = tmp_path / "test_tried.py"
    tried.write_text("import pytest\n@pytest.mark.promise(3)\ndef test_it(absent): pass\n")
    options: list[str | Path] = [
        "-q",
        "-p",
        "tests.reliability",
        "--keep-table",
        table,
        "-c",
        ROOT / "pyproject.toml",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, tried],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 1, done
    assert "| 3 |" in table.read_text()
    assert "FAILED" in table.read_text()


def test_without_a_table_nothing_is_written() -> None:
    with pytest.raises(ValueError, match="no table"):
        with_rows("only words\n", [])


def test_the_document_has_its_table() -> None:
    text = DOCUMENT.read_text()
    assert with_rows(text, []) == text
