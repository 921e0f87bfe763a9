from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import trio

from furymesh.sync import hashing_ahead
from furymesh.sync.archive import Archive
from furymesh.sync.entries import FileInfo
from furymesh.sync.hashing_ahead import HashingAhead
from tests.unit.sync.trees import make
from tests.waiting import TIMEOUT, stays, until


async def test_signs_come_only_while_hashing_gets_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path / "archive", "a")
    monkeypatch.setattr(hashing_ahead, "SIGN_SECONDS", 0.02)
    signs = 0
    hash_really, reads = Archive.hash, [threading.Event() for _ in range(3)]

    def hash_slowly(
        archive: Archive, paths: Sequence[str], count: Callable[[int], object], *rest: Any
    ) -> list[FileInfo]:
        for read in reads:
            read.wait(TIMEOUT)
            count(1)
        return hash_really(archive, paths, count, *rest)

    async def sign() -> None:
        nonlocal signs
        signs += 1

    monkeypatch.setattr(Archive, "hash", hash_slowly)
    with Archive(tmp_path / "archive", tmp_path / "data") as archive:
        (page,) = archive.pages()
        hashing = HashingAhead(archive, sign, lambda: False)
        done: list[FileInfo] = []

        async def work() -> None:
            done.extend(await hashing.hash(page))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(work)
            for number, read in enumerate(reads[:2]):
                await stays(lambda: signs == number, 0.1)  # noqa: B023
                read.set()
                await until(lambda: signs > number)  # noqa: B023
            assert (hashing.done, hashing.total) == (2, 1)
            reads[2].set()
    assert [info.path for info in done] == ["a"]
    assert done[0].sha256
    assert hashing.total == 0
