"""The demonstration, of a smaller file."""

from __future__ import annotations

from pathlib import Path

import pytest

from furymesh.cli import demo
from furymesh.cli.main import main


def test_the_demo_does_what_it_tells_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo, "SIZE", 12 * 1024 * 1024)
    monkeypatch.setattr(demo, "NODE_RATE", "2M")
    place = tmp_path / "elsewhere"
    assert main(["demo", "--data-dir", str(place)]) == 0
    told = capsys.readouterr().out
    assert "killed process" in told
    assert "film.bin is byte for byte the shared content" in told
    assert max(map(len, told.splitlines())) <= 80
    assert list(place.iterdir()) == []
