"""Fixtures of the namespace tests: labs that are torn down whatever happens."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack

import pytest

from tests.netns.lab import Lab, Shape, why_not

MakeLab = Callable[[Sequence[Shape]], Lab]


@pytest.fixture
def make_lab() -> Iterator[MakeLab]:
    """Builds labs from shapes; skips, saying why, where none can be built."""
    if (reason := why_not()) is not None:
        pytest.skip(reason)
    with ExitStack() as labs:
        yield lambda shapes: labs.enter_context(Lab(shapes))
