"""How much of a partial file can be kept: what has been compared with the source.

A partial file may be of an older source, or of another one; going on with it
would make a mixture. So its end is compared, the whole of it where the source
is younger, and what differs is cut off before anything is added.

A file that is being written has the time of its source, as that was when the
transfer began, as the time of its last access: writing changes the other one
only. So a source that changed during an earlier attempt is younger too, whatever
the clocks of the two machines say.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from dataclasses import dataclass, field

import asyncssh

from furymesh.sftp.how import Verify
from furymesh.sftp.pipeline import WINDOW_BYTES, in_thread, reading

# More than was in flight: what a dying server did out of order lies in it.
TAIL_BYTES = WINDOW_BYTES
MAX_TIME = 2**32 - 1

ReadLocal = Callable[[int, int], bytes]  # offset, length


@dataclass(frozen=True, slots=True)
class Status:
    """What is known of a file on either side; times are in seconds.

    `accessed` is no part of what makes two equal: reading a file changes it.
    """

    mode: int
    size: int
    modified: int
    accessed: int = field(compare=False)
    owner: int | None

    @classmethod
    def of(cls, facts: os.stat_result) -> Status:
        times = (facts.st_mtime, facts.st_atime)
        # SFTP has 32 bits for a time.
        modified, accessed = (min(max(int(time), 0), MAX_TIME) for time in times)
        return cls(facts.st_mode, facts.st_size, modified, accessed, facts.st_uid)

    @property
    def is_file(self) -> bool:
        return stat.S_ISREG(self.mode)

    @property
    def is_directory(self) -> bool:
        return stat.S_ISDIR(self.mode)


async def sound_prefix(
    file: asyncssh.SFTPClientFile,
    read_local: ReadLocal,
    request_bytes: int,
    source: Status,
    partial: Status,
    verify: Verify,
) -> int:
    """How many bytes of the partial file can be kept, as far as `verify` looks.

    `file` is the remote one of the two. Where the tail differs all is compared,
    and the bytes up to the first difference are kept.
    """
    length = min(partial.size, source.size)
    if verify == "size":
        return length
    younger = source.modified > min(partial.modified, partial.accessed)
    tail = max(0, length - TAIL_BYTES)
    sound = 0
    for start in (tail, 0) if tail and verify == "tail" and not younger else (0,):
        sound = await _first_difference(file, read_local, request_bytes, start, length)
        if sound == length:
            break
    return sound


async def _first_difference(
    file: asyncssh.SFTPClientFile,
    read_local: ReadLocal,
    request_bytes: int,
    start: int,
    end: int,
) -> int:
    """The first offset from `start` at which the two differ; `end` if none does."""
    async with reading(file, start, end, request_bytes) as blocks:
        async for theirs in blocks:
            ours = await in_thread(read_local, start, len(theirs))
            if ours != theirs:
                return start + _common(ours, theirs)
            start += len(theirs)
    return end


def _common(one: bytes, other: bytes) -> int:
    """The length of the prefix that both have."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
