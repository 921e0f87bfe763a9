"""Noticing that something in an archive has changed, so that it is synced at once.

What has changed is not asked: the next scan finds it. So nothing is missed when
the kernel's queue of events overflows, as long as one of them arrives. Without
the package that asks the kernel (extra ``watch``), and where the kernel refuses,
the archive is looked through again and again.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path
from typing import NoReturn

import trio

from furymesh.core.paths import shown
from furymesh.storage.files import open_root
from furymesh.sync.excludes import Excludes
from furymesh.sync.names import is_reserved
from furymesh.sync.walk import Walk

# Milliseconds without an event after which a change counts as finished, and after
# which it counts in any case: a file that is written all the time holds nothing up.
QUIET_MS = 300
LONGEST_MS = 3000
ANSWER_MS = 200  # how long the watcher's thread looks before it sees that it is to stop
POLL_SECONDS = 5.0
POLL_SHARE = 20  # looking through takes at most this part of one core's time


async def watch(
    root: Path,
    excludes: Excludes,
    changed: Callable[[], object],
    tell: Callable[[str], object],
    poll_seconds: float = POLL_SECONDS,
) -> NoReturn:
    """Call `changed` whenever something in the archive has, until cancelled.

    `tell` gets a line if the archive is looked through instead of watched. Raises
    EnvironmentFault if there is no such folder.
    """
    os.close(open_root(root))
    try:
        await _watch(root, excludes, changed)
    except* ImportError:
        tell(
            f"looking for changes every {poll_seconds:g} s;"
            " to see them at once: pip install 'furymesh[watch]'"
        )
    except* (OSError, RuntimeError) as group:
        error = group.exceptions[0]
        tell(f"cannot watch {shown(str(root))} ({_reason(error)}): looking for changes instead")
    await _poll(root, excludes, changed, poll_seconds)


async def _watch(root: Path, excludes: Excludes, changed: Callable[[], object]) -> None:
    """Returns if the watching ends; raises ImportError, OSError, RuntimeError or their groups."""
    from watchfiles import awatch

    top = os.path.realpath(root)
    events = awatch(
        top,
        watch_filter=None,
        step=QUIET_MS,
        debounce=LONGEST_MS,
        rust_timeout=ANSWER_MS,
        ignore_permission_denied=False,  # True would hide that the kernel has no watches left
    )
    async with contextlib.aclosing(events):
        async for changes in events:
            paths = (name.removeprefix(top).lstrip("/") for _, name in changes)
            if any(_concerns(path, excludes) for path in paths):
                changed()


def _reason(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    text = (isinstance(error, OSError) and error.strerror) or str(error).partition(". ")[0]
    return shown(text).lower()


def _concerns(path: str, excludes: Excludes) -> bool:
    try:
        return not (is_reserved(path) or excludes.covers(path))
    except UnicodeEncodeError:
        return True


async def _poll(
    root: Path, excludes: Excludes, changed: Callable[[], object], seconds: float
) -> NoReturn:
    before = await trio.to_thread.run_sync(_fingerprint, root, excludes)
    took = 0.0
    while True:
        await trio.sleep(max(seconds, took * POLL_SHARE))
        started = trio.current_time()
        now = await trio.to_thread.run_sync(_fingerprint, root, excludes)
        took = trio.current_time() - started
        if now != before:
            before = now
            changed()


def _fingerprint(root: Path, excludes: Excludes) -> bytes:
    """Another one when any file is; raises EnvironmentFault."""
    root_fd = open_root(root)
    try:
        hasher = blake2b(digest_size=16)
        for found in Walk(root_fd, excludes):
            hasher.update(repr(found).encode())
    finally:
        os.close(root_fd)
    return hasher.digest()
