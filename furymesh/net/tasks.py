"""Nurseries whose failures come out as one plain error."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from furymesh.core.errors import FuryMeshError


@asynccontextmanager
async def open_tasks() -> AsyncIterator[trio.Nursery]:
    """A nursery; if a FuryMeshError ends it, that error is raised by itself.

    Tasks that fail at the same moment are rare, and a person can act on one
    message, so the first is kept. Errors of any other kind come out in their
    group, because they are bugs.
    """
    try:
        async with trio.open_nursery() as nursery:
            yield nursery
    except BaseExceptionGroup as group:
        expected, rest = group.split(FuryMeshError)
        only_cancelled = rest is None or rest.split(trio.Cancelled)[1] is None
        if expected is None or not only_cancelled:
            raise
        raise _first(expected) from None


def _first(group: BaseExceptionGroup[FuryMeshError]) -> FuryMeshError:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, FuryMeshError)
    return error
