"""Unfinished downloads as the commands see them: find, list, drop.

Synchronous, and free of the event loop: these commands start fast.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from furymesh.core.errors import DamagedResumeDataError, NotFoundError, UsageError
from furymesh.core.ids import FileId, parse_node_id, resolve_prefix
from furymesh.core.link import MAX_LINK_PEERS, MAX_LINK_TRACKERS, Link, Tracker
from furymesh.node.config import Config
from furymesh.storage.journal_file import remove_journal
from furymesh.storage.lock import DownloadLock
from furymesh.storage.moving import sweep_copies
from furymesh.storage.part_names import is_part_of, remove_part
from furymesh.storage.resume import Damaged, Summary, list_all, resume_path

T = TypeVar("T")


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
    return resolve_prefix(text, known, what="unfinished download", listed="furymesh list-resume")


def show_resume(file_id: FileId, config: Config) -> Summary:
    """One download in detail; raises NotFoundError or DamagedResumeDataError."""
    for item in list_resume(config):
        if _file_id(item) == file_id:
            if isinstance(item, Damaged):
                raise DamagedResumeDataError(item.reason)
            return item
    raise NotFoundError(f"there is no resume data for {file_id.hex()}")


def with_hints(link: Link, config: Config) -> Link:
    """The link, and what else its unfinished download remembers: trackers, nodes, privacy.

    Resume data may be forged: what makes no sense there is left out. Raises
    EnvironmentFault.
    """
    try:
        meta = show_resume(link.file_id, config).meta
    except (NotFoundError, DamagedResumeDataError):
        return link
    trackers = dict.fromkeys((*link.trackers, *_understood(Tracker.parse, meta.trackers)))
    nodes = dict.fromkeys((*link.nodes, *_understood(parse_node_id, meta.nodes)))
    return replace(
        link,
        trackers=tuple(trackers)[:MAX_LINK_TRACKERS],
        nodes=tuple(nodes)[:MAX_LINK_PEERS],
        private=link.private or meta.private,
    )


def _understood(parse: Callable[[str], T], texts: Iterable[str]) -> Iterator[T]:
    for text in texts:
        with contextlib.suppress(UsageError):
            yield parse(text)


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
