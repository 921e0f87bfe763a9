"""Which trackers are asked for what."""

from __future__ import annotations

from collections.abc import Iterable

from furymesh.core.ids import FileId, discovery_tag
from furymesh.core.link import Tracker
from furymesh.discovery.source import Interests
from furymesh.discovery.tracker import TrackerSource
from furymesh.node.config import Config


def configured_trackers(config: Config) -> TrackerSource:
    """The source that knows of all but private shares."""
    return TrackerSource(map(Tracker.parse, config.discovery.trackers))


def trackers_of(
    file_id: FileId, trackers: Iterable[Tracker], port: int, *, wanted: bool
) -> tuple[TrackerSource, Interests]:
    """The source of a link's own trackers, and the interests to run it with.

    They hold that one share, which may be a private one: who names a tracker in
    its link means it to be announced there. `port` is where this process accepts
    links, 0 for nowhere.
    """
    interests = Interests(port)
    interests.add(discovery_tag(file_id), wanted=wanted)
    return TrackerSource(trackers), interests
