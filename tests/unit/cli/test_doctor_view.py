"""How findings of `furymesh doctor` look."""

from __future__ import annotations

import pytest

from furymesh.cli.cmd_doctor import _line
from furymesh.node.doctor import Finding, Verdict

FINDING = Finding(
    "router", Verdict.NOTE, "it lets nobody in", "forward TCP port 7654 there by hand"
)


@pytest.mark.parametrize("columns", ["40", "60", "80"])
def test_a_finding_keeps_to_the_terminal(columns: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    lines = _line(FINDING).splitlines()
    assert max(map(len, lines)) <= int(columns)
    advice = ["         → forward TCP port 7654 there by hand"]
    if columns == "40":
        advice = ["         → forward TCP port 7654 there", "           by hand"]
    assert lines == ["note     router: it lets nobody in", *advice]


def test_a_finding_that_goes_to_a_file_is_not_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    assert _line(FINDING).splitlines()[1].endswith("forward TCP port 7654 there by hand")
