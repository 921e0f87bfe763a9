"""The examples of docs/library.md are run as they stand."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from furymesh.node.config import CONFIG_VARIABLE
from tests.apart import TEXT

DOCS = Path(__file__).parents[2] / "docs" / "library.md"
EXAMPLES = re.findall(r"```python\n(.*?)```", DOCS.read_text("utf-8"), re.DOTALL)
EXPECTED = (
    "copy.bin 500000 bytes from 1 peer",
    "12/12 chunks, 1 peers",
    "nobody has it now, progress is kept:",
)


@pytest.mark.parametrize(("code", "expected"), list(zip(EXAMPLES, EXPECTED, strict=True)))
def test_example_does_what_it_says(tmp_path: Path, code: str, expected: str) -> None:
    config = tmp_path / "apart.yaml"
    config.write_text(TEXT)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=tmp_path,
        env={**os.environ, CONFIG_VARIABLE: str(config)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert expected in done.stdout
