"""Fixtures of the fault tests: those of the end-to-end tests, and disks that fail."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import seed as seed
from tests.e2e.conftest import small_disk as small_disk
from tests.faults.disk import Commands, build_faults, why_no_faults


@pytest.fixture(scope="session")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Commands]:
    """Commands that start in milliseconds."""
    with Commands(tmp_path_factory.mktemp("commands"), preload=None) as started:
        yield started


@pytest.fixture(scope="session")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Commands]:
    """Commands with a disk that can be told to fail; skips where there is no C compiler."""
    if (reason := why_no_faults()) is not None:
        pytest.skip(reason)
    place: Path = tmp_path_factory.mktemp("faulty")
    with Commands(place, preload=build_faults(place)) as started:
        yield started
