"""What the tests of several directories share."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.mesh import Mesh


def pytest_configure() -> None:
    """As at a terminal: who runs the tests in the background may have SIGINT ignored."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.pop("COLUMNS", None)  # set where tests share the processors: no terminal is meant


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest begins first: the others go past it on other processors."""
    items.sort(key=lambda item: item.path.name != "test_soak.py")


@pytest.fixture
def mesh(tmp_path: Path) -> Iterator[Mesh]:
    """Processes of this test; none of them outlives it."""
    made = Mesh(tmp_path)
    try:
        yield made
    finally:
        made.close()
