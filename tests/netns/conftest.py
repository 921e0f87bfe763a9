"""Fixtures of the namespace tests: labs that are torn down whatever happens."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack

import pytest

from tests.e2e.mesh import Mesh
from tests.netns.lab import Lab, Shape, why_not
from tests.netns.segment import FAST, Segment

MakeLab = Callable[[Sequence[Shape]], Lab]
MakeSegment = Callable[..., Segment]


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


@pytest.fixture
def segment(mesh: Mesh, lab_needed: None) -> Iterator[MakeSegment]:
    """Builds one from a number of hosts, or from their shapes."""
    with ExitStack() as stack:

        def build(hosts: int, shapes: Sequence[Shape] = ()) -> Segment:
            lab = stack.enter_context(Lab(shapes or [FAST] * hosts))
            stack.callback(mesh.close)
            return Segment(lab, mesh, stack)

        yield build
