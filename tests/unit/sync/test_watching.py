from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio

from furymesh.core.errors import EnvironmentFault
from furymesh.sync.excludes import NOTHING, Excludes
from furymesh.sync.watching import watch
from tests.unit.sync.trees import make

needs_extra = pytest.mark.skipif(
    importlib.util.find_spec("watchfiles") is None, reason="the extra `watch` is not installed"
)
POLL = 0.05  # seconds


@pytest.fixture(params=["watched", "polled"])
def mode(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "polled":
        monkeypatch.setitem(sys.modules, "watchfiles", None)  # importing it fails
    elif importlib.util.find_spec("watchfiles") is None:
        pytest.skip("the extra `watch` is not installed")
    return str(request.param)


class Watched:
    """An archive that is watched: `lines` is what was told, `change` waits for the next change."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.count = 0
        self._event = trio.Event()

    def changed(self) -> None:
        self.count += 1
        self._event.set()

    async def change(self) -> None:
        with trio.fail_after(20):
            await self._event.wait()
        self._event = trio.Event()

    async def until_alive(self, root: Path) -> None:
        """Until the watching has begun: changes of before it may go unseen."""
        for number in range(400):
            (root / "probe").write_text(str(number))
            with trio.move_on_after(0.5):
                await self._event.wait()
            if self._event.is_set():
                break
        self._event = trio.Event()
        (root / "probe").unlink()
        await self.change()
        with trio.move_on_after(0.6):  # what is still on its way comes now
            while True:
                await self.change()
        self.count = 0


@asynccontextmanager
async def watched(root: Path, excludes: Excludes = NOTHING) -> AsyncIterator[Watched]:
    made = Watched()
    async with trio.open_nursery() as nursery:
        start = partial(watch, root, excludes, made.changed, made.lines.append, POLL)
        nursery.start_soon(start)
        await made.until_alive(root)
        yield made
        nursery.cancel_scope.cancel()


async def test_every_change_is_noticed_and_none_of_what_is_excluded(
    tmp_path: Path, mode: str
) -> None:
    make(tmp_path, "a", "d/b", "build/x", "a.o", ".furymesh-trash/x")
    async with watched(tmp_path, Excludes(["build/", "*.o"])) as archive:
        make(tmp_path, "build/x", "build/y", "b.o", ".furymesh-trash/y")
        (tmp_path / "build/x").write_text("other")
        with trio.move_on_after(0.7):
            await archive.change()
        assert archive.count == 0
        (tmp_path / "a").write_text("other")
        await archive.change()
        make(tmp_path, "new/deep/c")
        await archive.change()
        (tmp_path / "d/b").rename(tmp_path / "d/e")
        await archive.change()
        (tmp_path / "d/e").unlink()
        await archive.change()
        os.utime(tmp_path / "a", ns=(1, 1))
        await archive.change()
        assert len(archive.lines) == (mode == "polled")
        assert all("pip install 'furymesh[watch]'" in line for line in archive.lines)
        before = archive.count
        make(tmp_path, *(f"d{n % 10}/f{n}" for n in range(500)))
        await archive.change()
        with trio.move_on_after(0.7):
            await archive.change()
        assert archive.count - before <= 10
        stopped = trio.current_time()
    assert trio.current_time() - stopped < 2


@needs_extra
@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "Limit reached"),
        OSError("limit reached"),
        ExceptionGroup("of a task group", [RuntimeError("limit reached")]),
    ],
    ids=repr,
)
async def test_where_the_kernel_refuses_the_archive_is_looked_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    import watchfiles

    async def refuse(*_: object, **__: object) -> AsyncIterator[set[object]]:
        if str(error):
            raise error
        yield set()

    monkeypatch.setattr(watchfiles, "awatch", refuse)
    async with watched(tmp_path) as archive:
        make(tmp_path, "a")
        await archive.change()
        (line,) = archive.lines
        assert line.endswith("(limit reached): looking for changes instead")


async def test_no_folder_is_an_error(tmp_path: Path, mode: str) -> None:
    with trio.fail_after(20), pytest.raises(EnvironmentFault, match="check that it exists"):
        await watch(tmp_path / "none", NOTHING, lambda: None, lambda line: None, POLL)
