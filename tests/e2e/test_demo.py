"""The demonstration, of a smaller file."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_demo_that_is_ended_early_leaves_nothing_behind(
    tmp_path: Path, number: signal.Signals
) -> None:
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        [sys.executable, "-m", "furymesh", "demo"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    ) as demo:
        assert demo.stdout is not None
        assert [demo.stdout.readline(), demo.stdout.readline()[:2]] == ["\n", "1."]
        assert list(tmp_path.iterdir())
        demo.send_signal(number)
        _, err = demo.communicate(timeout=20)
    assert demo.returncode == 130
    assert err == "furymesh: interrupted\n"
    assert list(tmp_path.iterdir()) == []
