"""Unfinished downloads as the commands see them: find, list, drop.

Synchronous, and free of the event loop: these commands start fast.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

from furymesh.core.errors import DamagedResumeDataError, NotFoundError, UsageError
from furymesh.core.ids import FileId, resolve_prefix
from furymesh.core.link import MAX_LINK_TRACKERS, Tracker
from furymesh.node.config import Config
from furymesh.storage.journal_file import remove_journal
from furymesh.storage.lock import DownloadLock
from furymesh.storage.moving import sweep_copies
from furymesh.storage.part_names import is_part_of, remove_part
from furymesh.storage.resume import Damaged, Summary, list_all, resume_path


@dataclass(frozen=True, slots=True)
class Cleaned:
    """What `clean_resume` dropped; `part` is None if there was none."""

    file_id: FileId
    part: Path | None


def list_resume(config: Config) -> list[Summary | Damaged]:
    """Every unfinished download under the resume directory, oldest first."""
    return list_all(config.transfer.resume_dir)


def find_resume(text: str, config: Config) -> FileId:
    """The unfinished download whose id starts with `text`.

    Raises UsageError, AmbiguousIdError or NotFoundError.
    """
    known = [_file_id(item) for item in list_resume(config)]
    return resolve_prefix(text, known, what="unfinished download")


def show_resume(file_id: FileId, config: Config) -> Summary:
    """One download in detail; raises NotFoundError or DamagedResumeDataError."""
    for item in list_resume(config):
        if _file_id(item) == file_id:
            if isinstance(item, Damaged):
                raise DamagedResumeDataError(item.reason)
            return item
    raise NotFoundError(f"there is no resume data for {file_id.hex()}")


def known_trackers(file_id: FileId, config: Config) -> tuple[Tracker, ...]:
    """Those of the link that a download was begun with; raises as `show_resume` does."""
    found = []
    for text in show_resume(file_id, config).meta.trackers[:MAX_LINK_TRACKERS]:
        with contextlib.suppress(UsageError):  # resume data may be forged
            found.append(Tracker.parse(text))
    return tuple(found)


def clean_resume(file_id: FileId, config: Config) -> Cleaned:
    """Drop the resume data of a download and its part.

    Raises AlreadyRunningError while a process works on it, EnvironmentFault.
    """
    directory = config.transfer.resume_dir
    part: Path | None = None
    with DownloadLock(directory, file_id) as lock:
        lock.acquire("furymesh clean-resume")
        for item in list_resume(config):
            if isinstance(item, Summary) and item.meta.file_id == file_id:
                named = Path(item.meta.part)
                # A forged record must not make us delete what is not ours.
                part = named if item.meta.part and is_part_of(named, file_id) else None
        if part is not None and part.parent.is_dir():
            remove_part(part, file_id)
            sweep_copies(part.parent, file_id)
        remove_journal(resume_path(directory, file_id))
    return Cleaned(file_id, part)


def _file_id(item: Summary | Damaged) -> FileId:
    return item.file_id if isinstance(item, Damaged) else item.meta.file_id
