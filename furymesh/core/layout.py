"""Where each byte of a plain stream lies in the files of a share."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple


class EntryKind(Enum):
    """What a line of the file table describes; the value is its wire code."""

    FILE = 0
    EXECUTABLE = 1
    DIRECTORY = 2


@dataclass(frozen=True, slots=True)
class Entry:
    """A file, or a directory with nothing in it; `size` in bytes, 0 for a directory."""

    path: str
    kind: EntryKind
    size: int


class Segment(NamedTuple):
    """`length` bytes at `offset` of file number `file`."""

    file: int
    offset: int
    length: int


class Layout:
    """The files of a share laid end to end.

    `files` are in stream order; `directories` are the paths of the empty ones
    (the others follow from the files). A share that is one file has no names in
    its manifest: `single` is true and the one file's path is "".
    """

    __slots__ = ("_starts", "directories", "files", "plain_size", "single")

    def __init__(self, entries: Iterable[Entry], *, single: bool = False) -> None:
        listed = tuple(entries)
        self.single = single
        self.files = tuple(e for e in listed if e.kind is not EntryKind.DIRECTORY)
        self.directories = tuple(e.path for e in listed if e.kind is EntryKind.DIRECTORY)
        self._starts: list[int] = []
        self.plain_size = 0
        for file in self.files:
            self._starts.append(self.plain_size)
            self.plain_size += file.size

    @classmethod
    def of_file(cls, size: int) -> Layout:
        """The layout of a share that is one file of `size` bytes."""
        return cls([Entry("", EntryKind.FILE, size)], single=True)

    def components(self, file: int) -> tuple[str, ...]:
        """The path of a folder's file, split for a walk from the folder's root."""
        return tuple(self.files[file].path.split("/"))

    def segments(self, offset: int, length: int) -> Iterator[Segment]:
        """The pieces of files that make up a range of the stream, in order.

        The range must lie within the stream; empty files never appear.
        """
        if not length:
            return
        # Of the files that start at one offset all but the last are empty.
        file = bisect_right(self._starts, offset) - 1
        skip = offset - self._starts[file]
        while length:
            take = min(self.files[file].size - skip, length)
            if take:
                yield Segment(file, skip, take)
            length -= take
            file += 1
            skip = 0
