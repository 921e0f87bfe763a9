"""Which trackers hear of which share."""

from __future__ import annotations

from pathlib import Path

import trio

from furymesh.core.ids import FileId, discovery_tag, info_hash
from furymesh.core.link import Link, Tracker
from furymesh.discovery.source import Interests, PeerSource, Sighting
from furymesh.node.config import Config
from furymesh.node.shares import share, shares
from furymesh.node.trackers import configured_trackers, trackers_of
from tests.tracker_server import TestTracker, open_tracker
from tests.waiting import until

SHARED, WANTED = FileId(bytes(32)), FileId(b"w" * 32)


async def test_a_share_is_named_to_the_trackers_of_its_link_and_to_no_other(
    tmp_path: Path,
) -> None:
    async with open_tracker(TestTracker()) as everybodys, open_tracker(TestTracker()) as its_own:
        config = Config.model_validate(
            {"data_dir": tmp_path, "discovery": {"trackers": [everybodys.url("udp")]}}
        )
        common = Interests(7001)
        common.add(discovery_tag(SHARED), wanted=False)
        link = Link.parse(Link(WANTED, trackers=(Tracker.parse(its_own.url("http")),)).text)
        named, interests = trackers_of(WANTED, link.trackers, 7001, wanted=True)
        configured: PeerSource = configured_trackers(config)
        seen: list[Sighting] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(configured.run, common, seen.append)
            nursery.start_soon(named.run, interests, seen.append)
            await until(lambda: everybodys.heard and seen)
            nursery.cancel_scope.cancel()
        assert {heard.info_hash for heard in everybodys.heard} == {info_hash(discovery_tag(SHARED))}
        assert {heard.info_hash for heard in its_own.heard} == {info_hash(discovery_tag(WANTED))}
        assert {sighting.tag for sighting in seen} == {discovery_tag(WANTED)}


async def test_the_trackers_of_a_share_are_in_its_link_then_and_later(tmp_path: Path) -> None:
    (tmp_path / "film").write_bytes(b"film")
    config = Config.at(tmp_path / "data")
    trackers = [Tracker.parse("https://t.example/key/announce")]
    shared = await share(tmp_path / "film", config, trackers=trackers, private=True)
    assert Link.parse(shared.link.text).trackers == tuple(trackers)
    assert [item.link for item in shares(config)] == [shared.link]
