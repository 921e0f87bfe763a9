"""What the tests of several directories share."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.mesh import Mesh

# Where long forms run side by side (`make torture`): what mostly waits, what mostly
# computes, and the rest, whose tests follow each other.
BESIDE = {"test_soak.py": "waits", "fuzz": "computes", "power": "computes"}


def pytest_configure() -> None:
    """As at a terminal: who runs the tests in the background may have SIGINT ignored."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        group = next((BESIDE[part] for part in item.path.parts if part in BESIDE), "acts")
        item.add_marker(pytest.mark.xdist_group(group))


@pytest.fixture
def mesh(tmp_path: Path) -> Iterator[Mesh]:
    """Processes of this test; none of them outlives it."""
    made = Mesh(tmp_path)
    try:
        yield made
    finally:
        made.close()
