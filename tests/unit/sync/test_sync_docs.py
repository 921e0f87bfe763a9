from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).parents[2]


def test_every_test_that_the_page_names_exists() -> None:
    page = (TESTS.parent / "docs/sync.md").read_text("utf-8")
    named = set(re.findall(r"`(test_\w+)`", page))
    assert len(named) > 40
    sources = [path.read_text("utf-8") for path in TESTS.rglob("test_*.py")]
    defined = {name for text in sources for name in re.findall(r"def (test_\w+)\(", text)}
    assert named <= defined, sorted(named - defined)
