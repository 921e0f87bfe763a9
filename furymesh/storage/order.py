"""What is asked for of a download, and where and how downloads are kept."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from furymesh.core.ids import FileId, NodeId
from furymesh.core.link import Link, Mirror, Tracker
from furymesh.core.protection import PLAIN, Protection


@dataclass(frozen=True, slots=True)
class Order:
    """What was asked for."""

    file_id: FileId
    name: str | None = None
    output: Path | None = None
    key: bytes | None = field(default=None, repr=False)
    overwrite: bool = False
    detached: bool = False
    trackers: tuple[Tracker, ...] = ()  # of the link
    nodes: tuple[NodeId, ...] = ()  # whom it names, wherever they are
    private: bool = False  # as the link says
    mirrors: tuple[Mirror, ...] = ()  # of the link
    own_mirrors: tuple[Mirror, ...] = ()  # named by the user himself

    @classmethod
    def of(
        cls,
        link: Link,
        *,
        output: Path | None,
        overwrite: bool,
        detached: bool = False,
        own_mirrors: tuple[Mirror, ...] = (),
    ) -> Order:
        """What a link asks for."""
        return cls(
            link.file_id,
            link.name,
            output,
            link.key,
            overwrite,
            detached,
            link.trackers,
            tuple(sorted(link.node_ids)),
            link.private,
            link.mirrors,
            own_mirrors,
        )


@dataclass(frozen=True, slots=True)
class Settings:
    """Where and how downloads are kept; sizes in bytes, times in seconds."""

    data_dir: Path
    resume_dir: Path
    download_dir: Path
    resume_enabled: bool = True
    save_interval: float = 30.0
    reserve: int = 0
    check_space: bool = True
    protection: Protection = PLAIN  # of the keys in resume data
