"""Which trackers hear of which share, and what they hear."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
import trio

from furymesh.core.errors import UnavailableError
from furymesh.core.ids import FileId, discovery_tag, info_hash
from furymesh.core.link import Address, Link, Tracker
from furymesh.discovery import announcing
from furymesh.node import face
from furymesh.node.config import Config
from furymesh.node.runtime import Runtime, open_runtime
from furymesh.node.shares import share, shares, unshare
from tests.apart import ALONE, apart
from tests.tracker_server import TestTracker, open_tracker
from tests.waiting import stays, until

HERE = Address("127.0.0.1", 0)


def home(tmp_path: Path, name: str, **discovery: Any) -> Config:
    return apart({"data_dir": tmp_path / name, "discovery": {**ALONE, **discovery}})


def parsed(tracker: TestTracker, scheme: str = "http") -> Tracker:
    return Tracker.parse(tracker.url(scheme))


def histories(tracker: TestTracker) -> list[list[str]]:
    """The events of each peer, in the order in which they came first."""
    heard = sorted(tracker.heard, key=lambda one: (one.peer_id, one.at))
    told = [list(theirs) for _, theirs in groupby(heard, key=lambda one: one.peer_id)]
    return [[one.event for one in theirs] for theirs in sorted(told, key=lambda t: t[0].at)]


@asynccontextmanager
async def serving(config: Config) -> AsyncIterator[Runtime]:
    async with open_runtime(config, listen_on=HERE) as runtime:
        assert await runtime.load_catalog() == []
        yield runtime


def named_to(tracker: TestTracker) -> set[bytes]:
    return {heard.info_hash for heard in tracker.heard}


def name_of(file_id: FileId) -> bytes:
    return info_hash(discovery_tag(file_id))


@pytest.mark.parametrize("private", [False, True])
async def test_a_share_is_named_to_the_trackers_of_its_link(tmp_path: Path, private: bool) -> None:
    for name in ("own", "plain"):
        (tmp_path / name).write_text(name)
    async with open_tracker(TestTracker()) as everybodys, open_tracker(TestTracker()) as its_own:
        config = home(tmp_path, "seed", trackers=[everybodys.url("udp")])
        own = await share(tmp_path / "own", config, trackers=[parsed(its_own)], private=private)
        plain = await share(tmp_path / "plain", config)
        public = {name_of(shared.file_id) for shared in (plain, *([] if private else [own]))}
        async with serving(config):
            await until(lambda: named_to(everybodys) == public and its_own.heard)
        assert named_to(its_own) == {name_of(own.file_id)}
        assert named_to(everybodys) == public


@pytest.mark.parametrize("of_link", [False, True])
async def test_a_download_is_started_completed_and_ended(tmp_path: Path, of_link: bool) -> None:
    (tmp_path / "film").write_bytes(bytes(300_000))
    async with open_tracker(TestTracker()) as tracker:
        named = {} if of_link else {"trackers": [tracker.url("udp")]}
        seed, user = (home(tmp_path, name, **named) for name in ("seed", "user"))
        trackers = [parsed(tracker, "udp")] if of_link else []
        shared = await share(tmp_path / "film", seed, trackers=trackers)
        async with serving(seed):
            await until(lambda: tracker.swarms)
            await face.get(shared.link, user, output=tmp_path / "copy")
        assert histories(tracker) == [["started", "stopped"], ["started", "completed", "stopped"]]


async def test_the_tracker_of_a_link_is_left_alone_while_a_peer_is_linked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(announcing, "HUNGRY_SECONDS", 0.2)
    (tmp_path / "film").write_bytes(bytes(300_000))
    async with open_tracker(TestTracker()) as tracker:
        seed, user = home(tmp_path, "seed"), home(tmp_path, "user")
        shared = await share(tmp_path / "film", seed, trackers=[parsed(tracker)])
        async with serving(seed):
            await until(lambda: tracker.swarms)
            begun = trio.current_time()
            await face.get(shared.link, user, output=tmp_path / "copy", max_download=150_000)
            assert trio.current_time() - begun > 7 * announcing.HUNGRY_SECONDS
        # The first look may come before the link; without one there would be three.
        assert tracker.events().count("") <= 1


async def test_a_download_that_fails_is_not_completed(tmp_path: Path) -> None:
    async with open_tracker(TestTracker()) as tracker:
        link = Link(FileId(b"n" * 32), trackers=(parsed(tracker),))
        with pytest.raises(UnavailableError):
            await face.get(link, home(tmp_path, "user"), timeout=0.5)
        assert histories(tracker) == [["started", "stopped"]]


async def test_what_is_shared_again_at_once_stays_announced(tmp_path: Path) -> None:
    (tmp_path / "film").write_text("film")
    async with open_tracker(TestTracker()) as tracker:
        config = home(tmp_path, "seed")
        async with serving(config) as runtime:
            for _ in range(5):
                shared = await share(tmp_path / "film", config, trackers=[parsed(tracker)])
                await runtime.load_catalog()
                await until(lambda: tracker.swarms.get(name_of(shared.file_id)))  # noqa: B023
                await unshare(shared.file_id.hex(), config)
                await runtime.load_catalog()
            await share(tmp_path / "film", config, trackers=[parsed(tracker)])
            await runtime.load_catalog()
            await until(lambda: tracker.events()[-1] == "started")
            await stays(lambda: tracker.events()[-1] == "started", 0.2)
    assert tracker.events()[-1] == "stopped"


async def test_other_trackers_of_a_share_take_the_place_of_those_before(tmp_path: Path) -> None:
    (tmp_path / "film").write_text("film")
    async with open_tracker(TestTracker()) as first, open_tracker(TestTracker()) as second:
        config = home(tmp_path, "seed")
        await share(tmp_path / "film", config, trackers=[parsed(first)])
        async with serving(config) as runtime:
            await until(lambda: first.swarms)
            await share(tmp_path / "film", config, trackers=[parsed(second)])
            await runtime.load_catalog()
            await until(lambda: second.swarms and first.events() == ["started", "stopped"])


async def test_the_trackers_of_a_share_are_in_its_link_then_and_later(tmp_path: Path) -> None:
    (tmp_path / "film").write_bytes(b"film")
    config = Config.at(tmp_path / "data")
    trackers = [Tracker.parse("https://t.example/key/announce")]
    shared = await share(tmp_path / "film", config, trackers=trackers, private=True)
    assert Link.parse(shared.link.text).trackers == tuple(trackers)
    assert [item.link for item in shares(config)] == [shared.link]
