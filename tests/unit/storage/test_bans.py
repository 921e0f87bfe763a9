from __future__ import annotations

import json
from pathlib import Path

import pytest

from furymesh.core.errors import EnvironmentFault
from furymesh.core.ids import NodeId
from furymesh.storage import bans as bans_module
from furymesh.storage import checked_json
from furymesh.storage.bans import BAN_SECONDS, MAX_RECORD, Ban, BanStore

DAY = 24 * 3600
YEAR = 365 * DAY
NOW = 1_800_000_000.0


class Clock:
    """A wall clock that is where it was put."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


def ban(number: int, machine: str = "c0000201") -> Ban:
    return Ban(NodeId(number.to_bytes(32, "big")), machine)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> BanStore:
    return BanStore(tmp_path, clock)


def files(place: Path) -> list[Path]:
    return sorted((place / "banned").iterdir())


def test_nothing_is_banned_at_first(store: BanStore) -> None:
    assert store.load() == ([], [])


def test_bans_come_back_oldest_first(store: BanStore, clock: Clock, tmp_path: Path) -> None:
    for number in (3, 1, 2):
        store.add(ban(number))
        clock.now += 1
    assert BanStore(tmp_path, clock).load() == ([ban(3), ban(1), ban(2)], [])


def test_records_are_private_and_small(store: BanStore, tmp_path: Path) -> None:
    store.add(Ban(NodeId(b"\xff" * 32), "f" * 200))
    (path,) = files(tmp_path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert path.stat().st_size <= MAX_RECORD
    assert len(store.load()[0]) == 1


def test_node_has_one_record_however_often_it_is_banned(store: BanStore, tmp_path: Path) -> None:
    store.add(ban(1))
    store.add(ban(1, ""))
    assert len(files(tmp_path)) == 1
    assert store.load() == ([ban(1, "")], [])


def test_ban_is_over_after_its_time(store: BanStore, clock: Clock, tmp_path: Path) -> None:
    store.add(ban(1))
    clock.now += BAN_SECONDS - 1
    assert store.load() == ([ban(1)], [])
    clock.now += 1
    assert store.load() == ([], [])
    assert files(tmp_path) == []


@pytest.mark.parametrize("jump", [10 * YEAR, -10 * YEAR, 2 * DAY, -2 * DAY])
def test_no_jump_of_the_clock_bans_for_ever(store: BanStore, clock: Clock, jump: float) -> None:
    store.add(ban(1))
    clock.now += jump
    assert store.load() == ([], [])


def test_clock_a_little_behind_forgets_nothing(store: BanStore, clock: Clock) -> None:
    store.add(ban(1))
    clock.now -= DAY / 2
    assert store.load() == ([ban(1)], [])


def test_oldest_bans_make_way(
    store: BanStore, clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bans_module, "MAX_BANS", 3)
    for number in range(5):
        store.add(ban(number))
        clock.now += 1
    assert store.load() == ([ban(2), ban(3), ban(4)], [])
    assert len(files(tmp_path)) == 3


def test_record_without_its_checksum_bans_nobody(store: BanStore, tmp_path: Path) -> None:
    store.add(ban(1))
    (path,) = files(tmp_path)
    record, _ = checked_json.decode(path.read_bytes())
    path.write_text(json.dumps(record))
    found, problems = store.load()
    assert found == []
    assert len(problems) == 1


def test_every_flipped_bit_and_every_truncation_bans_nobody_else(
    store: BanStore, tmp_path: Path
) -> None:
    store.add(ban(1))
    (path,) = files(tmp_path)
    good = path.read_bytes()
    damaged = [good[:size] for size in range(len(good))]
    for bit in range(8 * len(good)):
        flipped = bytearray(good)
        flipped[bit // 8] ^= 1 << bit % 8
        damaged.append(bytes(flipped))
    for raw in damaged:
        path.write_bytes(raw)
        found, problems = store.load()
        assert found == [], raw
        assert len(problems) == 1, raw


def test_damaged_records_cost_one_line_and_no_other_ban(store: BanStore, tmp_path: Path) -> None:
    for number in range(4):
        store.add(ban(number))
    paths = files(tmp_path)
    paths[0].write_bytes(b"")
    paths[1].write_bytes(b"\xff" * 10_000)
    paths[2].unlink()
    paths[2].symlink_to(paths[3])
    found, problems = store.load()
    assert found == [ban(3)]
    assert len(problems) == 1
    assert "and 2 more" in problems[0]
    assert paths[0].exists(), "what is not understood is not removed"


def test_time_that_no_clock_shows_is_over(store: BanStore, tmp_path: Path) -> None:
    store.add(ban(1, machine=""))
    (path,) = files(tmp_path)
    record, _ = checked_json.decode(path.read_bytes())
    path.write_bytes(checked_json.encode({**record, "banned_at": 10**290}))
    assert path.stat().st_size <= MAX_RECORD
    assert store.load() == ([], [])
    assert files(tmp_path) == []


def test_directory_that_cannot_be_made_is_told(store: BanStore, tmp_path: Path) -> None:
    (tmp_path / "banned").write_bytes(b"")
    with pytest.raises(EnvironmentFault, match="banned"):
        store.add(ban(1))
