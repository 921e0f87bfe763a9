"""Which trackers are asked for what."""

from __future__ import annotations

from furymesh.core.ids import discovery_tag
from furymesh.core.link import Link, Tracker
from furymesh.discovery.source import Interests
from furymesh.discovery.tracker import TrackerSource
from furymesh.node.config import Config


def configured_trackers(config: Config) -> TrackerSource:
    """The source that knows of all but private shares."""
    return TrackerSource(map(Tracker.parse, config.discovery.trackers))


def trackers_of(link: Link, port: int) -> tuple[TrackerSource, Interests]:
    """The source of a link's own trackers, and the interests to run it with.

    They hold that one share, wanted, and so it may be a private one: who names
    a tracker in its link means it to be announced there. `port` is where this
    process accepts links, 0 for nowhere.
    """
    interests = Interests(port)
    interests.add(discovery_tag(link.file_id), wanted=True)
    return TrackerSource(link.trackers), interests
