"""Fixtures of the unit tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import limits


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB, another than that of `tmp_path`."""
    with limits.small_disk(tmp_path / "disk", "64k") as place:
        yield place
