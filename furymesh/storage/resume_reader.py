"""Reading resume data: for showing it, and before a download takes it up.

Reading changes nothing and needs no lock: a file is replaced by rename, so
whoever opens it sees one whole state, at worst without its newest record.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import uuid
from dataclasses import dataclass
from pathlib import Path

from furymesh.core.errors import DamagedResumeDataError, EnvironmentFault, NotFoundError
from furymesh.core.geometry import MAX_CHUNKS
from furymesh.core.ids import FileId
from furymesh.core.journal import RECORD_SIZE
from furymesh.core.paths import shown
from furymesh.core.snapshot import (
    MAX_SNAPSHOT,
    UNKNOWN_BOOT,
    Recovered,
    ResumeMeta,
    recover,
)
from furymesh.storage.files import translating
from furymesh.storage.journal_file import UNFINISHED_SUFFIX

# Every chunk of the largest stream added twice over, between two compactions
# that are seconds apart. What lies beyond in a file is not ours.
MAX_FILE = MAX_SNAPSHOT + 2 * MAX_CHUNKS * RECORD_SIZE

# Files may carry any time; what comes after the year 9999 has no calendar date.
LAST_TIME = 253_402_300_799.0  # seconds since the epoch

_SUFFIX = ".resume"
_NAME = re.compile(r"([0-9a-f]{64})\.resume")
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def current_boot_id() -> bytes:
    """An identifier of this boot of this machine (16 bytes), or UNKNOWN_BOOT."""
    try:
        return uuid.UUID(_BOOT_ID.read_text("ascii").strip()).bytes
    except (OSError, ValueError):
        return UNKNOWN_BOOT


def resume_path(directory: Path, file_id: FileId) -> Path:
    """Where the resume data of a download lives."""
    return directory / f"{file_id.hex()}{_SUFFIX}"


@dataclass(frozen=True, slots=True)
class Summary:
    """Resume data as it was at one moment, for showing."""

    path: Path
    meta: ResumeMeta
    have: int
    doubtful: int
    updated_at: float  # seconds since the epoch

    @property
    def chunks_done(self) -> int:
        return self.have.bit_count()


@dataclass(frozen=True, slots=True)
class Damaged:
    """Resume data that cannot be read; `reason` is one plain line."""

    path: Path
    file_id: FileId
    reason: str


def peek(path: Path, *, boot_id: bytes | None = None) -> Summary:
    """Read resume data without taking it up; safe while another process writes it.

    Raises NotFoundError, DamagedResumeDataError or EnvironmentFault.
    """
    recovered, updated_at = read_resume_data(path, _file_id_in(path), boot_id or current_boot_id())
    return Summary(path, recovered.meta, recovered.have, recovered.doubtful, updated_at)


def list_all(directory: Path, *, boot_id: bytes | None = None) -> list[Summary | Damaged]:
    """All resume data in a directory, by file id; a missing directory has none.

    Raises EnvironmentFault if the directory cannot be read.
    """
    with translating(directory, "list"):
        names = sorted(os.listdir(directory)) if directory.exists() else []
    found: list[Summary | Damaged] = []
    for name in names:
        match = _NAME.fullmatch(name)
        if match is None:
            continue
        path = directory / name
        try:
            found.append(peek(path, boot_id=boot_id))
        except NotFoundError:
            continue  # finished while we were looking
        except (DamagedResumeDataError, EnvironmentFault) as error:
            found.append(Damaged(path, FileId(bytes.fromhex(match[1])), str(error)))
    return found


def list_unfinished(directory: Path) -> list[FileId]:
    """Downloads beside whose resume data a replacement lies, unfinished or under way."""
    with translating(directory, "list"):
        names = os.listdir(directory) if directory.exists() else []
    unfinished = [name for name in names if name.endswith(UNFINISHED_SUFFIX)]
    matches = [_NAME.fullmatch(name.removesuffix(UNFINISHED_SUFFIX)) for name in unfinished]
    return [FileId(bytes.fromhex(match[1])) for match in matches if match is not None]


def read_resume_data(path: Path, file_id: FileId, boot_id: bytes) -> tuple[Recovered, float]:
    """What the file at `path` claims in this boot, and when it was last written.

    Raises NotFoundError, DamagedResumeDataError or EnvironmentFault.
    """
    try:
        raw, updated_at = _read(path)
        recovered = recover(raw, boot_id)
        if recovered.meta.file_id != file_id:
            raise DamagedResumeDataError("it is about another download")
    except DamagedResumeDataError as error:
        raise DamagedResumeDataError(
            f"resume data {shown(str(path))} is unusable: {error};"
            " run `furymesh get` with the link, which keeps every good byte of the .part"
        ) from None
    return recovered, updated_at


def _read(path: Path) -> tuple[bytes, float]:
    """The bytes of a regular file of ours, and when it was last written."""
    # O_NONBLOCK: opening a pipe that someone put there must not wait for a writer.
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    with translating(path, "read"):
        try:
            fd = os.open(path, flags)
        except FileNotFoundError:
            raise NotFoundError(f"no resume data at {shown(str(path))}") from None
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise DamagedResumeDataError("it is a link") from None
            raise
        with open(fd, "rb") as file:
            facts = os.fstat(fd)
            if not stat.S_ISREG(facts.st_mode) or facts.st_uid != os.geteuid():
                raise DamagedResumeDataError("it is not a file of this user")
            if facts.st_size > MAX_FILE:
                raise DamagedResumeDataError("it is impossibly large")
            return file.read(facts.st_size), min(max(facts.st_mtime, 0.0), LAST_TIME)


def _file_id_in(path: Path) -> FileId:
    match = _NAME.fullmatch(path.name)
    if match is None:
        raise NotFoundError(f"{shown(str(path))} is not resume data")
    return FileId(bytes.fromhex(match[1]))
