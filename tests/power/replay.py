"""States of a recorded disk, put back where the product looks for them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from tests.power.disk import Contents, Recording


class Replay:
    """Puts states of a recording into the directory that was recorded.

    One node of the model stays the same inode on the real disk throughout: the
    part, which the product knows again by its inode.
    """

    def __init__(self, recording: Recording, published: Path, vault: Path) -> None:
        """`published` is the result, still in its place; `vault` is on the same disk."""
        node = recording.everything().find(published.relative_to(recording.root).parts)
        assert node is not None
        self._root = recording.root
        self._node = node
        self._inode = published.stat().st_ino
        vault.mkdir()
        self._kept = vault / "kept"
        if published.is_dir():
            published.rename(self._kept)
        else:
            os.link(published, self._kept)

    def put(self, state: Contents) -> None:
        """Make the directory hold this state and nothing else."""
        self._clear()
        for path, node, content in state.walk():
            place = self._root / path
            if node == self._node:
                self._bring_back(place)
            if content is None:
                place.mkdir(mode=0o700, exist_ok=node == self._node)
            else:
                with open(place, "wb", opener=_private) as file:
                    file.write(content)

    def _clear(self) -> None:
        if not self._kept.exists():
            (found,) = (p for p in self._root.iterdir() if p.stat().st_ino == self._inode)
            found.rename(self._kept)
        shutil.rmtree(self._root)
        self._root.mkdir()

    def _bring_back(self, place: Path) -> None:
        if self._kept.is_dir():
            for path in self._kept.iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            self._kept.rename(place)
        else:
            os.link(self._kept, place)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
