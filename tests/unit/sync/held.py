"""A folder of a client that is only in memory, for the tests of the comparison."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator
from typing import NamedTuple

from furymesh.sync.entries import FileInfo


class File(NamedTuple):
    """A file's content, and what else of it is kept."""

    content: bytes
    mtime_ns: int = 5
    mode: int = 0o644

    def info(self, path: str, *, hashed: bool = True) -> FileInfo:
        digest = self.sha256 if hashed else b""
        return FileInfo(path, len(self.content), self.mtime_ns, self.mode, digest)

    @property
    def sha256(self) -> bytes:
        return hashlib.sha256(self.content).digest()


def parents(path: str) -> Iterator[str]:
    while path := path.rpartition("/")[0]:
        yield path


class HeldModel:
    """What `Holdings` says, of files in a dictionary; `hashed` are those whose hash is known."""

    def __init__(self, files: dict[str, File], hashed: Collection[str] | None = None) -> None:
        self.files = dict(files)
        self.hashed = set(files if hashed is None else hashed)
        self.sizes = {len(file.content) for file in files.values()}

    def get(self, path: str) -> FileInfo | None:
        file = self.files.get(path)
        return file and file.info(path, hashed=path in self.hashed)

    def with_hash(self, sha256: bytes) -> str | None:
        return next((path for path in self if self.get(path).sha256 == sha256), None)  # type: ignore[union-attr]

    def unhashed_of_size(self, size: int) -> Collection[str]:
        return [
            path
            for path, file in self.files.items()
            if len(file.content) == size and path not in self.hashed
        ]

    def had_size(self, size: int) -> bool:
        return size in self.sizes

    def is_directory(self, path: str) -> bool:
        return any(held.startswith(f"{path}/") for held in self.files)

    def directories(self) -> Iterable[str]:
        return {parent for path in self.files for parent in parents(path)}

    def has_room(self, path: str, folders: Collection[str]) -> bool:
        return True

    def __iter__(self) -> Iterator[str]:
        return iter(self.files)
