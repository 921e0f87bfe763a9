"""What the tests of several directories share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.mesh import Mesh


@pytest.fixture
def mesh(tmp_path: Path) -> Iterator[Mesh]:
    """Processes of this test; none of them outlives it."""
    made = Mesh(tmp_path)
    try:
        yield made
    finally:
        made.close()
