"""Fixtures of the namespace tests: labs that are torn down whatever happens."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack

import pytest

from tests.netns.lab import Lab, Shape, why_not

MakeLab = Callable[[Sequence[Shape]], Lab]


@pytest.fixture
def lab_needed() -> None:
    """Skips, saying why, where no lab can be built."""
    if (reason := why_not()) is not None:
        pytest.skip(reason)


@pytest.fixture
def make_lab(lab_needed: None) -> Iterator[MakeLab]:
    """Builds labs from shapes."""
    with ExitStack() as labs:
        yield lambda shapes: labs.enter_context(Lab(shapes))
